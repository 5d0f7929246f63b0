"""How large: spacing, patch, batch and topology, from the shapes and spacings of training cases.

The rules are nnU-Net's (Isensee et al., Nature Methods 18, 2021), held against the answers of its
planner. It differs in that the patch is bounded by a number of voxels unless `memory_gb` says how
much memory there is, and in that slices of a 2D view are always cut along z.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segshift.errors import InputError
from segshift.plan.memory import batch_for, fitting_memory
from segshift.plan.pooling import ANISOTROPY, SMALLEST_EDGE, Stages, padded, topology


@dataclass(frozen=True, slots=True)
class Sizes:
    """The part of a plan that shapes and spacings decide; axes (z, y, x), in 2D (y, x)."""

    patch: tuple[int, ...]
    batch: int
    strides: Stages
    kernels: Stages


def derived_sizes(
    shapes: Sequence[Sequence[int]],
    spacing_mm: Sequence[float],
    *,
    dimensions: int,
    outputs: int,
    patch_voxels: int,
    memory_gb: float | None = None,
    patch: Sequence[int] | None = None,
) -> Sizes:
    """Of a view of 2 or 3 `dimensions` of cases that have these shapes at the plan's spacing.

    `outputs` counts the background. Patch and batch follow `memory_gb`, without it `patch_voxels`.
    Raises InputError for fewer slices than a 3D network takes, a `patch` that the pooling cannot
    halve, and memory in which no patch fits.
    """
    median = np.median(shapes, axis=0)
    if dimensions == 3 and median[0] < SMALLEST_EDGE:
        raise InputError(
            f"the training cases have a median of {median[0]:g} slices, too few for a 3D network; "
            "take model=unet2d or model=unet25d"
        )
    seen, spacing = median[3 - dimensions :], np.array(spacing_mm[3 - dimensions :])
    if patch:
        size = _checked_patch(np.array(patch), spacing)
    elif memory_gb:
        size = fitting_memory(seen, spacing, memory_gb=memory_gb, outputs=outputs)
    else:
        size = fitting_voxels(np.ceil(seen), spacing, patch_voxels)
    edges = padded(size, spacing)
    if memory_gb:
        voxels = float(median.prod() * len(shapes))
        batch = batch_for(size, spacing, memory_gb=memory_gb, outputs=outputs, voxels=voxels)
    else:
        batch = max(2, patch_voxels // int(edges.prod()))
    return Sizes(tuple(edges.tolist()), batch, *topology(size, spacing))


def target_spacing_mm(spacings_mm: np.ndarray, shapes: np.ndarray) -> tuple[float, ...]:
    """The median; a far coarser axis takes its 10th percentile, so that fine cases keep detail."""
    target, shape = np.median(spacings_mm, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = target[worst] > ANISOTROPY * target[others].max()
    if coarse and shape[worst] * ANISOTROPY < shape[others].min():
        finer = np.percentile(spacings_mm[:, worst], 10)
        target[worst] = max(finer, target[others].max())
    return tuple(float(f"{s:.7g}") for s in target)  # digits, not decimals: voxels may be tiny


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """The shape in voxels after resampling from `spacing_mm` to `target_mm`."""
    return tuple(
        max(round(n * old / new), 1)
        for n, old, new in zip(shape, spacing_mm, target_mm, strict=True)
    )


def fitting_voxels(size: np.ndarray, spacing_mm: np.ndarray, voxels: int) -> np.ndarray:
    """Take from the longest edge until the patch, padded for pooling, has at most `voxels`."""
    size = size.astype(int)
    # Padding only adds, so the unpadded patch has to fit first: the longest edges give way.
    edge = int(size.max())
    while np.minimum(size, edge).prod() > voxels and edge > SMALLEST_EDGE:
        edge -= max(edge // 50, 1)
    size = np.minimum(size, edge + max(edge // 50, 1))
    while padded(size, spacing_mm).prod() > voxels and size.max() > SMALLEST_EDGE:
        size[np.argmax(size)] -= max(size.max() // 100, 1)
    return size


def _checked_patch(size: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    if len(size) != len(spacing_mm) or min(size) < 1:
        raise InputError(
            f"plan.patch={size.tolist()}: the view needs {len(spacing_mm)} positive edges"
        )
    fitting = padded(size, spacing_mm)
    if not np.array_equal(fitting, size):
        raise InputError(
            f"plan.patch={size.tolist()} cannot be halved as often as the network pools; the next "
            f"fitting patch is {fitting.tolist()}"
        )
    return size
