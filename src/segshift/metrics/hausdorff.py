"""Distance between two surfaces in mm.

A surface is the set of mask voxels with at least one face neighbour outside the mask; beyond the
image counts as outside. This is the convention of MONAI and medpy (mask minus its erosion by the
face-connected cross) and gives their numbers. An axis of length one has no faces, so a 2D image
stored as (1, H, W) is measured by its outline, as MONAI does for (H, W).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import edt
import numpy as np
from numpy.typing import NDArray

from segshift.errors import InputError
from segshift.metrics.empty import value_if_empty
from segshift.metrics.metric import check_masks


@dataclass(frozen=True, slots=True)
class HausdorffDistance95:
    """Symmetrical 95th percentile of the surface distances, in mm.

    The percentile (linear interpolation) is taken in each direction and the larger one is kept.
    When one mask is empty the value is the diagonal of the image, larger than any real distance.
    """

    name: ClassVar[str] = "hd95_mm"
    higher_is_better: ClassVar[bool] = False

    def __call__(
        self, pred: NDArray[np.bool_], ref: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> float:
        """Score masks (D, H, W) with voxel spacing (z, y, x) in mm."""
        check_masks(pred, ref)
        if len(spacing_mm) != 3 or not all(s > 0 and math.isfinite(s) for s in spacing_mm):
            raise InputError(
                f"spacing_mm must be three positive numbers (z, y, x), got {spacing_mm}"
            )
        fixed = value_if_empty(pred, ref, worst=_diagonal_mm(pred.shape, spacing_mm))
        if fixed is not None:
            return fixed
        # Exact: nothing outside the box belongs to a surface, and beyond its border is outside.
        box = _bounding_box(pred | ref)
        axes = [axis for axis, length in enumerate(pred.shape) if length > 1] or [0]  # one voxel
        pred_surface, ref_surface = (_surface(mask[box], axes=axes) for mask in (pred, ref))
        to_ref = _distance_to(ref_surface, spacing_mm)[pred_surface]
        to_pred = _distance_to(pred_surface, spacing_mm)[ref_surface]
        return float(max(np.percentile(to_ref, 95), np.percentile(to_pred, 95)))


def _diagonal_mm(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    return math.hypot(*(n * s for n, s in zip(shape, spacing_mm, strict=True)))


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Smallest box around a non-empty mask."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        (occupied,) = np.nonzero(mask.any(axis=others))
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)


def _surface(mask: NDArray[np.bool_], *, axes: Sequence[int]) -> NDArray[np.bool_]:
    """Voxels of the mask with a face neighbour along `axes` outside the mask."""
    inside = mask.copy()
    for axis in axes:
        source, eroded = np.moveaxis(mask, axis, 0), np.moveaxis(inside, axis, 0)
        eroded[1:] &= source[:-1]
        eroded[:-1] &= source[1:]
        eroded[[0, -1]] = False
    return mask & ~inside


def _distance_to(surface: NDArray[np.bool_], spacing_mm: Sequence[float]) -> NDArray[np.float32]:
    """Distance in mm from every voxel to the nearest surface voxel, as (D, H, W)."""
    distance: NDArray[np.float32] = edt.edt(
        np.ascontiguousarray(~surface), anisotropy=tuple(spacing_mm)
    )
    return distance
