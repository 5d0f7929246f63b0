"""From one voxel grid to another: images interpolated, labels structure by structure.

All keep the field of view: voxel centres are spread evenly over the same extent. Edge voxels are
repeated outside.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from segshift.errors import InputError

INTERPOLATIONS = ("linear", "spline")
ANISOTROPY = 3.0  # nnU-Net's: an axis this much coarser than the finest is not interpolated along
SPLINE_ORDER = 3


def resampled_image(
    image: np.ndarray,
    shape: Sequence[int],
    *,
    interpolation: str,
    spacing_mm: Sequence[float],
    target_mm: Sequence[float],
) -> np.ndarray:
    """(C, D, H, W) float32 on a grid (D, H, W) of `shape`, from `spacing_mm` to `target_mm`.

    Raises InputError for an interpolation that is not known.
    """
    if interpolation not in INTERPOLATIONS:
        raise InputError(f"interpolation {interpolation!r}: known are {', '.join(INTERPOLATIONS)}")
    if interpolation == "spline":
        return splined(image, shape, coarse_axis=_coarse_axis(spacing_mm, target_mm))
    return resampled(image, shape)


def resampled(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Linear resampling of (C, D, H, W) to a new (D, H, W); float32 in and out."""
    if image.shape[1:] == tuple(shape):
        return image
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    scaled: np.ndarray = functional.interpolate(tensor, tuple(shape), mode="trilinear")[0].numpy()
    return scaled


def splined(image: np.ndarray, shape: Sequence[int], *, coarse_axis: int | None) -> np.ndarray:
    """Cubic splines for (C, D, H, W), but the nearest slice along the coarse axis, as nnU-Net does.

    Across thick slices a spline overshoots: it would show what is in neither of two slices.
    """
    if image.shape[1:] == tuple(shape):
        return image
    if coarse_axis is None:
        return np.stack([_zoomed(channel, shape) for channel in image])
    place = coarse_axis + 1
    old, new = image.shape[place], shape[coarse_axis]
    nearest = ((np.arange(new) + 0.5) * old / new).astype(int)
    in_plane = [edge for axis, edge in enumerate(shape) if axis != coarse_axis]
    slices = np.moveaxis(image, place, 0)
    finer = np.stack([[_zoomed(plane, in_plane) for plane in channels] for channels in slices])
    return np.ascontiguousarray(np.moveaxis(finer[nearest], 0, place))


def resampled_label(label: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample each structure's mask linearly and let the strongest win; ids never mix."""
    if label.shape == tuple(shape):
        return label
    best = np.full(shape, -1.0, dtype=np.float32)
    winner = np.zeros(shape, dtype=np.uint8)
    for structure in np.unique(label):
        share = resampled((label == structure)[None].astype(np.float32), shape)[0]
        winner[share > best] = structure
        best = np.maximum(best, share)
    return winner


def _zoomed(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    factors = [new / old for old, new in zip(array.shape, shape, strict=True)]
    zoomed = ndimage.zoom(array, factors, order=SPLINE_ORDER, mode="nearest", grid_mode=True)
    return np.asarray(zoomed, dtype=np.float32)


def _coarse_axis(spacing_mm: Sequence[float], target_mm: Sequence[float]) -> int | None:
    """The one axis far coarser than the others on the old grid, or else on the new one."""
    for spacing in (spacing_mm, target_mm):
        if max(spacing) > ANISOTROPY * min(spacing):
            coarse = [axis for axis, edge in enumerate(spacing) if edge == max(spacing)]
            return coarse[0] if len(coarse) == 1 else None
    return None
