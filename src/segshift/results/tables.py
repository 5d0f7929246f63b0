"""Means of the rows of one run: per site, and the flat summary, with their 95 % intervals.

The mean over structures is the mean of the structure means: a structure that is present in few
cases weighs as much as one that is present in all. A NaN is in no mean and in no count; the
reference alone decides which it is (`metrics/empty.py`). Intervals are those of `intervals.py`; the
mean over structures resamples the same patients for all of them. Rows are of one run, of one judge
(the network or the raters) and either with or without post-processing.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.errors import InputError
from segshift.metrics import Measure
from segshift.results.failures import failed_patients
from segshift.results.intervals import (
    MEAN,
    PatientMeans,
    bounds,
    by_patient,
    mean_of_columns,
    patients_measured,
    with_means,
)
from segshift.results.measures import Measures, check_measured
from segshift.results.shrinkage import site_means, worst_site
from segshift.splits import IN_DOMAIN

NUMBERS = ("mean", "low", "high", "n", "patients")  # n: cases; patients: with the rarest structure


def site_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per (set, site, structure), then a line `mean` for each (set, site).

    For each metric there are four columns: `<metric>`, the mean over patients of the means of their
    cases, `<metric>_low` and `<metric>_high`, its interval (NaN for few patients), and
    `<metric>_n`, the cases that it is of. On the line `mean` these are the mean of the structure
    means, the interval of resamples in which all of these structures are, and the cases with at
    least one of them. Beside Dice are the columns of `failed_patients`.
    """
    check_one_run(rows)
    lines = estimates(rows, ["set", "site"])
    wide = lines.pivot(index=["set", "site", "is_mean", "structure"], columns="metric")
    columns = {}
    for metric in sorted(rows["metric"].unique()):
        columns[metric] = wide["mean", metric]
        columns[f"{metric}_low"] = wide["low", metric]
        columns[f"{metric}_high"] = wide["high", metric]
        columns[f"{metric}_n"] = wide["n", metric].fillna(0).astype(int)
    table = pd.DataFrame(columns, index=wide.index).sort_index().reset_index()
    table = table.drop(columns="is_mean")
    if "dice" not in columns:
        return table
    failed = failed_patients(rows, by=["set", "site"])
    return table.merge(failed, on=["set", "site", "structure"], how="left")


def with_raters(table: pd.DataFrame, raters: pd.DataFrame) -> pd.DataFrame:
    """A `site_table` with how well people agree on the same images, where several have drawn them.

    `raters` are the rows of other people's masks. For each metric `<metric>_raters` and
    `<metric>_raters_n` are their mean and the cases that it is of.
    """
    keys = ["set", "site", "structure"]
    if raters.empty:
        return table
    own = site_table(raters.assign(run="raters"))
    metrics = sorted(raters["metric"].unique())
    names = {m: f"{m}_raters" for m in metrics} | {f"{m}_n": f"{m}_raters_n" for m in metrics}
    return table.merge(own[[*keys, *names]].rename(columns=names), on=keys, how="left")


def summarise(rows: pd.DataFrame, measures: Measures, *, scope: str = "test") -> dict[str, float]:
    """Flat summary of the evaluation sets as acquired; what is undefined (NaN) has no key.

    | key                              | value                                                     |
    |----------------------------------|-----------------------------------------------------------|
    | `test/<set>/<structure>/<metric>`| mean over the patients of the set                         |
    | `test/<set>/<metric>`            | mean of the structure means                               |
    | `test/<set>/<metric>_n`          | cases of the set in which it is defined                   |
    | `test/<set>/failed_patients`     | patients with a Dice below 0.1 of any structure, of       |
    |                                  | `failed_of`; the share is in `failed_low`, `failed_high`  |
    | `test/worst_site/<metric>`       | mean over structures of the site that is worst, of        |
    |                                  | `<metric>_patients`, and `<metric>_shrunken` (by which    |
    |                                  | it is chosen, see `shrinkage.py`); of two sites or more   |
    | `test/gap/<metric>`              | how much worse the mean of the other sets is than         |
    |                                  | `in_domain`, over structures that both have; positive is  |
    |                                  | worse for every metric; no key without such sets          |

    `_low` and `_high` behind the means of sets and behind the gap are their intervals; those of the
    gap resample either side. `scope` replaces the first word of the keys: `postprocessed` or
    `raters`. Signed measures have neither worst site nor gap.
    """
    check_one_run(rows)
    check_measured(rows["metric"], measures)
    summary: dict[str, float] = {}
    for line in estimates(rows, ["set"]).to_dict("records"):
        metric = line["metric"]
        if line["is_mean"]:
            for part in ("low", "high", "n"):
                summary[f"{scope}/{line['set']}/{metric}_{part}"] = line[part]
            summary[f"{scope}/{line['set']}/{metric}"] = line["mean"]
        else:
            summary[f"{scope}/{line['set']}/{line['structure']}/{metric}"] = line["mean"]
    failed = failed_patients(rows, by=["set"])
    for line in failed[failed["structure"] == MEAN].to_dict("records"):
        for name in ("failed_patients", "failed_of", "failed_low", "failed_high"):
            summary[f"{scope}/{line['set']}/{name}"] = line[name]
    for metric, own in ((str(name), own) for name, own in rows.groupby("metric")):
        measure = measures[metric]
        if measure.signed:
            continue
        worst = worst_site(site_means(own), measure=measure)
        if worst:
            key = f"{scope}/worst_site/{metric}"
            summary |= {key: worst.mean, f"{key}_patients": worst.patients}
            summary[f"{key}_shrunken"] = worst.shrunken
        for end, lost in _gap(own, measure).items():
            summary[f"{scope}/gap/{metric}{end}"] = lost
    return {key: float(value) for key, value in sorted(summary.items()) if not math.isnan(value)}


