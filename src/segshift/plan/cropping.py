"""The part of an image that is looked at: the box of its non-zero voxels, by nnU-Net's rule.

A box has the first voxel and the one behind the last of each axis (z, y, x). It knows no label,
because there is none when a new case is predicted: a structure outside the box is missed.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from segshift.cohort import Case
from segshift.cohort.images import read_image
from segshift.errors import InputError

NONZERO, NONE = "nonzero", "none"
Box = tuple[tuple[int, int], ...]


def check_crop(crop: str) -> None:
    """Raises InputError that lists the known ways to crop."""
    if crop not in (NONZERO, NONE):
        raise InputError(f"plan.crop={crop}: known are {NONZERO}, {NONE}")


def crop_box(image: np.ndarray, *, crop: str) -> Box:
    """What an image (C, D, H, W) is cropped to."""
    return nonzero_box((image != 0).any(axis=0)) if crop == NONZERO else whole_box(image.shape[1:])


def read_box(case: Case) -> Box:
    """The box of the voxels that any channel has, from the files.

    Raises InputError naming the case if one cannot be read.
    """
    try:
        inside = (read_image(case.images[0]) != 0).any(axis=0)
        for path in case.images[1:]:
            inside |= (read_image(path) != 0).any(axis=0)
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    return nonzero_box(inside)


def nonzero_box(inside: np.ndarray) -> Box:
    """The smallest box around a mask (D, H, W); the whole of it if nothing is inside."""
    if not inside.any():
        return whole_box(inside.shape)
    box = []
    for axis in range(inside.ndim):
        others = tuple(other for other in range(inside.ndim) if other != axis)
        found = np.flatnonzero(inside.any(axis=others))
        box.append((int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def whole_box(shape: Sequence[int]) -> Box:
    """The box that takes nothing away."""
    return tuple((0, int(edge)) for edge in shape)


def box_shape(box: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Edges in voxels."""
    return tuple(high - low for low, high in box)


def box_slices(box: Sequence[Sequence[int]]) -> tuple[slice, ...]:
    """To cut a box out of an array, or to write into one."""
    return tuple(slice(low, high) for low, high in box)


def body(image: np.ndarray) -> np.ndarray:
    """Mask (D, H, W) of what is not zero in any channel (C, D, H, W), holes in it filled."""
    return np.asarray(ndimage.binary_fill_holes((image != 0).any(axis=0)))
