"""Means of the rows of one run: per site, and the flat summary, with their 95 % intervals.

The mean over structures is the mean of the structure means: a structure that is present in few
cases weighs as much as one that is present in all. A NaN is in no mean and in no count; the
policy in `metrics/empty.py` makes sure that a missed structure is not NaN. Intervals are those of
`intervals.py`; the mean over structures resamples the same patients for all of them.
"""

import math
from collections.abc import Hashable, Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.errors import InputError
from segshift.metrics import SIGNED
from segshift.results.intervals import (
    Sums,
    bounds,
    mean_of_columns,
    patients_measured,
    sums_of,
    with_means,
)
from segshift.splits import IN_DOMAIN

MEAN = "mean"
NUMBERS = ("mean", "low", "high", "n", "patients")  # n: cases; patients: with the rarest structure


def site_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per (set, site, structure), then a line `mean` for each (set, site).

    For each metric there are four columns: `<metric>`, the mean over cases, `<metric>_low` and
    `<metric>_high`, its interval (NaN for fewer than two patients), and `<metric>_n`, the cases in
    which it is defined. On the line `mean` these are the mean of the structure means, the interval
    of resamples in which all of these structures are, and the cases with at least one of them.
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
    table = pd.DataFrame(columns, index=wide.index)
    return table.sort_index().reset_index().drop(columns="is_mean")


def is_shifted(set_: str) -> bool:
    """Whether an evaluation set shows its cases under a shift, as `in_domain+noise3` does."""
    return "+" in set_


def summarise(rows: pd.DataFrame, higher_is_better: Mapping[str, bool]) -> dict[str, float]:
    """Flat summary of the evaluation sets; what is undefined (NaN) has no key.

    | key                              | value                                                     |
    |----------------------------------|-----------------------------------------------------------|
    | `test/<set>/<structure>/<metric>`| mean over the cases of the set                            |
    | `test/<set>/<metric>`            | mean of the structure means                               |
    | `test/<set>/<metric>_n`          | cases of the set in which it is defined                   |
    | `test/worst_site/<metric>`       | worst site of any set, by its mean of the structure means |
    | `test/gap/<metric>`              | how much worse the mean of the other sets is than         |
    |                                  | `in_domain`, over structures that both have; positive is  |
    |                                  | worse for every metric; no key without such sets          |

    `_low` and `_high` behind the means of sets and behind the gap are their intervals; those of the
    gap resample either side. Sets under a shift (`in_domain+noise3`) count neither for the worst
    site nor for the gap.
    """
    check_one_run(rows)
    unknown = sorted(set(rows["metric"]) - set(higher_is_better))
    if unknown:
        raise InputError(f"is higher better? not said for: {', '.join(unknown)}")
    summary: dict[str, float] = {}
    for line in estimates(rows, ["set"]).to_dict("records"):
        metric = line["metric"]
        if line["is_mean"]:
            for part in ("low", "high", "n"):
                summary[f"test/{line['set']}/{metric}_{part}"] = line[part]
            summary[f"test/{line['set']}/{metric}"] = line["mean"]
        else:
            summary[f"test/{line['set']}/{line['structure']}/{metric}"] = line["mean"]
    sites = site_table(rows[~rows["set"].map(is_shifted).astype(bool)])
    for metric, higher in higher_is_better.items():
        if metric not in sites:
            continue
        if SIGNED.fullmatch(metric):
            continue
        of_sites = sites.loc[sites["structure"] == MEAN, metric]
        summary[f"test/worst_site/{metric}"] = of_sites.min() if higher else of_sites.max()
        sign = 1 if higher else -1
        lost, *sides = _gap(rows[(rows["metric"] == metric) & ~rows["set"].map(is_shifted)])
        summary[f"test/gap/{metric}"] = sign * lost
        for side, bound in zip(("low", "high"), sides[::sign], strict=True):
            summary[f"test/gap/{metric}_{side}"] = sign * bound
    return {key: float(value) for key, value in sorted(summary.items()) if not math.isnan(value)}


def estimates(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Means by keys, metric and structure, with the columns `NUMBERS`; `is_mean` is over these."""
    parts = [pd.DataFrame(columns=[*keys, "metric", "structure", "is_mean", *NUMBERS])]
    for key, members in rows.groupby(keys):
        sums = sums_of(members, ["metric", "structure"])
        metrics = sums.columns.get_level_values("metric")
        groups = {str(metric): np.asarray(metrics == metric) for metric in metrics.unique()}
        patients = patients_measured(sums.counts, groups.values())
        low, high = bounds(with_means(sums.resampled(), groups.values()), patients)
        cases = members.dropna(subset=["value"]).groupby("metric")["case"].nunique()
        lines = {
            "metric": [*metrics, *groups],
            "structure": [*sums.columns.get_level_values("structure"), *(MEAN for _ in groups)],
            "is_mean": np.arange(len(metrics) + len(groups)) >= len(metrics),
            "mean": with_means(sums.means[None], groups.values())[0],
            "low": low,
            "high": high,
            "n": [*sums.counts.sum(axis=0), *(cases.get(metric, 0) for metric in groups)],
            "patients": patients,
        }
        parts.append(pd.DataFrame(lines).assign(**_named(keys, key)))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def _named(keys: list[str], key: Iterable[Hashable]) -> dict[str, Any]:
    return dict(zip(keys, key, strict=True))


def _gap(rows: pd.DataFrame) -> tuple[float, float, float]:
    """`in_domain` minus the mean of the other sets, with its bounds; rows of one metric."""
    sets = {str(name): sums_of(members, ["structure"]) for name, members in rows.groupby("set")}
    if IN_DOMAIN not in sets or len(sets) < 2:
        return math.nan, math.nan, math.nan
    # Together, because what was measured says which sets count, also where no resample has one.
    drawn = {
        name: pd.DataFrame(np.vstack([each.means, each.resampled()]), columns=each.columns)
        for name, each in sets.items()
    }
    lost = _lost_outside(drawn)
    low, high = bounds(lost[1:, None], _fewest(sets))
    return float(lost[0]), float(low[0]), float(high[0])


def _fewest(sets: Mapping[str, Sums]) -> float:
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
