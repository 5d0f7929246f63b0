"""How often a network halves each axis of a patch, by nnU-Net's published rules.

Isensee et al., Nature Methods 18 (2021), and nnU-Net v2's documentation.
"""

from collections.abc import Sequence

import numpy as np

SMALLEST_EDGE = 4  # voxels; an axis is pooled while its edge stays at least this long
ANISOTROPY = 3.0  # an axis this much coarser than the others keeps its fine detail

Stages = tuple[tuple[int, ...], ...]  # a number per axis for each stage, the first at full size


def topology(
    patch: Sequence[float] | np.ndarray, spacing_mm: Sequence[float] | np.ndarray
) -> tuple[Stages, Stages]:
    """Strides and kernels per stage, the first stage at full resolution.

    An axis is halved while its edge stays long enough and its voxels are less than twice as long
    as the finest axis'; kernels grow from 1 to 3 once an axis is no longer that coarse, and are 3
    in the last stage. Edges (voxels) need not be whole, as those of a median shape.
    """
    size, spacing = np.array(patch), np.array(spacing_mm)
    kernel = np.ones(len(size), dtype=int)
    strides, kernels = [kernel], []
    while (long_enough := size >= 2 * SMALLEST_EDGE).any():
        pooled = long_enough & (spacing / spacing[long_enough].min() < 2)
        if pooled.sum() == 1 and size[pooled][0] < 3 * SMALLEST_EDGE:
            break
        kernel = np.where(spacing / spacing.min() < 2, 3, kernel)
        kernels.append(kernel)
        strides.append(np.where(pooled, 2, 1))
        size = np.where(pooled, -(-size // 2), size)
        spacing = np.where(pooled, spacing * 2, spacing)
    kernels.append(np.full(len(size), 3))
    return _tuples(strides), _tuples(kernels)


def padded(size: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """The next size, in whole voxels, that the topology of `size` can halve."""
    divisor = divisors(size, spacing_mm)
    return np.asarray(-(-size // divisor) * divisor, dtype=int)


def divisors(size: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """What each edge has to be a multiple of."""
    return np.asarray(np.prod(topology(size, spacing_mm)[0], axis=0))


def _tuples(rows: Sequence[np.ndarray]) -> Stages:
    return tuple(tuple(int(n) for n in row) for row in rows)
