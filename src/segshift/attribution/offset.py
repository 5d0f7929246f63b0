"""How far outside the reference a prediction's boundary runs, and what moving it back is worth."""

import edt
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from segshift.metrics import MaskPair

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

COARSE = 3.0  # times the finest edge: nnU-Net's bound of anisotropy


def boundary_offset(pair: MaskPair, *, reach: float) -> float:
    """Mean signed distance of the surfaces, positive where the prediction lies outside.

    As `segshift.metrics.BoundaryOffset`, of the surface voxels within `reach` of the other
    surface alone: what lies further off is an error, not a habit. Thick slices have a surface
    along their outline only. NaN where there is nothing.
    """
    if not pair.pred_voxels or not pair.ref_voxels:
        return float("nan")
    surfaces = [_surface(mask, pair) for mask in pair.cropped]
    to_pred, to_ref = (_distance(~surface, pair) for surface in surfaces)
    (pred, ref), (pred_surface, ref_surface) = pair.cropped, surfaces
    of_pred = np.where(ref, -to_ref, to_ref)[pred_surface]
    of_ref = np.where(pred, to_pred, -to_pred)[ref_surface]
    signed = np.concatenate([of_pred, of_ref])
    near = signed[np.abs(signed) <= reach]
    return float(near.mean()) if len(near) else float("nan")


def dice_after_shifts(pair: MaskPair, shifts: ArrayLike) -> Array:
    """Dice (shifts,) after moving the predicted boundary outwards by each of ascending shifts.

    A voxel is in the moved mask if the boundary, which runs half the finest voxel edge outside the
    mask's voxel centres, is no further inside than the shift. All lengths are in the units of the
    pair. NaN where a mask is empty.
    """
    shifts = np.asarray(shifts, dtype=np.float64)
    if not pair.pred_voxels or not pair.ref_voxels:
        return np.full(len(shifts), np.nan)
    widest = max(float(np.abs(shifts).max()), max(pair.grid.edges))
    (box,) = ndimage.find_objects((pair.pred | pair.ref).astype(np.uint8))
    wide = tuple(
        slice(max(side.start - margin, 0), side.stop + margin)
        for side, margin in zip(box, (int(widest / s) + 2 for s in pair.grid.edges), strict=True)
    )
    pred, ref = pair.pred[wide], pair.ref[wide]
    half = min(pair.grid.edges[axis] for axis in pair.axes) / 2
    outside, inside = (_distance(mask, pair) for mask in (~pred, pred))
    distance = np.where(pred, half - inside, outside - half)
    # float32 distances against shifts that are whole parts of a voxel
    first = np.searchsorted(shifts, distance - 1e-4, side="left")
    size = np.bincount(first.ravel(), minlength=len(shifts) + 1)[: len(shifts)].cumsum()
    both = np.bincount(first[ref], minlength=len(shifts) + 1)[: len(shifts)].cumsum()
    return np.asarray(2 * both / (size + pair.ref_voxels))


def _surface(mask: Mask, pair: MaskPair) -> Mask:
    """Voxels of the framed mask with a neighbour outside, along the axes that are not coarse.

    Of ten slices of 10 mm the first and the last would be surface as a whole, two masks of which
    lie on each other whatever the habit.
    """
    finest = min(pair.grid.edges[axis] for axis in pair.axes)
    fine = [axis for axis in pair.axes if pair.grid.edges[axis] <= COARSE * finest]
    cross = np.zeros((3, 3, 3), dtype=bool)
    for axis in fine:
        line: list[int | slice] = [1, 1, 1]
        line[axis] = slice(None)
        cross[tuple(line)] = True
    inside: Mask = ndimage.binary_erosion(mask, cross)
    return mask & ~inside


def _distance(inside: Mask, pair: MaskPair) -> NDArray[np.float32]:
    """From every voxel of `inside` to the nearest one that is not."""
    bytes_ = np.ascontiguousarray(inside).view(np.uint8)
    distance: NDArray[np.float32] = edt.edt(bytes_, anisotropy=pair.grid.edges)
    return distance
