"""Pixels that can be trusted: a case is loaded whole and checked, or an InputError names it."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from segshift.cohort.case import Case
from segshift.cohort.images import Geometry, read_geometry, read_image, read_label
from segshift.errors import InputError

# Converters round affines differently; a tenth of a voxel at the far corner is no other place.
AFFINE_TOLERANCE_VOXELS = 0.1


@dataclass(frozen=True, slots=True)
class Volume:
    """A checked case: image float32 (C, D, H, W), label uint8 class indices (D, H, W), mm."""

    image: np.ndarray
    label: np.ndarray
    spacing_mm: tuple[float, ...]


def check_headers(case: Case) -> Geometry:
    """Read all headers of a case and compare them; the geometry counts all images' channels.

    Raises InputError naming the case for a missing or unreadable file, and for an image and a
    label whose shape or affine differ.
    """
    try:
        images = [read_geometry(path) for path in case.images]
        label = read_geometry(case.label) if case.label else None
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    first = images[0]
    others = [(case.images[i], g) for i, g in enumerate(images) if i]
    if case.label and label:
        others.append((case.label, label))
    for path, other in others:
        if other.shape != first.shape:
            raise InputError(
                f"case {case.id!r}: {path} has shape {other.shape} (z, y, x), "
                f"but the image {case.images[0]} has {first.shape}"
            )
        if _corners_apart_mm(first, other) > AFFINE_TOLERANCE_VOXELS * min(first.spacing_mm):
            raise InputError(
                f"case {case.id!r}: {path} and the image {case.images[0]} have the same shape but "
                f"lie elsewhere: affine {other.affine[:3]} against {first.affine[:3]}; "
                "export both from the same series, or resample one onto the other"
            )
    channels = sum(geometry.channels for geometry in images)
    return Geometry(channels, first.shape, first.spacing_mm, first.affine)


def _corners_apart_mm(one: Geometry, other: Geometry) -> float:
    """The largest distance between the two images' corresponding corner voxels."""
    corners = np.array([*product(*((0, n - 1) for n in reversed(one.shape)))])
    voxels = np.column_stack([corners, np.ones(len(corners))])
    apart = voxels @ (np.array(one.affine) - np.array(other.affine)).T
    return float(np.linalg.norm(apart, axis=1).max())


def load_label(case: Case) -> np.ndarray:
    """Class indices uint8 (D, H, W): 0 background, i + 1 for structure i.

    Raises InputError for a case without label and for a value that no structure has.
    """
    if case.label is None:
        raise InputError(f"case {case.id!r} has no label, so it cannot be trained on or scored")
    try:
        values = read_label(case.label)
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    known = np.array([0, *case.label_values])
    found, inverse = np.unique(values, return_inverse=True)
    unknown = sorted(set(found.tolist()) - set(known.tolist()))
    if unknown:
        raise InputError(
            f"case {case.id!r}: the label {case.label} holds the value(s) {unknown[:10]}, which no "
            f"structure has; known are {sorted(known.tolist())}, 0 being background"
        )
    index = {int(value): i for i, value in reversed(list(enumerate(known)))}
    table = np.array([index[int(value)] for value in found], dtype=np.uint8)
    return table[inverse].reshape(values.shape)


def load_case(case: Case) -> Volume:
    """Load and check a case's pixels. Raises InputError naming the case, as the parts do."""
    geometry = check_headers(case)
    try:
        image = np.concatenate([read_image(path) for path in case.images])
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    bad = int(np.count_nonzero(~np.isfinite(image)))
    if bad:
        raise InputError(
            f"case {case.id!r}: {bad} voxels of {case.images[0]} are NaN or infinite; "
            "mend the file or take the case out of the manifest"
        )
    return Volume(image, load_label(case), geometry.spacing_mm)
