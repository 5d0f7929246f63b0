"""Trained here, tested there: means of every training at every site, with their intervals.

`in_domain` on the diagonal is what the site's own network reaches on patients that it has not seen,
the site's oracle; `site-<name>` is what a network from elsewhere reaches there.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from segshift.results.curves import AREA, CURVE, KEYS, shift_areas, shift_curves
from segshift.results.failures import failed_patients, failure_profile
from segshift.results.measures import Measures
from segshift.results.rows import acquired
from segshift.results.study import (
    CORRUPTED,
    LINE,
    MEASURED,
    WHERE,
    case_means,
    jobs_behind,
    seed_spread,
)
from segshift.results.tables import estimates

FAILED = ["failed_patients", "failed_of", "failed_low", "failed_high"]
MATRIX = [
    *LINE, *WHERE, *MEASURED, "mean", "low", "high", "n", "patients", *FAILED, "seeds", "seed_low",
    "seed_high", "jobs",
]  # fmt: skip
SHIFTS = [*LINE, *CURVE, "jobs"]
AREAS = [*LINE, *KEYS, "calibrated", *AREA, "n", "patients", "jobs"]


def train_test_matrix(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per line of the study, set, site, metric and structure, `mean` over these included.

    `rows` are those of a `Study`. Of each case first the mean over seeds and folds is taken. Then
    `mean`, its interval `low` to `high` over patients, `n` cases, `patients`; `seeds`, and the
    least and largest mean of one seed, which is what another training may change; `jobs`. Beside
    Dice are the columns of `failed_patients`, of the means over seeds and folds.
    """
    plain = acquired(rows)
    if plain.empty:
        return pd.DataFrame(columns=MATRIX)
    means = case_means(plain)
    lines = estimates(means, [*LINE, *WHERE])
    failed = failed_patients(means, by=[*LINE, *WHERE])
    lines = lines.merge(failed, on=[*LINE, *WHERE, "structure"], how="left")
    lines.loc[lines["metric"] != "dice", FAILED] = np.nan
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


def shift_table(rows: pd.DataFrame, *, calibrated: Mapping[str, bool]) -> pd.DataFrame:
    """`shift_curves` of every line, of the means of cases over seeds and folds; and its `jobs`.

    These are the jobs that have tested the set at that severity, which of a line need not be all.
    """
    parts = [pd.DataFrame(columns=[*LINE, *CURVE])]
    if (rows["corruption"] != "").any():
        for key, own in case_means(rows).groupby(LINE):
            line = dict(zip(LINE, map(str, key), strict=True))
            one_run = own.assign(run="/".join(line.values()))
            parts.append(shift_curves(one_run, calibrated=calibrated).assign(**line))
    curves = pd.concat(parts[1:] or parts, ignore_index=True)
    keys = [*LINE, "set", *CORRUPTED]
    behind = jobs_behind(rows, keys).rename(columns={"corruption": "shown"})
    shown = curves["corruption"].where(curves["severity"] > 0, "")
    on = [*LINE, "set", "shown", "severity"]
    return curves.assign(shown=shown).merge(behind, on=on)[SHIFTS]


def area_table(curves: pd.DataFrame, measures: Measures) -> pd.DataFrame:
    """`shift_areas` of every line of the study; `n`, `patients` and `jobs` are of its start."""
    areas = shift_areas(curves, measures, by=LINE)
    start = curves[curves["severity"] == 0]
    return areas.merge(start[[*LINE, *KEYS, "n", "patients", "jobs"]], on=[*LINE, *KEYS])[AREAS]
