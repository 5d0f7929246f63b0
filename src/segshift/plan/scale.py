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
CORNER = 1 / 50  # of an edge: the patches that tell the border's colour
LEAST_CORNERS = 3  # that have it; one may hold a mark or a name
LEAST_SHARE = 0.9  # of a corner; and of all that is not border, in its largest piece
RING = 1 / 200  # of the longer edge: how near to a piece's edge its step is looked for
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
    or the whole image: where its corners differ, where what is inside is not one large piece, and
    where it fades into them.
    """
    from skimage.filters import threshold_otsu  # late: it takes a while to import

    away, corners = _unlike_corners(image)
    split = threshold_otsu(away)
    level = float(np.median(away[away <= split]))
    # Half way: dim margins of a photograph are nearer to its border than to its middle.
    threshold = (level + split) / 2
    outside = [np.mean(away[corner] <= threshold) >= LEAST_SHARE for corner in corners]
    pieces, count = ndimage.label(away > threshold)
    whole = float(max(away.shape)), BY_IMAGE
    if count == 0 or sum(outside) < LEAST_CORNERS:
        return whole
    sizes = np.bincount(pieces.ravel())[1:]
    piece = ndimage.binary_fill_holes(pieces == 1 + np.argmax(sizes))
    edges = box_shape(nonzero_box(piece))
    is_field = (
        sizes.max() >= LEAST_SHARE * sizes.sum()
        and all(n >= LEAST_EDGE * of for n, of in zip(edges, away.shape, strict=True))
        and np.count_nonzero(piece) >= LEAST_FILLED * np.prod(edges)
        and _step(away, piece) >= threshold - level
    )
    return (float(max(edges)), BY_FIELD) if is_field else whole


def _unlike_corners(image: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """How far each pixel (H, W) is from the corners' colour, in any channel or slice; the corners.

    The colour is the median of all four.
    """
    rows, columns = (max(round(n * CORNER), 1) for n in image.shape[2:])
    corners = [
        (y, x)
        for y in (slice(rows), slice(-rows, None))
        for x in (slice(columns), slice(-columns, None))
    ]
    values = np.stack([image[:, :, *corner] for corner in corners])  # (4, C, D, h, w)
    colour = np.median(values, axis=(0, 2, 3, 4))[:, None, None, None]
    return np.abs(image - colour).max(axis=(0, 1)), corners


def _step(away: np.ndarray, piece: np.ndarray) -> float:
    """From just outside a piece (H, W) to just inside it: of a border's edge, not of a fading."""
    wide = max(2.0, RING * max(piece.shape))
    inside, outside = (
        away[side][edt.edt(side.astype(np.uint8), black_border=False)[side] <= wide]
        for side in (piece, ~piece)
    )
    return float(np.median(inside) - np.median(outside)) if len(inside) and len(outside) else 0.0


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
