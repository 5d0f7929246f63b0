"""95 % intervals of means by a bootstrap over patients.

Means go from cases to patients to structures: a patient counts once, however often they were
scanned, because the sick are scanned more often. A resample draws as many patients as there are,
with replacement. Which ones is a function of the seed and of who they are: every table of the same
patients shows the same interval.

An interval holds the quantiles of the resampled means. Few patients would make it too narrow, by
a factor of sqrt((n - 1) / n) and for using the normal instead of Student's distribution; the
quantiles are moved outwards by as much (Hesterberg, The American Statistician 69, 2015, "expanded
percentile"). Fewer than 6 patients have no interval (NaN): a resample never leaves their range.

A mean over structures is always of the same structures: a resample that draws no patient with one
of them would estimate another quantity, and does not count (NaN). How far its quantiles are moved
is up to the structure that the fewest patients have.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri, stdtrit

from segshift import seeds
from segshift.errors import InputError

MEAN = "mean"  # the line over structures, in the place of a structure
COVERAGE = 0.95
FEWEST_PATIENTS = 6  # with an interval; docs/results.md has what intervals of 4 and 6 cover
RESAMPLES = 10_000
DRAWN_AT_ONCE = 2**20  # patients times resamples; bounds the memory to some 20 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean between its bounds, which are NaN for fewer than six patients; `n` values."""

    mean: float
    low: float
    high: float
    n: int
    patients: int


@dataclass(frozen=True, slots=True)
class PatientMeans:
    """What means are made of: of each patient (P) and column (C) the mean of the patient's cases.

    `values` are 0 where a patient has none; `cases` is their number.
    """

    patients: tuple[str, ...]
    columns: pd.Index
    values: NDArray[np.float64]  # (P, C)
    cases: NDArray[np.int64]  # (P, C)

    @property
    def has(self) -> NDArray[np.float64]:
        """1 where a patient has a value, else 0 (P, C)."""
        return np.asarray(self.cases > 0, dtype=np.float64)

    @property
    def means(self) -> NDArray[np.float64]:
        """Means over patients, by column (C,); NaN where there is none."""
        means = np.full(len(self.columns), np.nan)
        np.divide(self.values.sum(axis=0), self.measured, out=means, where=self.measured > 0)
        return means

    @property
    def measured(self) -> NDArray[np.int64]:
        """Patients with a value, by column (C,)."""
        return np.asarray((self.cases > 0).sum(axis=0))

    def resampled(self, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
        """Means (resamples, C) of resampled patients; NaN where none of those drawn has a value."""
        means = np.full((resamples, len(self.columns)), np.nan)
        random = seeds.generator(seed, "bootstrap", *self.patients)
        has = self.has
        start = 0
        for drawn in _drawn(len(self.patients), resamples, random):
            patients = drawn @ has
            place = means[start : start + len(drawn)]
            np.divide(drawn @ self.values, patients, out=place, where=patients > 0)
            start += len(drawn)
        return means


def by_patient(rows: pd.DataFrame, columns: Sequence[str]) -> PatientMeans:
    """Mean `value` of each `patient`, by the values of `columns`; NaN is in no mean, no number."""
    # Sorted, because the last bit of a mean depends on the order.
    ordered = rows.sort_values([*columns, "patient", "value"])
    grouped = ordered.groupby([*columns, "patient"])["value"].agg(["mean", "count"])
    wide = grouped.unstack("patient")
    return PatientMeans(
        patients=tuple(wide["mean"].columns),
        columns=wide.index,
        values=wide["mean"].fillna(0).to_numpy(np.float64).T,
        cases=wide["count"].fillna(0).to_numpy(np.int64).T,
    )


def widening(patients: ArrayLike) -> NDArray[np.float64]:
    """How much further out `patients` (C,), two or more, have the bounds of their resampled mean.

    Student's quantile over the normal one, and sqrt(n / (n - 1)) for the variance, which is over n.
    """
    n = np.asarray(patients, dtype=np.float64)
    tail = (1 - COVERAGE) / 2
    return np.asarray(np.sqrt(n / (n - 1)) * stdtrit(n - 1, tail) / ndtri(tail))


def bounds(
    means: NDArray[np.float64], patients: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds (C,) of resampled `means` (resamples, C) of `patients` (C,).

    NaN below six patients.
    """
    n = np.atleast_1d(np.asarray(patients, dtype=np.float64))
    ordered = np.sort(means, axis=0)  # NaN comes last
    last = np.isfinite(ordered).sum(axis=0) - 1
    enough = n >= FEWEST_PATIENTS
    tail = ndtr(ndtri((1 - COVERAGE) / 2) * widening(np.where(enough, n, FEWEST_PATIENTS)))
    low, high = (_at(ordered, share * np.maximum(last, 0)) for share in (tail, 1 - tail))
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def bootstrap_means(
    values: ArrayLike, clusters: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean over patients of `values` (n,), with its interval; `clusters` (n,) says whose."""
    table = pd.DataFrame({"patient": list(map(str, clusters)), "value": np.asarray(values)})
    table = table.dropna(subset=["value"]).assign(what="all")
    if table.empty:
        raise InputError("a mean of no values; at least one must be defined")
    own = by_patient(table, ["what"])
    low, high = bounds(own.resampled(resamples=resamples, seed=seed), own.measured)
    n = int(own.cases.sum())
    return Interval(float(own.means[0]), float(low[0]), float(high[0]), n, len(own.patients))


def mean_of_columns(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means (resamples,) of `means` (resamples, C) over the columns that have a value anywhere.

    NaN for a resample that lacks one of these, and if there is none.
    """
    measured = means[:, ~np.isnan(means).all(axis=0)]
    return measured.mean(axis=1) if measured.shape[1] else np.full(len(means), np.nan)


def with_means(
    means: NDArray[np.float64], groups: Iterable[NDArray[np.bool_]]
) -> NDArray[np.float64]:
    """Means (B, C) and behind them a column for the mean over those of each group (C,)."""
    return np.column_stack([means, *(mean_of_columns(means[:, of]) for of in groups)])


def patients_measured(
    cases: NDArray[np.int64], groups: Iterable[NDArray[np.bool_]]
) -> NDArray[np.int64]:
    """Of `cases` (P, C) the patients with one, by column, then the fewest in each group.

    A column without a value is in no mean over its group, and does not count there.
    """
    has = (cases > 0).sum(axis=0)
    return np.array([*has, *(min((n for n in has[of] if n), default=0) for of in groups)])


def _drawn(
    patients: int, resamples: int, random: np.random.Generator
) -> Iterator[NDArray[np.float64]]:
    """Blocks (b, P) of how often each resample draws each patient."""
    block = max(1, DRAWN_AT_ONCE // max(patients, 1))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        who = random.integers(0, patients, (size, patients))
        who += np.arange(size)[:, None] * patients
        times = np.bincount(who.ravel(), minlength=size * patients)
        yield times.reshape(size, patients).astype(np.float64)


def _at(ordered: NDArray[np.float64], position: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values (C,) of `ordered` (n, C) at a fractional `position` (C,), interpolated."""
    below, column = np.floor(position).astype(int), np.arange(ordered.shape[1])
    above = np.minimum(below + 1, np.ceil(position).astype(int))
    low, high = ordered[below, column], ordered[above, column]
    return np.asarray(low + (position - below) * (high - low))
