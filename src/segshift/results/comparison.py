"""Several runs on the cases that all of them have: means, paired differences, ranking.

The unit is the patient, with the means of their cases: intervals and ranks draw the same patients
for all runs; for the test of a difference the patient's share in it changes its sign.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.metrics import Measure
from segshift.results.failures import failed_patients
from segshift.results.intervals import (
    FEWEST_PATIENTS,
    MEAN,
    RESAMPLES,
    PatientMeans,
    bounds,
    by_patient,
    mean_of_columns,
    widening,
)
from segshift.results.pairing import KEY, SHOWN, Paired, of_sets, sets_of
from segshift.results.significance import holm, sign_flip_p

RATERS = "raters"  # the line of people in the table of runs


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two tables, sorted by set, corruption and severity, runs in the order they were given.

    `runs`: set, corruption, severity, metric, run, mean (of the structure means), low, high, n
    (cases), patients, rank, and `rank_<i>`, the share of resamples in which the run has that rank;
    equals share the better one. The run `raters`, if there is one, is no run and has no rank: it
    says how well people agree on these cases.
    `differences`: set, corruption, severity, metric, baseline, run, difference (run minus
    baseline), low, high, p, p_holm (corrected over all lines of the table), n, patients.
    """

    measure: Measure
    runs: pd.DataFrame
    differences: pd.DataFrame


