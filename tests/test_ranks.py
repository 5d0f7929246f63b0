"""How often a run comes first says what it can, not more."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from row_inputs import DICE, HD95

from segshift.results import Paired, compare
from segshift.results.comparison import rank_shares
from segshift.results.intervals import PatientMeans

NAMES = ["set", "corruption", "severity", "case", "structure", "patient", "site"]
PATIENTS = 12


def paired(values: np.ndarray, *, metric: str = "dice") -> Paired:
    """Values (patients, runs), a case each."""
    keys = [("s", "", 0, f"c{n}", "liver", f"p{n}", "A") for n in range(len(values))]
    index = pd.MultiIndex.from_tuples(keys, names=NAMES)
    columns = pd.Index([f"run{n}" for n in range(values.shape[1])], name="run")
    return Paired(metric, pd.DataFrame(values, index=index, columns=columns), ())


def normal(random: np.random.Generator) -> np.ndarray:
    return random.normal(0.8, 0.1, (PATIENTS, 1)) + random.normal(0, 0.05, (PATIENTS, 2))


def skewed(random: np.random.Generator) -> np.ndarray:
    """Dice: most patients are good in both runs, each run is much worse in a few of its own."""
    return random.beta(17, 3, (PATIENTS, 1)) - random.exponential(0.05, (PATIENTS, 2))


def drawn_shares(values: np.ndarray, *, seed: int) -> np.ndarray:
    """The same without tables, which many studies have no time for."""
    patients, runs = values.shape
    names, cases = tuple(map(str, range(patients))), np.ones(values.shape, dtype=int)
    own = PatientMeans(names, pd.RangeIndex(runs), values, cases)
    resampled = own.resampled(resamples=1000, seed=seed)
    return rank_shares(resampled, own.means, patients=patients, measure=DICE)[:, 0]


@pytest.mark.parametrize("draw", [normal, skewed])
def test_two_equal_runs_are_first_in_95_percent_in_a_tenth_of_all_studies(
    draw: Callable[[np.random.Generator], np.ndarray],
) -> None:
    """5 % for each run. Without moving the resampled means outwards it was 15 %."""
    random, studies = np.random.default_rng(0), 3000
    found = np.array([drawn_shares(draw(random), seed=n) for n in range(studies)])
    sure = (found >= 0.95).mean(axis=0)
    # Three standard errors of so many studies; by the formula Gaussians are at 4.6 % each.
    assert sure == pytest.approx([0.05, 0.05], abs=3 * np.sqrt(0.05 * 0.95 / studies))
    assert sure.sum() == pytest.approx(0.1, abs=3 * np.sqrt(0.1 * 0.9 / studies))


def test_tables_have_the_shares_of_the_resampled_means() -> None:
    values = normal(np.random.default_rng(4))
    whole = compare(paired(values), measure=DICE, resamples=1000, seed=7)
    names = tuple(f"p{n}" for n in range(PATIENTS))
    order = sorted(range(PATIENTS), key=names.__getitem__)
    own = PatientMeans(
        tuple(names[n] for n in order), pd.RangeIndex(2), values[order], np.ones((PATIENTS, 2), int)
    )
    resampled = own.resampled(resamples=1000, seed=7)
    expected = rank_shares(resampled, own.means, patients=PATIENTS, measure=DICE)
    np.testing.assert_array_equal(whole.runs[["rank_1", "rank_2"]], expected)


def test_a_share_of_97_5_percent_is_where_the_interval_touches_0() -> None:
    """The same factor moves both; of normal means the two agree to the share of a few resamples."""
    random = np.random.default_rng(1)
    level, noise = random.normal(0.8, 0.1, (30, 1)), random.normal(0, 0.05, (30, 2))
    values = level + noise - noise.mean(axis=0)
    compared = compare(paired(values), measure=DICE).differences.iloc[0]
    better = values - np.array([0, compared["low"]])  # so far that the lower bound is 0
    (_, share) = compare(paired(better), measure=DICE).runs["rank_1"]
    assert share == pytest.approx(0.975, abs=0.01)


def test_all_runs_are_moved_together() -> None:
    """What is the same in every patient stays sure, however much patients differ."""
    level = np.random.default_rng(2).normal(0.8, 0.1, (PATIENTS, 1))
    values = level + np.array([0, 0.01, 0.02])
    for measure, first in ((DICE, [0, 0, 1]), (HD95, [1, 0, 0])):
        compared = compare(paired(values, metric=measure.name), measure=measure)
        assert compared.runs["rank_1"].tolist() == first


def test_equals_share_the_better_rank() -> None:
    level = np.random.default_rng(3).normal(0.8, 0.1, (PATIENTS, 1))
    compared = compare(paired(level + np.array([0, 0, -0.1])), measure=DICE).runs
    assert compared["rank"].tolist() == [1, 1, 3]
    assert compared["rank_1"].tolist() == [1, 1, 0]
