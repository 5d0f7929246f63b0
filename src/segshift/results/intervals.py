"""95 % intervals of means by a bootstrap over patients.

A resample draws as many patients as there are, with replacement, and takes all cases of each; so
several cases of one patient do not pass for independent ones. Which patients a resample draws is a
function of the seed and of who they are: every table of the same patients shows the same interval.

An interval holds the quantiles of the resampled means. Few patients would make it too narrow, by
a factor of sqrt((n - 1) / n) and for using the normal instead of Student's distribution; the
quantiles are moved outwards by as much (Hesterberg, The American Statistician 69, 2015, "expanded
percentile"). One patient says nothing about the next one: no interval (NaN).

A mean over structures is always of the same structures: a resample that draws no patient with one
of them would estimate another quantity, and does not count (NaN). How far its quantiles are moved
is up to the structure that the fewest patients have.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit

from segshift import seeds
from segshift.errors import InputError

COVERAGE = 0.95
RESAMPLES = 10_000
FEWEST_RESAMPLES = 100  # that count: the quantiles of fewer are chance
DRAWN_AT_ONCE = 2**20  # patients times resamples; bounds the memory to some 20 MB


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean between its bounds, which are NaN for fewer than two patients; `n` values."""

    mean: float
    low: float
    high: float
    n: int
    patients: int


@dataclass(frozen=True, slots=True)
class Sums:
    """What means are made of: per patient (P) and column (C) the sum of values and their number."""

    patients: tuple[str, ...]
    columns: pd.Index
    sums: NDArray[np.float64]  # (P, C)
    counts: NDArray[np.float64]  # (P, C)

    @property
    def means(self) -> NDArray[np.float64]:
        """Means over all values, by column (C,); NaN where there is none."""
        sums, counts = self.sums.sum(axis=0), self.counts.sum(axis=0)
        means = np.full(len(sums), np.nan)
        np.divide(sums, counts, out=means, where=counts > 0)
        return means

    @property
    def measured(self) -> NDArray[np.int64]:
        """Patients with a value, by column (C,)."""
        return np.asarray((self.counts > 0).sum(axis=0))

    def resampled(self, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
        """Means (resamples, C) of resampled patients; NaN where none of those drawn has a value."""
        means = np.full((resamples, len(self.columns)), np.nan)
        random = seeds.generator(seed, "bootstrap", *self.patients)
        start = 0
        for drawn in _drawn(len(self.patients), resamples, random):
            counts = drawn @ self.counts
            place = means[start : start + len(drawn)]
            np.divide(drawn @ self.sums, counts, out=place, where=counts > 0)
            start += len(drawn)
        return means


def sums_of(rows: pd.DataFrame, columns: Sequence[str]) -> Sums:
    """Sum `value` by `patient` and by the values of `columns`; NaN is in no sum and no count."""
    # Sorted, because the last bit of a sum depends on the order.
    ordered = rows.sort_values([*columns, "patient", "value"])
    grouped = ordered.groupby([*columns, "patient"])["value"].agg(["sum", "count"])
    wide = grouped.unstack("patient", fill_value=0)
    return Sums(
        patients=tuple(wide["sum"].columns),
        columns=wide.index,
        sums=wide["sum"].to_numpy(np.float64).T,
        counts=wide["count"].to_numpy(np.float64).T,
    )


def bounds(
    means: NDArray[np.float64], patients: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bounds (C,) of resampled `means` (resamples, C) of `patients` (C,).

    NaN below two patients, and where fewer than 100 resamples count, as of many rare structures.
    """
    n = np.atleast_1d(np.asarray(patients, dtype=np.float64))
    ordered = np.sort(means, axis=0)  # NaN comes last
    last = np.isfinite(ordered).sum(axis=0) - 1
    enough = (n > 1) & (last + 1 >= FEWEST_RESAMPLES)
    of = np.where(enough, n, 2)
    tail = ndtr(np.sqrt(of / (of - 1)) * stdtrit(of - 1, (1 - COVERAGE) / 2))
    low, high = (_at(ordered, share * np.maximum(last, 0)) for share in (tail, 1 - tail))
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def bootstrap_means(
    values: ArrayLike, clusters: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of `values` (n,) with its interval; `clusters` (n,) names the patient of each."""
    table = pd.DataFrame({"patient": list(map(str, clusters)), "value": np.asarray(values)})
    table = table.dropna(subset=["value"]).assign(what="all")
    if table.empty:
        raise InputError("a mean of no values; at least one must be defined")
    sums = sums_of(table, ["what"])
    low, high = bounds(sums.resampled(resamples=resamples, seed=seed), sums.measured)
    n = int(sums.counts.sum())
    return Interval(float(sums.means[0]), float(low[0]), float(high[0]), n, len(sums.patients))


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
    counts: NDArray[np.float64], groups: Iterable[NDArray[np.bool_]]
) -> NDArray[np.int64]:
    """Of `counts` (P, C) the patients with a value, by column, then the fewest in each group.

    A column without a value is in no mean over its group, and does not count there.
    """
    has = (counts > 0).sum(axis=0)
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
