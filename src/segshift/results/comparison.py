"""Several runs on the cases that all of them have: means, paired differences, ranking.

The unit is the patient: drawn with all cases for intervals and ranks, the same patients for all
runs; for the tests of a difference its sign is flipped or its mean is ranked.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.results.intervals import (
    FEWEST_RESAMPLES,
    RESAMPLES,
    Sums,
    bounds,
    mean_of_columns,
    sums_of,
)
from segshift.results.pairing import Paired
from segshift.results.significance import holm, sign_flip_p, wilcoxon_p

LOWER_IS_BETTER = re.compile(
    r"ece|brier|nll|lesion_false_positives.*|.*_(mm|ml|relative)"  # nsd_2mm is no distance
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two tables, sorted by set, runs in the order they were given.

    `runs`: set, run, mean (of the structure means), low, high, n (cases), patients, rank, and
    `rank_<i>`, the share of resamples in which the run has that rank; equals share the better one.
    `differences`: set, baseline, run, difference (run minus baseline), low, high, sign_flip_p,
    wilcoxon_p, each also with _holm (corrected over all lines of the table), n, patients.
    """

    metric: str
    higher_is_better: bool
    runs: pd.DataFrame
    differences: pd.DataFrame


def higher_is_better(metric: str) -> bool:
    """What the names of our own metrics say; rows do not."""
    return not LOWER_IS_BETTER.fullmatch(metric)


def compare(
    paired: Paired, *, higher_is_better: bool, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison:
    """Means, ranks and paired differences of all runs in each evaluation set."""
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    sets = [_Drawn(str(name), members, **options) for name, members in paired.values.groupby("set")]
    runs = [x for each in sets for x in _run_lines(each, higher_is_better=higher_is_better)]
    differences = pd.DataFrame([x for each in sets for x in _difference_lines(each, seed=seed)])
    for test in ("sign_flip", "wilcoxon"):
        place = differences.columns.tolist().index(f"{test}_p") + 1
        differences.insert(place, f"{test}_holm", holm(differences[f"{test}_p"]))
    return Comparison(paired.metric, higher_is_better, pd.DataFrame(runs), differences)


class _Drawn:
    """The runs (R) of one set: their means (R,), also of each resample (B, R)."""

    def __init__(self, name: str, values: pd.DataFrame, *, resamples: int, seed: int) -> None:
        index = values.index.names
        long = values.reset_index().melt(id_vars=index, var_name="run")
        self.sums = sums_of(long, ["run", "structure"])
        run_of = self.sums.columns.get_level_values("run")
        self.columns = {str(run): np.asarray(run_of == run) for run in values.columns}
        drawn = self.sums.resampled(resamples=resamples, seed=seed)
        by_run = [mean_of_columns(drawn[:, c]) for c in self.columns.values()]
        self.resampled = np.stack(by_run, axis=1)  # NaN where it lacks a structure
        self.means = np.array([self.sums.means[c].mean() for c in self.columns.values()])
        self.name, self.patients = name, len(self.sums.patients)
        self.fewest = int(self.sums.measured.min())  # patients with the rarest structure
        self.counts = {"n": long["case"].nunique(), "patients": self.patients}


def _run_lines(drawn: _Drawn, *, higher_is_better: bool) -> Iterator[dict[str, object]]:
    places = np.arange(1, len(drawn.means) + 1)
    (rank,) = _ranks(drawn.means[None], higher_is_better=higher_is_better)
    shares = np.full((len(places), len(places)), np.nan)  # (R, places)
    counting = drawn.resampled[~np.isnan(drawn.resampled).any(axis=1)]
    if drawn.fewest > 1 and len(counting) >= FEWEST_RESAMPLES:  # of one all are the same
        ranks = _ranks(counting, higher_is_better=higher_is_better)
        shares = (ranks[:, :, None] == places).mean(axis=0)
    low, high = bounds(drawn.resampled, np.full(len(places), drawn.fewest))
    for i, run in enumerate(drawn.columns):
        numbers = {"mean": drawn.means[i], "low": low[i], "high": high[i], **drawn.counts}
        of_rank = {f"rank_{place}": shares[i, place - 1] for place in places}
        yield {"set": drawn.name, "run": run, **numbers, "rank": rank[i], **of_rank}


def _difference_lines(drawn: _Drawn, *, seed: int) -> Iterator[dict[str, object]]:
    for (i, baseline), (j, run) in combinations(enumerate(drawn.columns), 2):
        apart = drawn.resampled[:, j] - drawn.resampled[:, i]
        (low,), (high,) = bounds(apart[:, None], drawn.fewest)
        sums, columns = drawn.sums, drawn.columns
        weighed, own = _by_patient(sums, columns[run], columns[baseline])
        yield {
            "set": drawn.name,
            "baseline": baseline,
            "run": run,
            "difference": drawn.means[j] - drawn.means[i],
            "low": low,
            "high": high,
            "sign_flip_p": sign_flip_p(weighed, identity=sums.patients, seed=seed),
            "wilcoxon_p": wilcoxon_p(own),
            **drawn.counts,
        }


def _by_patient(
    sums: Sums, run: NDArray[np.bool_], baseline: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What each patient adds to the difference of the means, and each patient's own difference."""
    counts = sums.counts[:, run]
    apart = sums.sums[:, run] - sums.sums[:, baseline]  # the same structures, in the same order
    weighed = (apart / counts.sum(axis=0)).mean(axis=1)
    own = np.divide(apart, counts, out=np.full_like(apart, np.nan), where=counts > 0)
    return weighed, np.nanmean(own, axis=1)  # over the structures that the patient has


def _ranks(means: NDArray[np.float64], *, higher_is_better: bool) -> NDArray[np.int64]:
    """1 for the best of each line of `means` (B, R)."""
    good = means if higher_is_better else -means
    return np.asarray(1 + (good[:, None, :] > good[:, :, None]).sum(axis=2))
