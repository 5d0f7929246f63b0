"""Pictures without a physical size on one scale: a factor on the edges that their pixels count as.

Where `data.scale` says so, what a picture shows is measured in its
own pixels and brought to the size that is typical of the training cases: the field of view, which
the image alone tells, or the object, which the references of training cases tell and, of any
other case, the network's own first prediction. Slices lie as far apart as before.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import edt
import numpy as np
from scipy import ndimage

from segshift.cohort import Case
from segshift.cohort.case import SPACING
from segshift.cohort.checks import IGNORED, load_label
from segshift.cohort.images import Geometry, read_image
from segshift.errors import InputError
from segshift.plan.content import FIELD_OF_VIEW, OBJECT, Scale
from segshift.plan.cropping import box_shape, nonzero_box
from segshift.progress import threads, tracked

SCALES = (FIELD_OF_VIEW, OBJECT)
MOST = 4.0  # an object that asks for a larger factor, or one below its inverse, is not believed
LEAST_PIXELS = 16  # fewer, of a slice, are specks and no object
WIDE = 90.0  # percentile of the distances to the edge: where an object is wide
BORDER_TOLERANCE = 0.05  # of the image's range: what JPEG and a sensor make of a constant border
CORNER = 1 / 50  # of an edge: the patches that tell the border's colour
LEAST_SHARE = 0.9  # of all that is not border, in its largest piece: else there are several things
LEAST_EDGE = 1 / 3  # of the image's, along both axes; a smaller piece is a thing in the picture
LEAST_FILLED = 0.5  # of its box: a disc fills 0.79, even where a frame cuts it off

# How a case came to its scale, as its record says it.
AS_IT_IS = "pixels as they are"
BY_FIELD, BY_IMAGE = "field of view", "whole image, which has no border"
BY_REFERENCE, BY_PREDICTION = "reference", "first prediction"
NOTHING = "pixels as they are, no object was found"
BEYOND = f"pixels as they are, the object found is over {MOST:g} times off"


@dataclass(frozen=True, slots=True)
class Scaled:
    """What a case's pixels count as along y and x, times their nominal size; and who says so."""

    factor: float = 1.0
    source: str = AS_IT_IS

    def edges(self, nominal: Sequence[float]) -> tuple[float, ...]:
        """The voxel edges (z, y, x) that the case is resampled by."""
        z, *inside = nominal
        return (z, *(edge * self.factor for edge in inside))

    def written(self) -> tuple[str, str]:
        """Factor and source as tables have them."""
        return f"{self.factor:.4g}", self.source


UNSCALED = Scaled()


def check_unsized(cases: Iterable[Case], headers: Iterable[Geometry]) -> None:
    """Raises InputError naming the first case whose header has a known physical size."""
    for case, header in zip(cases, headers, strict=True):
        if header.spacing_known:
            raise InputError(
                f"case {case.id!r}: data.scale is for pictures without a physical size, but "
                f"that of {case.images[0]} is known (by the column {SPACING} or the file), and "
                "decides its scale already. Leave data.scale out, or say that this size is "
                "nominal: spacing_known=false in the manifest"
            )


def typical_scale(
    cases: Sequence[Case], headers: Sequence[Geometry], by: str | None
) -> tuple[Scale | None, list[Scaled]]:
    """What is typical of training cases, in pixels, and each case on the scale of it.

    Reads their images for the field of view, their references for the object. Raises InputError as
    `check_unsized` does, for an unknown `by`, and for references that tell no size.
    """
    if by is None:
        return None, [UNSCALED] * len(cases)
    if by not in SCALES:
        raise InputError(f"data.scale={by}: known are {', '.join(SCALES)}, or null")
    check_unsized(cases, headers)
    measure = _case_field if by == FIELD_OF_VIEW else _case_object
    with ThreadPoolExecutor(threads()) as pool:
        found = list(tracked(pool.map(measure, cases), f"sizes by {by}", total=len(cases)))
    sizes = [size for size, _ in found if size is not None]
    if not sizes:
        raise InputError(
            f"data.scale={by}: none of the {len(cases)} training cases shows an object of at least "
            f"{LEAST_PIXELS} pixels with an edge in the picture; take data.scale={FIELD_OF_VIEW}"
        )
    scale = Scale(by, float(np.median(sizes)))
    if by == FIELD_OF_VIEW:
        return scale, [
            Scaled(scale.typical_px / size, source) for size, source in found if size is not None
        ]
    return scale, [_scaled_by_object(size, scale, source) for size, source in found]


def first_scaled(image: np.ndarray, scale: Scale | None) -> Scaled:
    """The scale of any case that is not trained on, before it is predicted, by its (C, D, H, W)."""
    if scale is None or scale.by == OBJECT:
        return UNSCALED
    size, source = field_of_view(image)
    return Scaled(scale.typical_px / size, source)


