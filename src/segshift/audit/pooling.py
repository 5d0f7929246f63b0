"""Thumbnails of volumes: means over blocks, for any size and any grid."""

from collections.abc import Sequence

import numpy as np


def pooled(volume: np.ndarray, grid: Sequence[int]) -> np.ndarray:
    """Block means of (D, H, W) on `grid`, float32; an axis shorter than the grid is repeated."""
    result = volume
    for axis, cells in enumerate(grid):
        size = result.shape[axis]
        starts = np.arange(cells) * size // cells
        counts = np.maximum(np.diff(np.append(starts, size)), 1)
        shape = [1] * result.ndim
        shape[axis] = cells
        # reduceat gives the element itself where two starts are equal: the repetition.
        sums = np.add.reduceat(result, starts, axis=axis, dtype=np.float64)
        result = sums / counts.reshape(shape)
    return np.asarray(result, dtype=np.float32)
