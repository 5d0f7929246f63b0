"""The contract of a metric: two masks of one structure and the voxel spacing in, one number out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segshift.errors import InputError


class Metric(Protocol):
    """A pure function of one structure's masks; NaN only where `metrics/empty.py` says so."""

    @property
    def name(self) -> str:
        """Name in rows and summaries, with its unit if it has one: `hd95_mm`."""

    @property
    def higher_is_better(self) -> bool:
        """Which end of the scale is the good one."""

    def __call__(
        self, pred: NDArray[np.bool_], ref: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> float:
        """Score `pred` against `ref`, both (D, H, W); spacing in mm as (z, y, x)."""


def check_masks(pred: NDArray[np.bool_], ref: NDArray[np.bool_]) -> None:
    """Refuse label maps, which would be scored silently wrong, and masks of unequal shape."""
    for name, mask in (("pred", pred), ("ref", ref)):
        if mask.dtype != np.bool_ or mask.ndim != 3:
            raise InputError(
                f"{name} must be a boolean mask (D, H, W), got {mask.dtype} of shape {mask.shape}"
            )
    if pred.shape != ref.shape:
        raise InputError(f"pred has shape {pred.shape} but ref has shape {ref.shape}")
