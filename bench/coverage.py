"""How often a 95 % interval covers the truth: simulated studies whose truth is known.

`OMP_NUM_THREADS=1 python bench/coverage.py [--studies 10000] [--resamples 10000]` draws studies of
few and many patients: Dice around .85 of which 15 % of the patients are lost altogether (0), and
Gaussians. Printed is the share of studies whose interval of the mean covers it, and whose exact
bounds of the share of failed patients do. Intervals of fewer than six patients, which nothing else
prints, are as if there were no such rule. Then, of two runs that are equally good in 12 patients,
in how many studies one of them is first in 95 % of the resamples; and the mean of the worst of 30
equal sites of two patients, as measured and shrunken.
"""

import argparse
from collections.abc import Callable

import numpy as np
import pandas as pd

from segshift.metrics import Dice, measure_of
from segshift.results import intervals
from segshift.results.comparison import rank_shares
from segshift.results.failures import FAILURE, Failed
from segshift.results.shrinkage import shrunken_means

PATIENTS = (4, 6, 12, 25, 60)
LOST, FOUND = 0.15, 17 / 20  # share of patients; mean Dice of the others
SITES = 15 / 18  # mean Dice
# What two runs are better and worse by in 12 patients.
EQUAL: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "Gaussian": lambda random: random.normal(0, 0.05, (12, 2)),
    "skewed, alike in both": lambda random: -random.exponential(0.05, (12, 2)),
    "skewed in one of them": lambda random: np.outer(random.exponential(0.05, 12) - 0.05, [0, 1]),
}
AT_ONCE = 1000  # studies; bounds the memory


def main(*, studies: int, resamples: int) -> None:
    """Print the table."""
    intervals.FEWEST_PATIENTS = 2  # to see why it is 6
    print("| patients | Gaussian | Dice, 15 % lost | share of failed patients |\n|---|---|---|---|")
    for patients in PATIENTS:
        random = np.random.default_rng(patients)
        blocks = range(-(-studies // AT_ONCE))
        shares = np.mean([covered(random, patients, resamples, seed) for seed in blocks], axis=0)
        print(f"| {patients} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
    print("\n| two equal runs of 12 patients | one is first in 95 % |\n|---|---|")
    for name, differ in EQUAL.items():
        print(f"| {name} | {100 * sure_ranks(differ, studies):.1f} % |")
    raw, shrunken = worst_of_equal_sites(studies)
    print(f"\nthe worst of 30 equal sites, truth {SITES:.3f}: {raw:.3f}, shrunken {shrunken:.3f}")


def covered(
    random: np.random.Generator, patients: int, resamples: int, seed: int
) -> tuple[float, float, float]:
    """The shares of `AT_ONCE` studies of each column of the table."""
    size = patients, AT_ONCE
    dice = np.where(random.random(size) < LOST, 0.0, random.beta(17, 3, size))
    failed = [Failed(int(k), patients) for k in (dice < FAILURE).sum(axis=0)]
    return (
        covers(random.normal(0.7, 0.1, size), 0.7, resamples, seed),
        covers(dice, (1 - LOST) * FOUND, resamples, seed),
        float(np.mean([each.low <= LOST <= each.high for each in failed])),
    )


def sure_ranks(differ: Callable[[np.random.Generator], np.ndarray], studies: int) -> float:
    """The share of studies in which one of two runs is first in 95 % of 1000 resamples or more."""
    random, found = np.random.default_rng(0), 0
    names, cases = tuple(map(str, range(12))), np.ones((12, 2), dtype=int)
    for seed in range(studies):
        values = random.beta(17, 3, (12, 1)) + differ(random)
        own = intervals.PatientMeans(names, pd.RangeIndex(2), values, cases)
        resampled = own.resampled(resamples=1000, seed=seed)
        shares = rank_shares(resampled, own.means, patients=12, measure=measure_of(Dice()))
        found += bool(shares[:, 0].max() >= 0.95)
    return found / studies


def worst_of_equal_sites(studies: int) -> tuple[float, float]:
    """Its mean as measured, and the worst of the shrunken means; means over studies."""
    random, found = np.random.default_rng(0), []
    for _ in range(studies):
        sites = list(random.beta(15, 3, (30, 2)))
        found.append((min(each.mean() for each in sites), shrunken_means(sites).min()))
    raw, shrunken = np.mean(found, axis=0)
    return float(raw), float(shrunken)


def covers(values: np.ndarray, truth: float, resamples: int, seed: int) -> float:
    """The share of the studies, columns of `values` (patients, studies), that cover the truth."""
    patients, studies = values.shape
    names, cases = tuple(map(str, range(patients))), np.ones(values.shape, dtype=int)
    own = intervals.PatientMeans(names, pd.RangeIndex(studies), values, cases)
    low, high = intervals.bounds(own.resampled(resamples=resamples, seed=seed), own.measured)
    return float(((low <= truth) & (truth <= high)).mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=10_000)
    main(**vars(parser.parse_args()))