def estimates(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means by keys, metric and structure, with the columns `NUMBERS`; `is_mean` is over these."""
    parts = [pd.DataFrame(columns=[*keys, "metric", "structure", "is_mean", *NUMBERS])]
    for key, members in rows.groupby(keys):
        own = by_patient(members, ["metric", "structure"])
        metrics = own.columns.get_level_values("metric")
        groups = {str(metric): np.asarray(metrics == metric) for metric in metrics.unique()}
        patients = patients_measured(own.cases, groups.values())
        low, high = bounds(with_means(own.resampled(), groups.values()), patients)
        measured = members.dropna(subset=["value"])
        cases = measured.groupby("metric")["case"].nunique()
        of_structures = measured.groupby(["metric", "structure"])["case"].nunique()
        lines = {
            "metric": [*metrics, *groups],
            "structure": [*own.columns.get_level_values("structure"), *(MEAN for _ in groups)],
            "is_mean": np.arange(len(metrics) + len(groups)) >= len(metrics),
            "mean": with_means(own.means[None], groups.values())[0],
            "low": low,
            "high": high,
            "n": [
                *of_structures.reindex(own.columns, fill_value=0),
                *(cases.get(metric, 0) for metric in groups),
            ],
            "patients": patients,
        }
        parts.append(pd.DataFrame(lines).assign(**_named(keys, key)))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _named(keys: list[str], key: Iterable[Hashable]) -> dict[str, Any]:
    return dict(zip(keys, key, strict=True))


def _gap(rows: pd.DataFrame, measure: Measure) -> dict[str, float]:
    """How much worse the mean of the other sets is than `in_domain`, under "", its ends behind.

    Rows are of one metric. Empty without sets to compare.
    """
    sets = {str(name): by_patient(members, ["structure"]) for name, members in rows.groupby("set")}
    if IN_DOMAIN not in sets or len(sets) < 2:
        return {}
    # Together, because what was measured says which sets count, also where no resample has one.
    drawn = {
        name: pd.DataFrame(np.vstack([each.means, each.resampled()]), columns=each.columns)
        for name, each in sets.items()
    }
    lost = -measure.badness(_lost_outside(drawn))
    low, high = bounds(lost[1:, None], _fewest(sets))
    return {"": float(lost[0]), "_low": float(low[0]), "_high": float(high[0])}


def _fewest(sets: Mapping[str, PatientMeans]) -> float:
    """Patients that the rarest structure has on either side of the gap, of those that both have.

    They decide how much narrower the interval would be. NaN if no structure is on both sides.
    """
    patients = pd.DataFrame({n: pd.Series(s.measured, index=s.columns) for n, s in sets.items()})
    patients = patients[patients > 0]
    outside = patients.drop(columns=IN_DOMAIN)
    return float(np.minimum(outside, patients[[IN_DOMAIN]].to_numpy()).min(axis=None))


def _lost_outside(means: Mapping[str, pd.DataFrame]) -> NDArray[np.float64]:
    """By line; `means` holds for each set lines, as measured then resampled, and its structures."""
    # A structure that one side lacks would turn another case mix into a gap: it is NaN here.
    lost = [
        mean_of_columns((means[IN_DOMAIN] - outside).to_numpy(np.float64))
        for name, outside in means.items()
        if name != IN_DOMAIN
    ]
    return mean_of_columns(np.stack(lost, axis=1))


def check_one_run(rows: pd.DataFrame) -> None:
    """Raises InputError for rows of several runs."""
    runs = sorted(rows["run"].unique())
    if len(runs) > 1:
        raise InputError(f"rows of one run wanted, got those of {', '.join(runs)}")
