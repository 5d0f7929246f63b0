"""Two samples of patients: could they be one? Permutation tests, one line of numbers a patient.

The first `first` lines are one sample, the rest the other. Under the null hypothesis any choice of
`first` patients could as well have been the first sample, so p is the share of choices whose
statistic is at least as large: all choices where they are few, otherwise drawn ones and the real.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from segshift import seeds
from segshift.results.significance import ROUNDING

Array = NDArray[np.float64]

EXACT_UP_TO = 10_000  # ways to choose the first sample
DRAWN = 9_999


def choices(
    first: int, second: int, *, seed: int = 0, identity: Sequence[str] = ()
) -> NDArray[np.bool_]:
    """Who is in the first sample (choices, patients); line 0 is how it really was."""
    everyone = first + second
    if math.comb(everyone, first) <= EXACT_UP_TO:
        chosen = np.array(list(itertools.combinations(range(everyone), first)), dtype=np.int64)
        members = np.zeros((len(chosen), everyone), dtype=bool)
        np.put_along_axis(members, chosen, True, axis=1)  # the real one is the first combination
        return members
    real = np.arange(everyone) < first
    random = seeds.generator(seed, "permutations", *identity)
    order = random.random((DRAWN, everyone)).argsort(axis=1)
    return np.concatenate([real[None], order < first])


def kernel(features: Array) -> Array:
    """Gaussian similarities (n, n) of features (n, f), as wide as the median distance.

    Every feature weighs alike; unknown values (NaN) are the median of the known ones. A feature
    that tells nobody apart weighs nothing.
    """
    known = np.where(np.isnan(features), np.nanmedian(features, axis=0), features)
    spread = known.std(axis=0)
    scaled = (known - known.mean(axis=0))[:, spread > 0] / spread[spread > 0]
    squares = cdist(scaled, scaled, "sqeuclidean")
    apart = squares[np.triu_indices(len(squares), k=1)]
    width = np.median(apart) if len(apart) else 0.0
    similar: Array = np.exp(-squares / width) if width > 0 else np.ones_like(squares)
    return similar


def mmd(similar: Array, members: NDArray[np.bool_]) -> Array:
    """Squared maximum mean discrepancy of each choice (choices,), of similarities (n, n).

    Gretton et al., JMLR 13 (2012), 723-773; the biased estimate, which is no less than 0.
    """
    first = members.sum(axis=1, keepdims=True)
    weights = np.where(members, 1 / first, -1 / (members.shape[1] - first))
    return np.asarray(((weights @ similar) * weights).sum(axis=1))


def rank_differences(values: Array, members: NDArray[np.bool_]) -> Array:
    """Mean rank outside minus inside each choice, (choices, q), in standard deviations of ranks.

    Of values (n, q). Unknown ones (NaN) have no rank; 0 where all known ones are on one side.
    """
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    ranks = np.where(known, rankdata(values, axis=0, nan_policy="omit"), 0.0)
    centred = np.where(known, ranks - ranks.sum(axis=0) / count, 0.0)
    spread = np.sqrt(np.square(centred).sum(axis=0) / count)
    scaled = centred / np.where(spread > 0, spread, 1.0)
    inside, outside = (
        (side.astype(float) @ scaled) / np.maximum(side.astype(float) @ known, 1)
        for side in (members, ~members)
    )
    return np.asarray(outside - inside)


def share_at_least(statistics: Array) -> float:
    """P of the first of `statistics` (choices,), which is the real one: large ones are rare."""
    assert np.isfinite(statistics).all()  # held against NaN every choice is small
    return float(np.mean(statistics >= statistics[0] - ROUNDING))


def smallest_share(statistics: Array) -> float:
    """The smallest p that the same numbers could have had, whoever were in which sample."""
    return float(np.mean(statistics >= statistics.max() - ROUNDING))


def family_p(differences: Array) -> tuple[Array, float]:
    """P (q,) of each of several two-sided differences (choices, q), corrected for being several.

    Held against the largest of the family in every choice (Westfall and Young 1993), which knows
    how they hang together. Also the smallest p that the family could have had.
    """
    largest = np.abs(differences).max(axis=1)
    p = np.mean(largest[:, None] >= np.abs(differences[0]) - ROUNDING, axis=0)
    return p, smallest_share(largest)
