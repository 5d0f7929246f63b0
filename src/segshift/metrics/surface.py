"""Distances between two surfaces, and overlaps of what lies near them.

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
from segshift.metrics.pair import MaskPair, within
from segshift.units import Quantity, Units


@dataclass(frozen=True, slots=True)
class HausdorffDistance(Metric):
    """The largest distance from a surface voxel of either mask to the other surface."""

    name: ClassVar[str] = "hd"
    unit: ClassVar[Quantity] = Quantity.LENGTH
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = _diagonal_if_empty(pair)
        if fixed is not None:
            return fixed
        return float(max(pair.pred_to_ref.max(), pair.ref_to_pred.max()))


@dataclass(frozen=True, slots=True)
class HausdorffDistance95(Metric):
    """Symmetrical 95th percentile of the surface distances.

    The percentile (linear interpolation) is taken in each direction and the larger one is kept, as
    in MONAI. medpy takes it of both directions' distances together, which is never larger.
    """

    name: ClassVar[str] = "hd95"
    unit: ClassVar[Quantity] = Quantity.LENGTH
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = _diagonal_if_empty(pair)
        if fixed is not None:
            return fixed
        both = (pair.pred_to_ref, pair.ref_to_pred)
        return float(max(np.percentile(distances, 95) for distances in both))


@dataclass(frozen=True, slots=True)
class AverageSurfaceDistance(Metric):
    """Average symmetric surface distance: the mean over the surface voxels of both masks."""

    name: ClassVar[str] = "assd"
    unit: ClassVar[Quantity] = Quantity.LENGTH
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = _diagonal_if_empty(pair)
        if fixed is not None:
            return fixed
        return float(np.concatenate([pair.pred_to_ref, pair.ref_to_pred]).mean())


@dataclass(frozen=True, slots=True)
class BoundaryOffset(Metric):
    """Mean signed distance between the surfaces: positive where the prediction lies outside.

    The mean of ASSD with a sign: minus where the prediction's surface lies inside the reference or
    the reference's outside the prediction. Two annotation habits differ in it by what one draws
    further out. A miss is minus the image's diagonal: it may not be dropped. As for every signed
    metric there is no worst site: neither end is the good one.
    """

    name: ClassVar[str] = "boundary_offset"
    unit: ClassVar[Quantity] = Quantity.LENGTH
    better: ClassVar[Better] = "zero"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = value_if_empty(pair, miss=-pair.diagonal)
        if fixed is not None:
            return fixed
        (pred, ref), (pred_surface, ref_surface) = pair.cropped, pair.surfaces
        of_pred = np.where(ref[pred_surface], -pair.pred_to_ref, pair.pred_to_ref)
        of_ref = np.where(pred[ref_surface], pair.ref_to_pred, -pair.ref_to_pred)
        return float(np.concatenate([of_pred, of_ref]).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceDice(Metric):
    """Normalised surface Dice (NSD): the share of both surfaces within a tolerance of the other.

    Nikolov et al. 2021, doi:10.2196/26151. Surface voxels count one each, as in MONAI; DeepMind's
    `surface-distance` weighs them by their area. In a case without a physical size the tolerance
    is `tolerance_px`, by default as many pixels as it would be mm.
    """

    tolerance_mm: float
    tolerance_px: float | None = None
    name: ClassVar[str] = "nsd"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def __post_init__(self) -> None:
        _check_length("SurfaceDice", "tolerance_mm", self.tolerance_mm)
        if self.tolerance_px is not None:
            _check_length("SurfaceDice", "tolerance_px", self.tolerance_px)

    def named(self, units: Units) -> str:
        """The tolerance is part of it: `nsd_2mm`, `nsd_2px`."""
        return f"nsd_{self._tolerance(units):g}{units.length}"

    def _tolerance(self, units: Units) -> float:
        return _in(units, self.tolerance_mm, self.tolerance_px)

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = value_if_empty(pair, miss=0.0)
        if fixed is not None:
            return fixed
        both = (pair.pred_to_ref, pair.ref_to_pred)
        reach = within(self._tolerance(pair.units))
        near = sum(np.count_nonzero(each <= reach) for each in both)
        return float(near / sum(len(each) for each in both))


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundaryIoU(Metric):
    """IoU of the two masks' shells: their voxels within `width_mm` of a voxel outside.

    Cheng et al. 2021, arXiv:2103.16562, with a width in mm in place of a share of the diagonal.
    Surface voxels are always in, however thin the shell. In a case without a physical size the
    width is `width_px`, by default as many pixels as it would be mm.
    """

    width_mm: float
    width_px: float | None = None
    name: ClassVar[str] = "boundary_iou"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def __post_init__(self) -> None:
        _check_length("BoundaryIoU", "width_mm", self.width_mm)
        if self.width_px is not None:
            _check_length("BoundaryIoU", "width_px", self.width_px)

    def named(self, units: Units) -> str:
        """The width is part of it: `boundary_iou_2mm`, `boundary_iou_2px`."""
        return f"boundary_iou_{self._width(units):g}{units.length}"

    def _width(self, units: Units) -> float:
        return _in(units, self.width_mm, self.width_px)

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = value_if_empty(pair, miss=0.0)
        if fixed is not None:
            return fixed
        pred, ref = pair.shells(width=self._width(pair.units))
        return float(np.count_nonzero(pred & ref) / np.count_nonzero(pred | ref))


def _diagonal_if_empty(pair: MaskPair) -> float | None:
    return value_if_empty(pair, miss=pair.diagonal)


def _in(units: Units, of_mm: float, of_px: float | None) -> float:
    """A length that is given in mm, and maybe in pixels too, in these units."""
    return of_mm if units.known or of_px is None else of_px


def _check_length(metric: str, option: str, value: float) -> None:
    if not (isinstance(value, int | float) and 0 <= value < math.inf):
        unit = option.rsplit("_", 1)[1]
        raise InputError(f"{metric}({option}={value!r}): a length in {unit}, 0 or more")
