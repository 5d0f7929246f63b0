"""Pixels that can be trusted: a case is loaded whole and checked, or an InputError names it."""

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np

from segshift.cohort.annotation import Annotation
from segshift.cohort.case import SPACING, SPACING_KNOWN, Case
from segshift.cohort.consensus import combined
from segshift.cohort.images import Geometry, pictures, read_geometry, read_image, read_label
from segshift.cohort.labelling import numbers_of
from segshift.errors import InputError

# Converters round affines differently; a tenth of a voxel at the far corner is no other place.
AFFINE_TOLERANCE_VOXELS = 0.1
SPACING_TOLERANCE = 0.01  # of a column that repeats, rounded, what a header says
MOST_COUNTED = 1 << 24  # a table of label values is this long at most; beyond they are sorted
IGNORED = 255  # in class indices: a voxel that nobody decided on


@dataclass(frozen=True, slots=True)
class Volume:
    """A checked case: image float32 (C, D, H, W), label as in `load_label` (D, H, W)."""

    image: np.ndarray
    label: np.ndarray
    geometry: Geometry

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Of the voxels; 1 where it is not known."""
        return self.geometry.spacing_mm


def check_headers(case: Case, *, raters: bool = False) -> Geometry:
    """Read all headers of a case and compare them; the geometry counts all images' channels.

    With `raters` also those of the raters who did not draw the label. Where the first image's
    header states no voxel size it is that of the column `spacing_mm`, else what a microscope
    declares, else unknown; it is unknown too where the column `spacing_known` says false.
    Raises InputError naming the case for a missing or unreadable file, for an image and a label
    whose shape or affine differ, and for a column that contradicts a header.
    """
    drawn = (*case.annotation.paths, *(case.annotation.others.values() if raters else ()))
    try:
        images = [read_geometry(path) for path in case.images]
        labels = [(path, read_geometry(path)) for path in dict.fromkeys(drawn)]
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    first = images[0]
    others = [(case.images[i], g) for i, g in enumerate(images) if i] + labels
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
    known_mm = _known_mm(case, first)
    spacing_mm, affine = known_mm or (1.0, 1.0, 1.0), first.affine
    if spacing_mm != first.spacing_mm:
        affine = tuple(map(tuple, np.diag([*reversed(spacing_mm), 1.0]).tolist()))
    return Geometry(channels, first.shape, spacing_mm, affine, spacing_known=known_mm is not None)


def _known_mm(case: Case, first: Geometry) -> tuple[float, ...] | None:
    """The case's voxel size (z, y, x), given the geometry of its first image's file; or None."""
    stated = _stated_mm(case, first)
    if case.spacing_known and stated is None:
        raise InputError(
            f"case {case.id!r}: the column {SPACING_KNOWN} says true, but {case.images[0]} states "
            f"no voxel size; give it in the column {SPACING}"
        )
    return None if case.spacing_known is False else stated


def _stated_mm(case: Case, first: Geometry) -> tuple[float, ...] | None:
    """What the file says, or the column where it says nothing."""
    path, given = case.images[0], _column_mm(case, slices=first.shape[0])
    if first.spacing_known:
        if given and not np.allclose(given, first.spacing_mm, rtol=SPACING_TOLERANCE, atol=0):
            raise InputError(
                f"case {case.id!r}: the column {SPACING} says {given} (z;y;x), but the header of "
                f"{path} {first.spacing_mm}; it is for pictures, leave it empty here"
            )
        return first.spacing_mm
    if given or not path.name.lower().endswith(pictures.SUFFIXES):
        return given
    try:
        return pictures.declared_spacing_mm(path)
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error


def _column_mm(case: Case, *, slices: int) -> tuple[float, ...] | None:
    """What the column says; the thickness of a single slice is its larger pixel edge."""
    text = case.tags.get(SPACING, "").strip()
    if not text:
        return None
    try:
        edges = tuple(float(edge) for edge in text.split(";"))
    except ValueError:
        edges = ()
    if len(edges) == 2 and slices == 1:
        edges = (max(edges), *edges)
    if len(edges) != 3 or not all(edge > 0 and np.isfinite(edge) for edge in edges):
        raise InputError(
            f"case {case.id!r}: the column {SPACING} is {text!r}; it should be z;y;x in mm, such "
            f"as 2;0.5;0.5, or y;x for a single slice; this case has {slices} slice(s)"
        )
    return edges


def _corners_apart_mm(one: Geometry, other: Geometry) -> float:
    """The largest distance between the two images' corresponding corner voxels."""
    corners = np.array([*product(*((0, n - 1) for n in reversed(one.shape)))])
    voxels = np.column_stack([corners, np.ones(len(corners))])
    apart = voxels @ (np.array(one.affine) - np.array(other.affine)).T
    return float(np.linalg.norm(apart, axis=1).max())


