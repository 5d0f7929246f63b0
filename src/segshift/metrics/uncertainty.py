"""Whether uncertainty points at errors: the AUROC of wrong voxels against right ones.

A tally of uncertainties in fine steps, additive as that of `reliability`. The steps are the upper
half of a float32's bits: each is less than a hundredth wide at any magnitude, so uncertainties need
no known range and the many near 0 are told apart.
"""

import math

import numpy as np
from numpy.typing import NDArray

from segshift.errors import InputError

STEPS = 1 << 15  # the upper 16 bits of numbers that are not negative


class ErrorDetection:
    """A tally of the uncertainty of wrong and of right voxels."""

    def __init__(self) -> None:
        self._wrong = np.zeros(STEPS, dtype=np.int64)
        self._right = np.zeros(STEPS, dtype=np.int64)

    def add(self, uncertainty: NDArray[np.floating], wrong: NDArray[np.bool_]) -> None:
        """Count voxels of any shape, the same for both; uncertainties are 0 or more, finite."""
        if uncertainty.shape != wrong.shape or wrong.dtype != np.bool_:
            raise InputError(
                f"uncertainty {uncertainty.shape} and wrong {wrong.shape} need the same shape, and "
                f"wrong to be boolean, not {wrong.dtype}"
            )
        flat = np.ascontiguousarray(uncertainty, dtype=np.float32).reshape(-1)
        if flat.size and not (flat.min() >= 0 and flat.max() < math.inf):
            raise InputError(
                f"uncertainties are 0 or more and finite, found {flat.min()} to {flat.max()}"
            )
        # Bits of such floats are in the order of their values; abs takes the sign off -0.
        step = np.abs(flat).view(np.uint32) >> 16
        failed = wrong.reshape(-1)
        self._wrong += np.bincount(step[failed], minlength=STEPS)
        self._right += np.bincount(step[~failed], minlength=STEPS)

    @property
    def voxels(self) -> int:
        """How many voxels were added."""
        return int(self._wrong.sum() + self._right.sum())

    @property
    def wrong(self) -> int:
        """How many of them are wrong."""
        return int(self._wrong.sum())

    @property
    def auroc(self) -> float:
        """How often a wrong voxel is more uncertain than a right one, ties half; NaN without one.

        0.5 is chance. Uncertainties of the same step count as equal.
        """
        pairs = float(self._wrong.sum()) * float(self._right.sum())
        if not pairs:
            return math.nan
        below = np.cumsum(self._right) - self._right
        return float((self._wrong * (below + self._right / 2)).sum() / pairs)

    def merged(self, other: "ErrorDetection") -> "ErrorDetection":
        """The tally of what was added to either; neither changes."""
        both = ErrorDetection()
        both._wrong = self._wrong + other._wrong
        both._right = self._right + other._right
        return both
