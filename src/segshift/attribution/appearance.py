"""How an image was acquired, in a few numbers that what it shows should hardly move.

All are functions of the image and of what a network predicts in it, never of the reference: an
annotation habit cannot move them. Most are measured outside of the structures, so that more or
larger structures do not move them either.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
FAR_VOXELS = 2  # the surroundings start this far from every structure
LEAST_VOXELS = 50  # fewer tell nothing
AXES = "zyx"


def appearance(image: np.ndarray, masks: Mapping[str, Mask]) -> dict[str, float]:
    """Numbers of an image (C, D, H, W) with the predicted masks (D, H, W) of its structures.

    Per channel: noise (of neighbours' second differences), sharpness along each axis (how much
    more voxels differ two apart than one apart), spread of the grey levels of the surroundings,
    and the level of each structure among them. NaN where there are too few voxels.
    """
    anything = np.zeros(image.shape[1:], dtype=bool)
    for mask in masks.values():
        anything |= mask
    around = ~ndimage.binary_dilation(anything, iterations=FAR_VOXELS)
    inner = {name: ndimage.binary_erosion(mask) for name, mask in masks.items()}
    numbers: dict[str, float] = {}
    for channel, grey in enumerate(image):
        for name, value in _of_channel(grey, around, inner):
            numbers[f"{channel}/{name}"] = value
    return numbers


def _of_channel(
    grey: np.ndarray, around: Mask, inner: Mapping[str, Mask]
) -> Iterator[tuple[str, float]]:
    values = grey[around]
    if len(values) < LEAST_VOXELS:
        values = grey.ravel()
    low, quarter, middle, upper, high = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
    span = max(float(high - low), 1e-6)
    yield "lower_quarter", float((middle - quarter) / span)
    yield "upper_quarter", float((upper - middle) / span)
    yield "low", float(low)
    yield "high", float(high)
    for axis, letter in enumerate(AXES):
        if grey.shape[axis] < 3:
            continue
        one, two, second = _differences(grey, around, axis)
        yield f"sharpness_{letter}", float(np.log(max(two, 1e-12) / max(one, 1e-12)))
        yield f"noise_{letter}", float(np.log(max(second / span, 1e-6)))
    for name, mask in inner.items():
        inside = grey[mask]
        enough = len(inside) >= LEAST_VOXELS
        yield f"level_{name}", float((np.median(inside) - middle) / span) if enough else np.nan


def _differences(grey: np.ndarray, around: Mask, axis: int) -> tuple[float, float, float]:
    """Mean squares of differences one and two apart, and the median second difference."""
    moved, inside = np.moveaxis(grey, axis, 0), np.moveaxis(around, axis, 0)
    three = inside[2:] & inside[1:-1] & inside[:-2]
    if np.count_nonzero(three) < LEAST_VOXELS:
        three = np.ones_like(three)
    back, here, ahead = moved[:-2][three], moved[1:-1][three], moved[2:][three]
    one, two = np.square(here - back).mean(), np.square(ahead - back).mean()
    second = 1.4826 / np.sqrt(6) * np.median(np.abs(back - 2 * here + ahead))
    return float(one), float(two), float(second)