def load_label(case: Case) -> np.ndarray:
    """Class indices uint8 (D, H, W): 0 background, i + 1 for structure i, IGNORED for nobody knows.

    Where structures overlap (in files of their own) the later one wins. Raises InputError for a
    case without label and for a value that means nothing.
    """
    annotation = case.annotation
    if not annotation.paths:
        raise InputError(f"case {case.id!r} has no label, so it cannot be trained on or scored")
    try:
        drawn = [
            _drawn(annotation, path) for path in (annotation.label, *annotation.raters) if path
        ]
        index = combined(drawn, annotation.consensus) if drawn else None
        for place, path in enumerate(annotation.files):
            if path:
                alone = _alone(annotation, place, path)
                index = np.zeros(alone.shape, dtype=np.uint8) if index is None else index
                index = np.where(alone, alone, index)
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    assert index is not None
    return index


def load_raters(case: Case) -> dict[str, np.ndarray]:
    """What the raters drew who did not draw the label, as `load_label`, sorted by column.

    All raters, where the label is their consensus. A structure in a file of its own is the same in
    all. Raises InputError naming the case, as `check_headers` and `load_label` do.
    """
    annotation = case.annotation
    if annotation.others:
        check_headers(case, raters=True)
    return {
        column: load_label(replace(case, annotation=annotation.with_label(path)))
        for column, path in annotation.others.items()
    }


def _drawn(annotation: Annotation, path: Path) -> np.ndarray:
    """Class indices of the structures that one rater drew in `path`."""
    values = read_label(path)
    inside = {
        place + 1: numbers_of(rule)
        for place, rule in enumerate(annotation.values)
        if rule is not None and not (annotation.files and annotation.files[place])
    }
    meaning = {0: 0, **dict.fromkeys(annotation.background_values, 0)}
    meaning |= dict.fromkeys(annotation.ignore_values, IGNORED)
    meaning |= {value: index for index, numbers in inside.items() for value in numbers}
    anything = [index for index, numbers in inside.items() if not numbers]
    found = _distinct(values)
    unknown = sorted(set(found.tolist()) - set(meaning))
    if unknown and not anything:
        raise InputError(
            f"the label {path} holds the value(s) {unknown[:10]}, which no structure has; known "
            f"are {sorted(meaning)}, 0 being background. Give them to a structure, to `ignore` or "
            "to `background` in data.structures (in structures, where evaluate.py scores masks)"
        )
    indices = [meaning.get(int(value), anything[0] if anything else 0) for value in found]
    return _replaced(values, found, np.array(indices, dtype=np.uint8))


def _distinct(values: np.ndarray) -> np.ndarray:
    """The values that occur, sorted; millions of voxels are not sorted for a handful of them."""
    low, high = int(values.min()), int(values.max())
    if high - low > MOST_COUNTED:
        return np.unique(values)
    return np.asarray(np.flatnonzero(np.bincount((values - low).ravel())) + low)


def _replaced(values: np.ndarray, found: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Every one of the sorted values `found` by the index at its place."""
    low, high = int(found[0]), int(found[-1])
    if high - low > MOST_COUNTED:
        return np.asarray(indices[np.searchsorted(found, values)])
    table = np.zeros(high - low + 1, dtype=np.uint8)
    table[found - low] = indices
    return np.asarray(table[values - low])


def _alone(annotation: Annotation, place: int, path: Path) -> np.ndarray:
    """Class indices of a structure that has `path` to itself: its own, IGNORED, or 0."""
    label, numbers = read_label(path), numbers_of(annotation.values[place])
    if numbers:
        known = {0, *numbers, *annotation.ignore_values, *annotation.background_values}
        unknown = sorted(set(np.unique(label).tolist()) - known)
        if unknown:
            raise InputError(
                f"the label {path} holds the value(s) {unknown[:10]}; known are {sorted(known)}"
            )
    inside = np.isin(label, numbers) if numbers else label != 0
    inside &= ~np.isin(label, annotation.background_values)
    index = np.where(inside, np.uint8(place + 1), np.uint8(0))
    return np.where(np.isin(label, annotation.ignore_values), np.uint8(IGNORED), index)


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
    return Volume(image, load_label(case), geometry)
