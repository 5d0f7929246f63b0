"""Trained here, tested there: means of every training at every site, with their intervals.

`in_domain` on the diagonal is what the site's own network reaches on patients that it has not seen,
the site's oracle; `site-<name>` is what a network from elsewhere reaches there.
"""

import pandas as pd

from segshift.results.comparison import higher_is_better
from segshift.results.curves import AREA, CURVE, KEYS, shift_areas, shift_curves
from segshift.results.failures import failure_profile
from segshift.results.study import (
    LINE,
    MEASURED,
    WHERE,
    acquired,
    case_means,
    jobs_behind,
    seed_spread,
)
from segshift.results.tables import estimates, is_shifted

MATRIX = [
    *LINE, *WHERE, *MEASURED, "mean", "low", "high", "n", "patients", "seeds", "seed_low",
    "seed_high", "jobs",
]  # fmt: skip
SHIFTS = [*LINE, *CURVE, "jobs"]
AREAS = [*LINE, *KEYS, *AREA, "n", "patients", "jobs"]


def train_test_matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per line of the study, set, site, metric and structure, `mean` over these included.

    `rows` are those of a `Study`. Of each case first the mean over seeds and folds is taken. Then
    `mean`, its interval `low` to `high` over patients, `n` cases, `patients`; `seeds`, and the
    least and largest mean of one seed, which is what another training may change; `jobs`.
    """
    plain = acquired(rows)
    if plain.empty:
        return pd.DataFrame(columns=MATRIX)
    lines = estimates(case_means(plain), [*LINE, *WHERE])
    lines = lines.merge(seed_spread(plain), on=[*LINE, *WHERE, *MEASURED])
    lines = lines.merge(jobs_behind(plain, [*LINE, *WHERE]), on=[*LINE, *WHERE])
    ordered = lines.sort_values([*LINE, *WHERE, "metric", "is_mean", "structure"])
    counts = dict.fromkeys(("n", "patients", "seeds"), int)
    return ordered[MATRIX].astype(counts).reset_index(drop=True)


def failure_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`failure_profile` by line, set and site, over all seeds and folds; and its `jobs`."""
    keys = [*LINE, *WHERE]
    plain = acquired(rows)
    profile = failure_profile(plain, by=keys)
    return profile.merge(jobs_behind(plain, keys), on=keys)


def shift_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`shift_curves` of every line, of the means of cases over seeds and folds; and its `jobs`.

    These are the jobs that have tested the set at that severity, which of a line need not be all.
    """
    parts = [pd.DataFrame(columns=[*LINE, *CURVE])]
    if rows["set"].map(is_shifted).any():
        for key, own in case_means(rows).groupby(LINE):
            line = dict(zip(LINE, map(str, key), strict=True))
            parts.append(shift_curves(own.assign(run="/".join(line.values()))).assign(**line))
    curves = pd.concat(parts[1:] or parts, ignore_index=True)
    shown = curves["set"].where(
        curves["severity"] == 0,
        curves["set"] + "+" + curves["shift"] + curves["severity"].astype("str"),
    )
    behind = jobs_behind(rows, [*LINE, "set"]).rename(columns={"set": "shown"})
    return curves.assign(shown=shown).merge(behind, on=[*LINE, "shown"])[SHIFTS]


def area_table(curves: pd.DataFrame) -> pd.DataFrame:
    """`shift_areas` of every line of the study; `n`, `patients` and `jobs` are of its start."""
    directions = {metric: higher_is_better(metric) for metric in curves["metric"].unique()}
    areas = shift_areas(curves, directions, by=LINE)
    start = curves[curves["severity"] == 0]
    return areas.merge(start[[*LINE, *KEYS, "n", "patients", "jobs"]], on=[*LINE, *KEYS])[AREAS]