def compare(
    paired: Paired,
    *,
    measure: Measure,
    raters: pd.DataFrame | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Means, ranks and paired differences of all runs in each evaluation set.

    `measure` is that of the paired metric, with a good end. `raters` are rows of other people's
    masks: the sets in which they drew every structure that is compared get a line of them.
    """
    assert measure.name == paired.metric
    assert not measure.signed
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    people = None if raters is None else _of_the_same(raters, paired)
    runs: list[dict[str, object]] = []
    differences: list[dict[str, object]] = []
    values = paired.values.reset_index()
    for key in sets_of(values):
        where = {**dict(zip(SHOWN, key, strict=True)), "metric": measure.name}
        drawn = _Drawn(of_sets(values, [key]), list(map(str, paired.values)), **options)
        runs += [{**where, **line} for line in _run_lines(drawn, measure=measure)]
        differences += [{**where, **line} for line in _difference_lines(drawn, seed=seed)]
        if people is not None:
            own = _rater_lines(of_sets(people, [key]), drawn, **options)
            runs += [{**where, **line} for line in own]
    table = pd.DataFrame(differences)
    table.insert(table.columns.tolist().index("p") + 1, "p_holm", holm(table["p"]))
    return Comparison(measure, pd.DataFrame(runs).astype({"rank": "Int64"}), table)


def with_failures(comparison: Comparison, rows: pd.DataFrame) -> Comparison:
    """Beside each mean of a run the patients that it failed, as `failed_patients` of its `rows`.

    A failure in any structure counts. As it was where Dice was not measured.
    """
    failed = failed_patients(rows, by=[*SHOWN, "run"])
    if failed.empty:
        return comparison
    over = failed[failed["structure"] == MEAN].drop(columns="structure")
    runs = comparison.runs.merge(over, on=[*SHOWN, "run"], how="left")
    whole = dict.fromkeys(("failed_patients", "failed_of"), "Int64")  # raters have none
    return replace(comparison, runs=runs.astype(whole))


def rank_shares(
    resampled: NDArray[np.float64],
    means: NDArray[np.float64],
    *,
    patients: int,
    measure: Measure,
) -> NDArray[np.float64]:
    """Of each run (R) the share of the `resampled` (B, R) with each rank (R,); NaN of too few.

    Resampled means lie too close to the observed `means` (R,), as for intervals: those of all runs
    are moved outwards by one factor, so two equal runs reach a share of 95 % in a tenth of all
    studies. Resamples without one of the structures (NaN) do not count.
    """
    places = np.arange(1, len(means) + 1)
    if patients < FEWEST_PATIENTS:
        return np.full((len(places), len(places)), np.nan)
    counting = resampled[~np.isnan(resampled).any(axis=1)]
    apart = means + widening(patients) * (counting - means)
    ranks = _ranks(apart, measure=measure)
    return np.asarray((ranks[:, :, None] == places).mean(axis=0))


class _Drawn:
    """The runs (R) of one set: their means (R,), also of each resample (B, R)."""

    def __init__(self, values: pd.DataFrame, runs: list[str], *, resamples: int, seed: int) -> None:
        long = values.melt([*KEY, "patient"], runs, var_name="run")
        self.own = by_patient(long, ["run", "structure"])
        run_of = self.own.columns.get_level_values("run")
        self.columns = {str(run): np.asarray(run_of == run) for run in runs}
        drawn = self.own.resampled(resamples=resamples, seed=seed)
        by_run = [mean_of_columns(drawn[:, c]) for c in self.columns.values()]
        self.resampled = np.stack(by_run, axis=1)  # NaN where it lacks a structure
        self.means = np.array([self.own.means[c].mean() for c in self.columns.values()])
        self.fewest = int(self.own.measured.min())  # patients with the rarest structure
        self.structures = set(long["structure"])
        self.counts = {"n": long["case"].nunique(), "patients": len(self.own.patients)}


def _run_lines(drawn: _Drawn, *, measure: Measure) -> Iterator[dict[str, object]]:
    places = np.arange(1, len(drawn.means) + 1)
    (rank,) = _ranks(drawn.means[None], measure=measure)
    shares = rank_shares(drawn.resampled, drawn.means, patients=drawn.fewest, measure=measure)
    low, high = bounds(drawn.resampled, np.full(len(places), drawn.fewest))
    for i, run in enumerate(drawn.columns):
        numbers = {"mean": drawn.means[i], "low": low[i], "high": high[i], **drawn.counts}
        of_rank = {f"rank_{place}": shares[i, place - 1] for place in places}
        yield {"run": run, **numbers, "rank": rank[i], **of_rank}


def _difference_lines(drawn: _Drawn, *, seed: int) -> Iterator[dict[str, object]]:
    for (i, baseline), (j, run) in combinations(enumerate(drawn.columns), 2):
        apart = drawn.resampled[:, j] - drawn.resampled[:, i]
        (low,), (high,) = bounds(apart[:, None], drawn.fewest)
        adds = _adds(drawn.own, drawn.columns[run], drawn.columns[baseline])
        yield {
            "baseline": baseline,
            "run": run,
            "difference": drawn.means[j] - drawn.means[i],
            "low": low,
            "high": high,
            "p": sign_flip_p(adds, identity=drawn.own.patients, seed=seed),
            **drawn.counts,
        }


def _of_the_same(raters: pd.DataFrame, paired: Paired) -> pd.DataFrame:
    """The mean over raters of each value that is compared: `KEY`, patient and value."""
    known = raters[raters["metric"] == paired.metric].dropna(subset=["value"])
    known = known.drop_duplicates([*KEY, "rater"])  # each run has rows of the same people
    of_cases = known.groupby([*KEY, "patient"])["value"].mean().reset_index()
    compared = pd.MultiIndex.from_frame(paired.values.index.to_frame()[KEY])
    return of_cases[pd.MultiIndex.from_frame(of_cases[KEY]).isin(compared)]


def _rater_lines(
    values: pd.DataFrame, drawn: _Drawn, *, resamples: int, seed: int
) -> Iterator[dict[str, object]]:
    """One line, or none: the mean over other structures would be no yardstick."""
    if set(values["structure"]) != drawn.structures:
        return
    own = by_patient(values, ["structure"])
    resampled = mean_of_columns(own.resampled(resamples=resamples, seed=seed))
    (low,), (high,) = bounds(resampled[:, None], own.measured.min())
    yield {
        "run": RATERS,
        "mean": own.means.mean(),
        "low": low,
        "high": high,
        "n": values["case"].nunique(),
        "patients": len(own.patients),
    }


def _adds(
    own: PatientMeans, run: NDArray[np.bool_], baseline: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """What each patient (P,) adds to the difference of the means."""
    apart = own.values[:, run] - own.values[:, baseline]  # the same structures, in the same order
    return np.asarray((apart / own.measured[run]).mean(axis=1))


def _ranks(means: NDArray[np.float64], *, measure: Measure) -> NDArray[np.int64]:
    """1 for the best of each line of `means` (B, R)."""
    bad = measure.badness(means)
    return np.asarray(1 + (bad[:, None, :] < bad[:, :, None]).sum(axis=2))
