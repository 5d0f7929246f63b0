"""Calibration of one structure's probabilities: does what gets 0.8 turn out true 8 times in 10?

A tally of voxels in bins of equal width, one structure against the rest. It is additive, so that
slabs, cases and sites can be added in any order and no probability needs to be kept.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segshift.errors import InputError

AT_ONCE = 1 << 22  # voxels in double precision at a time; a slab may hold a hundred million
SURE = 1e-7  # log of a certainty that was wrong would be infinite; float32 resolves 1 - 6e-8


class ReliabilityBin(NamedTuple):
    """Voxels with a probability from `low` to below `high` (1 is in the last bin).

    `confidence` is their mean probability and `accuracy` the share in the structure; NaN without
    voxels.
    """

    low: float
    high: float
    voxels: int
    confidence: float
    accuracy: float


class Reliability:
    """A tally of probabilities against the truth; NaN where nothing was added."""

    def __init__(self, bins: int = 15) -> None:
        if bins < 1:
            raise InputError(f"Reliability(bins={bins}): 1 or more")
        self.bins = bins
        self._voxels = np.zeros(bins, dtype=np.int64)
        self._true = np.zeros(bins, dtype=np.int64)
        self._probability = np.zeros(bins)
        self._squares = 0.0
        self._logs = 0.0

    def add(self, probability: NDArray[np.floating], truth: NDArray[np.bool_]) -> None:
        """Count voxels of any shape, the same for both; probabilities in [0, 1]."""
        if probability.shape != truth.shape or truth.dtype != np.bool_:
            raise InputError(
                f"probability {probability.shape} and truth {truth.shape} need the same shape, and "
                f"truth to be boolean, not {truth.dtype}"
            )
        flat, true = probability.reshape(-1), truth.reshape(-1)
        for start in range(0, len(flat), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            self._count(flat[part].astype(np.float64), true[part])

    def _count(self, p: NDArray[np.float64], true: NDArray[np.bool_]) -> None:
        if not (p.min() >= 0 and p.max() <= 1):  # NaN is neither
            raise InputError(f"probabilities lie in 0 to 1, found {p.min()} to {p.max()}")
        place = np.minimum((p * self.bins).astype(np.int64), self.bins - 1)
        self._voxels += np.bincount(place, minlength=self.bins)
        self._true += np.bincount(place[true], minlength=self.bins)
        self._probability += np.bincount(place, weights=p, minlength=self.bins)
        of_truth = np.where(true, p, 1 - p)
        self._squares += float(np.square(1 - of_truth).sum())
        self._logs -= float(np.log(np.maximum(of_truth, SURE)).sum())

    @property
    def voxels(self) -> int:
        """How many voxels were added."""
        return int(self._voxels.sum())

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean of |confidence - accuracy| over voxels, by bin."""
        return self._mean(float(np.abs(self._probability - self._true).sum()))

    @property
    def brier(self) -> float:
        """Mean squared difference of probability and truth (1 or 0)."""
        return self._mean(self._squares)

    @property
    def nll(self) -> float:
        """Mean negative log of the probability given to the truth, which counts 1e-7 at least."""
        return self._mean(self._logs)

    def table(self) -> list[ReliabilityBin]:
        """The bins from low to high."""
        edges = np.linspace(0, 1, self.bins + 1)
        return [
            ReliabilityBin(
                float(edges[i]),
                float(edges[i + 1]),
                int(n),
                float(self._probability[i] / n) if n else math.nan,
                float(self._true[i] / n) if n else math.nan,
            )
            for i, n in enumerate(self._voxels)
        ]

    def merged(self, other: "Reliability") -> "Reliability":
        """The tally of what was added to either; neither changes."""
        if other.bins != self.bins:
            raise InputError(f"tallies of {self.bins} and {other.bins} bins cannot be merged")
        both = Reliability(self.bins)
        both._voxels = self._voxels + other._voxels
        both._true = self._true + other._true
        both._probability = self._probability + other._probability
        both._squares = self._squares + other._squares
        both._logs = self._logs + other._logs
        return both

    def _mean(self, total: float) -> float:
        return total / self.voxels if self.voxels else math.nan
