"""Overlap of two masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from segshift.metrics.empty import value_if_empty
from segshift.metrics.metric import check_masks


@dataclass(frozen=True, slots=True)
class Dice:
    """Dice overlap 2|P and R| / (|P| + |R|) in [0, 1]; independent of the spacing.

    Unlike MONAI's `DiceMetric`, a false positive on an empty reference is 0, not left out.
    """

    name: ClassVar[str] = "dice"
    higher_is_better: ClassVar[bool] = True

    def __call__(
        self, pred: NDArray[np.bool_], ref: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> float:
        """Score masks (D, H, W)."""
        check_masks(pred, ref)
        fixed = value_if_empty(pred, ref, worst=0.0)
        if fixed is not None:
            return fixed
        overlap = np.count_nonzero(pred & ref)
        return float(2 * overlap / (np.count_nonzero(pred) + np.count_nonzero(ref)))
