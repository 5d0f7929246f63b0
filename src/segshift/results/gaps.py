"""What is lost at another site, and how much of it because that site is harder anyway.

Of a network trained at T and tested at S, all differences signed so that positive is worse:

    gap     its in-domain mean at T against its mean at S
    shift   the mean of S's own network at S, the oracle, against that of the network from T
    harder  what remains: gap - shift; the in-domain mean at T against the oracle at S

The shift is paired: it is of the patients that both networks have measured. Where the oracle has
measured only some (one fold of several), `unpaired` counts the others, and harder compares T with
what the oracle would reach at all patients of S if it gained there as it does on the common ones.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.results.failures import COUNTS, failed_patients
from segshift.results.intervals import (
    MEAN,
    PatientMeans,
    bounds,
    by_patient,
    patients_measured,
    with_means,
)
from segshift.results.measures import Measures
from segshift.results.rows import acquired
from segshift.results.significance import sign_flip_p
from segshift.results.study import (
    LINE,
    MEASURED,
    WHERE,
    case_means,
    corrected,
    jobs_behind,
    sites_of,
)
from segshift.splits import IN_DOMAIN

Array = NDArray[np.float64]
Line = tuple[str, ...]
MEANS = ("in_domain", "out", "gap", "harder", "shift")
GAPS = [
    *LINE, *WHERE, *MEASURED,
    *(f"{mean}{end}" for mean in MEANS for end in ("", "_low", "_high")),
    *(f"{side}_{count}" for side in ("in_domain", "out") for count in COUNTS),
    "oracle", "p", "p_holm", "patients", "paired", "tested", "unpaired", "seeds", "jobs",
]  # fmt: skip
SIDES = ("out", "paired", "oracle")
ORACLES = "single_source"  # the part whose networks are taken as oracles, if there are several


def gap_table(rows: pd.DataFrame, measures: Measures) -> pd.DataFrame:
    """One line per line of the study, set and site outside, metric and structure, and their `mean`.

    `rows` are those of a `Study`. Means and intervals are of the structures that both sides have;
    the mean over structures is split only where the oracle has all of them. Its `patients` and
    `paired` count those with the structure that the fewest have, as its intervals do. Beside the
    means of Dice at home and outside are the patients that were failed there. `p` tests the
    shift by sign flips of the `tested` patients, of whom both networks have measured any of its
    structures (`unpaired`: only the one from elsewhere); `p_holm` is corrected for all pairs of the
    table with that metric and structure. Signed metrics, without a good end, have no gap. At a site
    that the network was trained at, too, there is nothing to split.
    """
    judged = [name for name, measure in measures.items() if not measure.signed]
    plain = acquired(rows)
    plain = plain[plain["metric"].isin(judged)]
    means = case_means(plain)
    inside = {_line(key): of for key, of in means[means["set"] == IN_DOMAIN].groupby(LINE)}
    jobs = jobs_behind(plain, LINE).set_index(LINE)["jobs"]
    seeds = plain.groupby(LINE)["seed"].nunique()
    parts = [pd.DataFrame(columns=[*GAPS, "is_mean"])]
    for key, outside in means[means["set"] != IN_DOMAIN].groupby([*LINE, *WHERE]):
        *names, set_, site = _line(key)
        line = tuple(names)
        if line not in inside:
            continue
        oracle = _oracle(line, site, list(inside))
        behind = ";".join(dict.fromkeys(jobs[each] for each in (line, oracle) if each))
        where = dict(zip([*LINE, *WHERE], (*line, set_, site), strict=True))
        pair = _pair(inside[line], outside, inside[oracle] if oracle else None, measures)
        parts.append(pair.assign(**where, seeds=seeds[line], jobs=behind))
    table = pd.concat(parts[1:] or parts, ignore_index=True)
    table["p_holm"] = corrected(table, "p", families=MEASURED)
    order = [*LINE, *WHERE, "metric", "is_mean", "structure"]
    return table.sort_values(order)[GAPS].reset_index(drop=True)


def leave_site_out_table(gaps: pd.DataFrame, failures: pd.DataFrame) -> pd.DataFrame:
    """The lines of the gap table of networks that were trained at several sites, with failures.

    Beside each share of the failure table at the held-out site is the number of values behind it.
    """
    several = gaps["train"].map(lambda train: len(sites_of(train)) > 1).astype(bool)
    return gaps[several].merge(failures.drop(columns="jobs"), on=[*LINE, *WHERE], how="left")


def _line(key: object) -> Line:
    assert isinstance(key, tuple)
    return tuple(map(str, key))


def _oracle(line: Line, site: str, lines: list[Line]) -> Line | None:
    """The line of the same variant that was trained at `site` alone; of several the own part's.

    None where the network itself knows the site.
    """
    part, variant, train = line
    if site in sites_of(train):
        return None
    own = [each for each in lines if each[1] == variant and sites_of(each[2]) == (site,)]
    return min(own, key=lambda each: (each[0] != part, each[0] != ORACLES, each), default=None)


def _pair(
    inside: pd.DataFrame, outside: pd.DataFrame, oracle: pd.DataFrame | None, measures: Measures
) -> pd.DataFrame:
    """The lines of one network at one site outside, also those of the means over structures."""
    home = by_patient(inside, MEASURED)
    away = by_patient(_sides(outside, oracle), ["side", *MEASURED])
    outside_too = set(_known(away))
    names = [name for name in _known(home) if ("out", *name) in outside_too]
    home, away = _chosen(home, names), _chosen(away, [(s, *name) for s in SIDES for name in names])
    metrics = np.array([metric for metric, _ in names])
    groups = [metrics == metric for metric in dict.fromkeys(metrics)]  # columns of each metric

    at_home = with_means(_drawn(home), groups)
    out, paired, own = (with_means(x, groups) for x in np.split(_drawn(away), len(SIDES), axis=1))
    for place, of in enumerate(groups, len(names)):
        if np.isnan(own[0, : len(names)][of]).any():  # another mean than that of the gap
            paired[:, place] = own[:, place] = np.nan
    whole = [*names, *((metrics[of][0], MEAN) for of in groups)]
    sign = np.array([-measures[metric].badness(1.0) for metric, _ in whole])
    gap, shift = sign * (at_home - out), sign * (own - paired)
    n_home = patients_measured(home.cases, groups)
    of_out, of_both, _ = np.split(away.cases, len(SIDES), axis=1)
    n_out, n_paired = (patients_measured(each, groups) for each in (of_out, of_both))
    tested = _with_any(of_both, groups)
    sides = {
        "in_domain": (at_home, n_home),
        "out": (out, n_out),
        "gap": (gap, np.minimum(n_home, n_out)),
        "harder": (gap - shift, np.minimum(n_home, n_paired)),
        "shift": (shift, n_paired),
    }
    table = pd.DataFrame(whole, columns=MEASURED).assign(
        is_mean=np.arange(len(whole)) >= len(names),
        oracle=own[0],
        p=np.where(np.isnan(shift[0]), np.nan, _p(away, groups)),
        patients=n_out,
        paired=n_paired,
        tested=tested,
        unpaired=_with_any(of_out, groups) - tested,
    )
    for name, (values, patients) in sides.items():
        low, high = bounds(values[1:], patients)
        table = table.assign(**{name: values[0], f"{name}_low": low, f"{name}_high": high})
    for side, cases in (("in_domain", inside), ("out", outside)):
        table = table.merge(_failed(cases, names, side), on=MEASURED, how="left")
    return table


def _failed(cases: pd.DataFrame, names: list[Any], side: str) -> pd.DataFrame:
    """`COUNTS` of one side, of the structures that both have."""
    shared = pd.MultiIndex.from_frame(cases[MEASURED]).isin(names)
    counts = failed_patients(cases[shared], by=["metric"])[[*MEASURED, *COUNTS]]
    return counts.rename(columns={count: f"{side}_{count}" for count in COUNTS})


def _sides(outside: pd.DataFrame, oracle: pd.DataFrame | None) -> pd.DataFrame:
    """What is measured outside, and of the values that the oracle has too both sides."""
    sides = [outside.assign(side="out")]
    if oracle is not None:
        both = outside.merge(
            oracle, on=["case", "patient", *MEASURED], suffixes=("_paired", "_oracle")
        )
        both = both.dropna(subset=["value_paired", "value_oracle"])
        sides += [both.assign(side=x, value=both[f"value_{x}"]) for x in ("paired", "oracle")]
    return pd.concat(sides)[["side", "patient", *MEASURED, "value"]]


def _known(own: PatientMeans) -> list[Any]:
    """The columns with a value."""
    return [name for name, n in zip(own.columns, own.measured, strict=True) if n]


def _chosen(own: PatientMeans, columns: list[Any]) -> PatientMeans:
    """These columns, without a value where there is none of the name."""
    index = pd.Index(columns)
    place = own.columns.get_indexer(index)
    values, cases = (np.where(place < 0, 0, x[:, place]) for x in (own.values, own.cases))
    return PatientMeans(own.patients, index, values, cases)


def _drawn(own: PatientMeans) -> Array:
    """Means (1 + resamples, C): as measured, then resampled."""
    return np.vstack([own.means, own.resampled()])


def _with_any(cases: NDArray[np.int64], groups: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """Of `cases` (P, C) the patients with a value, by column, then with any in each group."""
    has = cases > 0
    return np.array([*has.sum(axis=0), *(has[:, of].any(axis=1).sum() for of in groups)])


def _p(away: PatientMeans, groups: list[NDArray[np.bool_]]) -> Array:
    """Of the shifts, by column, then of the mean over the structures of each metric.

    Each is of the patients who have it, so that few are told by all patterns of signs.
    """
    _, paired, oracle = np.split(away.values, len(SIDES), axis=1)
    has = np.split(away.has, len(SIDES), axis=1)[1] > 0
    # What each patient adds to the difference of the means.
    adds = (oracle - paired) / np.maximum(has.sum(axis=0), 1)
    places = np.arange(has.shape[1])
    names, found = np.array(away.patients), []
    for of in (*(places == place for place in places), *groups):
        who = has[:, of].any(axis=1)
        own = adds[who][:, of].mean(axis=1)
        found.append(sign_flip_p(own, identity=names[who].tolist()) if who.any() else np.nan)
    return np.array(found)