def scaled_by_reference(label: np.ndarray, scale: Scale) -> Scaled:
    """The scale of a training case by the object in its label, class indices (D, H, W)."""
    return _scaled_by_object(object_px(_drawn(label)), scale, BY_REFERENCE)


def scaled_by_prediction(size_px: float | None, scale: Scale) -> Scaled:
    """The scale of a case whose first prediction shows an object of that size, None for none."""
    return _scaled_by_object(size_px, scale, BY_PREDICTION)


def object_px(mask: np.ndarray) -> float | None:
    """How wide the foreground (D, H, W) is where it is wide, in pixels; None without an object.

    Twice the 90th percentile of its pixels' distance to the edge, of the slice where it is widest.
    Neither more objects in a picture nor a frame that cuts them off change it, as they change an
    area; touching ones and holes do so less than they change that of components.
    """
    widths = []
    for plane in mask:
        if LEAST_PIXELS <= np.count_nonzero(plane) < plane.size:
            inside = np.ascontiguousarray(plane, dtype=np.uint8)
            distances = edt.edt(inside, black_border=False)[plane]
            widths.append(2 * float(np.percentile(distances, WIDE)) - 1)  # to the edge of a pixel
    return max(widths, default=None)


def field_of_view(image: np.ndarray) -> tuple[float, str]:
    """Longer edge in pixels (y, x) of what an image (C, D, H, W) shows, and what it was told by.

    That is the box of what lies in a border of one colour, such as the disc of a fundus photograph,
    or the whole image: where its corners differ, or what is inside is not one large piece.
    """
    whole = float(max(image.shape[2:]))
    inside = _within_border(image)
    pieces, count = ndimage.label(inside)
    if not count:
        return whole, BY_IMAGE
    sizes = np.bincount(pieces.ravel())[1:]
    piece = ndimage.binary_fill_holes(pieces == 1 + np.argmax(sizes))
    edges = box_shape(nonzero_box(piece))
    large = all(n >= LEAST_EDGE * of for n, of in zip(edges, piece.shape, strict=True))
    filled = np.count_nonzero(piece) >= LEAST_FILLED * np.prod(edges)
    one = sizes.max() >= LEAST_SHARE * sizes.sum()
    border = edges != piece.shape
    return (
        (float(max(edges)), BY_FIELD) if border and large and filled and one else (whole, BY_IMAGE)
    )


def _within_border(image: np.ndarray) -> np.ndarray:
    """Mask (H, W) of what differs from the colour of the corners in any channel or slice.

    Nothing if fewer than three corners have one colour: a fourth may hold a mark or a name.
    """
    height, width = image.shape[2:]
    rows, columns = (max(round(n * CORNER), 1) for n in (height, width))
    ends = [
        (y, x)
        for y in (slice(rows), slice(-rows, None))
        for x in (slice(columns), slice(-columns, None))
    ]
    corners = np.stack([image[:, :, y, x] for y, x in ends])  # (4, C, D, h, w)
    colour = np.median(corners, axis=(0, 2, 3, 4))[:, None, None, None]
    away = np.abs(image - colour)
    tolerance = BORDER_TOLERANCE * float(np.percentile(away, 99))
    alike = (np.abs(corners - colour) <= tolerance).mean(axis=(1, 2, 3, 4)) >= LEAST_SHARE
    inside: np.ndarray = (away > tolerance).any(axis=(0, 1))
    return inside if alike.sum() >= 3 else np.zeros_like(inside)


def _case_field(case: Case) -> tuple[float | None, str]:
    try:
        image = np.concatenate([read_image(path) for path in case.images])
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    return field_of_view(image)


def _case_object(case: Case) -> tuple[float | None, str]:
    if not all(case.annotation.annotated):
        raise InputError(
            f"case {case.id!r}: data.scale={OBJECT} measures all structures together, and not "
            f"every one is annotated here; leave out those that some training cases lack, or take "
            f"data.scale={FIELD_OF_VIEW}"
        )
    return object_px(_drawn(load_label(case))), BY_REFERENCE


def _scaled_by_object(size_px: float | None, scale: Scale, source: str) -> Scaled:
    """An object of that size brought to the typical one; what is not believed changes nothing."""
    if size_px is None:
        return Scaled(source=NOTHING)
    factor = scale.typical_px / size_px
    return Scaled(factor, source) if 1 / MOST <= factor <= MOST else Scaled(source=BEYOND)


def _drawn(label: np.ndarray) -> np.ndarray:
    return np.asarray((label > 0) & (label != IGNORED))
