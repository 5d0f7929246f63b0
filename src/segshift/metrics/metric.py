"""The contract of a metric: two masks of one structure and the voxel spacing in, one number out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segshift.metrics.pair import MaskPair


class Metric(Protocol):
    """A pure function of one structure's masks; NaN only where `metrics/empty.py` says so.

    A metric implements `of`; who has several metrics to compute makes one pair for all of them.
    """

    @property
    def name(self) -> str:
        """Name in rows and summaries, with its unit if it has one: `hd95_mm`."""

    @property
    def higher_is_better(self) -> bool:
        """Which end of the scale is the good one."""

    def of(self, pair: MaskPair) -> float:
        """The value of a pair of masks."""

    def __call__(
        self, pred: NDArray[np.bool_], ref: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> float:
        """Score `pred` against `ref`, both (D, H, W); spacing in mm as (z, y, x)."""
        return self.of(MaskPair(pred, ref, spacing_mm))
