"""Two samples of patients: could they be one? Permutation tests of statistics of each choice.

The first `first` patients are one sample, the rest the other. Under the null hypothesis any choice
of `first` patients could as well have been the first sample, so p is the share of choices whose
statistic is at least as large: all choices where they are few, otherwise drawn ones and the real.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from segshift import seeds
from segshift.results.significance import ROUNDING

Array = NDArray[np.float64]
Choices = NDArray[np.bool_]

EXACT_UP_TO = 10_000  # ways to choose the first sample
DRAWN = 9_999
AT_ONCE = 2**16  # choices times patients; also four times as fast as all in one


def choices(first: int, second: int, *, seed: int = 0, identity: Sequence[str] = ()) -> Choices:
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


def of_choices(statistic: Callable[[Choices], Array], members: Choices) -> Array:
    """The statistics of all choices, of so many at once that memory grows with no cohort."""
    parts = -(-members.size // AT_ONCE)
    return np.concatenate([statistic(part) for part in np.array_split(members, parts)])


def p_values(statistics: Array) -> Array:
    """P (choices,) of each of `statistics` if it were the real one: large ones are rare.

    The first is the p of what was seen. The smallest is what the same numbers could have had,
    whoever were in which sample.
    """
    assert not np.isnan(statistics).any()  # held against NaN every choice is small
    known = np.isfinite(statistics)
    finite = np.where(known, statistics, 0.0)
    seen = np.where(known, finite - ROUNDING * np.maximum(np.abs(finite), 1), statistics)
    smaller = np.searchsorted(np.sort(statistics), seen, side="left")
    return np.asarray((len(statistics) - smaller) / len(statistics))


def family_p(statistics: Array) -> tuple[Array, float]:
    """P (q,) of several two-sided statistics (choices, q), corrected for being several.

    Held against the smallest p of the family in every choice (Westfall and Young 1993, minP), which
    knows how they hang together. One that few patients have, of whom many choices are wholly apart,
    takes nothing from the others. Also the smallest p that the family could have had.
    """
    each = np.stack([p_values(column) for column in np.abs(statistics).T], axis=1)
    smallest = each.min(axis=1)
    rank = p_values(-smallest)
    return np.asarray([np.mean(smallest <= p + ROUNDING) for p in each[0]]), float(rank.min())
