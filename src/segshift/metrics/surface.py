"""Distances between two surfaces in mm, and overlaps of what lies near them.

What a surface is, `MaskPair` says. Both directions' distances are computed once for all of these.
Where nothing is predicted a distance is the diagonal of the image, larger than any real one.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from segshift.errors import InputError
from segshift.metrics.empty import value_if_empty
from segshift.metrics.measure import Better
from segshift.metrics.metric import Metric
from segshift.metrics.pair import MaskPair, within_mm


@dataclass(frozen=True, slots=True)
class HausdorffDistance(Metric):
    """The largest distance from a surface voxel of either mask to the other surface, in mm."""

    name: ClassVar[str] = "hd_mm"
    unit: ClassVar[str] = "mm"
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = _diagonal_if_empty(pair)
        if fixed is not None:
            return fixed
        return float(max(pair.pred_to_ref_mm.max(), pair.ref_to_pred_mm.max()))


@dataclass(frozen=True, slots=True)
class HausdorffDistance95(Metric):
    """Symmetrical 95th percentile of the surface distances, in mm.

    The percentile (linear interpolation) is taken in each direction and the larger one is kept, as
    in MONAI. medpy takes it of both directions' distances together, which is never larger.
    """

    name: ClassVar[str] = "hd95_mm"
    unit: ClassVar[str] = "mm"
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = _diagonal_if_empty(pair)
        if fixed is not None:
            return fixed
        both = (pair.pred_to_ref_mm, pair.ref_to_pred_mm)
        return float(max(np.percentile(distances, 95) for distances in both))


@dataclass(frozen=True, slots=True)
class AverageSurfaceDistance(Metric):
    """Average symmetric surface distance: the mean over the surface voxels of both masks, in mm."""

    name: ClassVar[str] = "assd_mm"
    unit: ClassVar[str] = "mm"
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = _diagonal_if_empty(pair)
        if fixed is not None:
            return fixed
        return float(np.concatenate([pair.pred_to_ref_mm, pair.ref_to_pred_mm]).mean())


@dataclass(frozen=True, slots=True)
class BoundaryOffset(Metric):
    """Mean signed distance between the surfaces in mm: positive where the prediction lies outside.

    The mean of ASSD with a sign: minus where the prediction's surface lies inside the reference or
    the reference's outside the prediction. Two annotation habits differ in it by what one draws
    further out. A miss is minus the image's diagonal: it may not be dropped. As for every signed
    metric there is no worst site: neither end is the good one.
    """

    name: ClassVar[str] = "boundary_offset_mm"
    unit: ClassVar[str] = "mm"
    better: ClassVar[Better] = "zero"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = value_if_empty(pair, miss=-pair.diagonal_mm)
        if fixed is not None:
            return fixed
        (pred, ref), (pred_surface, ref_surface) = pair.cropped, pair.surfaces
        of_pred = np.where(ref[pred_surface], -pair.pred_to_ref_mm, pair.pred_to_ref_mm)
        of_ref = np.where(pred[ref_surface], pair.ref_to_pred_mm, -pair.ref_to_pred_mm)
        return float(np.concatenate([of_pred, of_ref]).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceDice(Metric):
    """Normalised surface Dice (NSD): the share of both surfaces within a tolerance of the other.

    Nikolov et al. 2021, doi:10.2196/26151. Surface voxels count one each, as in MONAI; DeepMind's
    `surface-distance` weighs them by their area.
    """

    tolerance_mm: float
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def __post_init__(self) -> None:
        _check_length("SurfaceDice", "tolerance_mm", self.tolerance_mm, lowest=0)

    @property
    def name(self) -> str:
        """The tolerance is part of it: `nsd_2mm`."""
        return f"nsd_{self.tolerance_mm:g}mm"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = value_if_empty(pair, miss=0.0)
        if fixed is not None:
            return fixed
        both = (pair.pred_to_ref_mm, pair.ref_to_pred_mm)
        near = sum(np.count_nonzero(each <= within_mm(self.tolerance_mm)) for each in both)
        return float(near / sum(len(each) for each in both))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryIoU(Metric):
    """IoU of the two masks' shells: their voxels within `width_mm` of a voxel outside.

    Cheng et al. 2021, arXiv:2103.16562, with a width in mm in place of a share of the diagonal.
    Surface voxels are always in, however thin the shell.
    """

    width_mm: float
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def __post_init__(self) -> None:
        _check_length("BoundaryIoU", "width_mm", self.width_mm, lowest=0)

    @property
    def name(self) -> str:
        """The width is part of it: `boundary_iou_2mm`."""
        return f"boundary_iou_{self.width_mm:g}mm"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = value_if_empty(pair, miss=0.0)
        if fixed is not None:
            return fixed
        pred, ref = pair.shells(width_mm=self.width_mm)
        return float(np.count_nonzero(pred & ref) / np.count_nonzero(pred | ref))


def _diagonal_if_empty(pair: MaskPair) -> float | None:
    return value_if_empty(pair, miss=pair.diagonal_mm)


def _check_length(metric: str, option: str, value: float, *, lowest: float) -> None:
    if not (isinstance(value, int | float) and lowest <= value < math.inf):
        raise InputError(f"{metric}({option}={value!r}): a length in mm, {lowest:g} or more")
