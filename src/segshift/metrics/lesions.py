"""Lesions found, lesions missed, and findings that are none: a mask by its connected components.

A lesion of the reference is found if more than `overlap` of its voxels are predicted, a predicted
component is true if more than `overlap` of its voxels are in the reference; with 0, the default,
one common voxel is enough. So a component may find several lesions, and several may find one.
Voxels are connected by faces (6), edges too (18) or corners too (26, the default).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import cc3d
import numpy as np
from numpy.typing import NDArray

from segshift.errors import InputError
from segshift.metrics.measure import Better
from segshift.metrics.metric import Metric
from segshift.metrics.pair import Mask, MaskPair

CONNECTIVITIES = (6, 18, 26)
BOUNDS = ("mm3", "mm2", "voxels", "px")


class _Counts(NamedTuple):
    """Lesions of the reference found and missed, and false components of the prediction."""

    found: int
    missed: int
    false: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesions:
    """Which components count: of a size class, of at least `least` and less than `below`.

    A lesion is in the class of its own size, a false finding in that of the predicted component.
    `size` names the class and is the end of the metric's name: `lesion_f1_small`. The bounds are in
    the unit `bounds`: mm3 of volumes and mm2 of pictures, voxels and px of those whose physical
    size nobody stated. Cases of another unit have no such class: all is NaN there.
    """

    size: str = ""
    least: float = 0.0
    below: float = math.inf
    bounds: Literal["mm3", "mm2", "voxels", "px"] = "mm3"
    overlap: float = 0.0
    connectivity: Literal[6, 18, 26] = 26

    def __post_init__(self) -> None:
        if self.connectivity not in CONNECTIVITIES:
            raise InputError(f"connectivity={self.connectivity!r}: one of {CONNECTIVITIES}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap={self.overlap!r}: a share from 0 to below 1")
        if self.bounds not in BOUNDS:
            raise InputError(f"bounds={self.bounds!r}: the unit of the bounds, one of {BOUNDS}")
        if not 0 <= self.least < self.below:
            raise InputError(
                f"least={self.least!r}, below={self.below!r}: sizes in {self.bounds}, the first "
                "smaller than the second"
            )
        if bool(self.size) != ((self.least, self.below) != (0.0, math.inf)):
            raise InputError(
                f"size={self.size!r} with least={self.least!r} and below={self.below!r}: a size "
                "class needs a name and bounds, all lesions neither"
            )

    def _named(self, name: str) -> str:
        return f"{name}_{self.size}" if self.size else name

    def _counts(self, pair: MaskPair) -> _Counts | None:
        """None where the bounds say nothing: in a case that is measured in another unit."""
        if self.size and pair.units.small_size != self.bounds:
            return None
        pred, ref = pair.cropped
        found, in_class = self._touched(ref, pred, pair.grid.voxel)
        true, of_class = self._touched(pred, ref, pair.grid.voxel)
        return _Counts(
            found=int(np.count_nonzero(found & in_class)),
            missed=int(np.count_nonzero(~found & in_class)),
            false=int(np.count_nonzero(~true & of_class)),
        )

    def _touched(
        self, mask: Mask, other: Mask, voxel: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of each component of `mask`: whether `other` covers it, and whether its size counts."""
        if not mask.any():
            return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
        components = cc3d.connected_components(mask, connectivity=self.connectivity)
        # Only the voxels inside, of which there are few, and without the background at place 0.
        inside = components[mask]
        voxels = np.bincount(inside)[1:]
        common = np.bincount(inside[other[mask]], minlength=len(voxels) + 1)[1:]
        sizes = voxels * voxel
        in_class = (self.least <= sizes) & (sizes < self.below)
        return common > self.overlap * voxels, in_class


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionF1(Lesions, Metric):
    """2 found / (2 found + missed + false), of the cases whose reference has a lesion of the class.

    0 on a miss, NaN without such a lesion: `LesionFalsePositives` counts what is found there.
    """

    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    @property
    def name(self) -> str:
        """With the size class, if any: `lesion_f1_small`."""
        return self._named("lesion_f1")

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        counts = self._counts(pair)
        if counts is None or not counts.found + counts.missed:
            return math.nan
        return 2 * counts.found / (2 * counts.found + counts.missed + counts.false)


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionSensitivity(Lesions, Metric):
    """found / (found + missed); NaN without a lesion of the class in the reference."""

    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    @property
    def name(self) -> str:
        """With the size class, if any: `lesion_sensitivity_small`."""
        return self._named("lesion_sensitivity")

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        counts = self._counts(pair)
        if counts is None or not counts.found + counts.missed:
            return math.nan
        return counts.found / (counts.found + counts.missed)


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionFalsePositives(Lesions, Metric):
    """How many predicted components of the class are false, in this case.

    A count, so 0, not NaN, where both masks are empty: a mean per case has all cases in it.
    """

    unit: ClassVar[str] = "components"
    better: ClassVar[Better] = "lower"

    @property
    def name(self) -> str:
        """With the size class, if any: `lesion_false_positives_small`."""
        return self._named("lesion_false_positives")

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        counts = self._counts(pair)
        return math.nan if counts is None else float(counts.false)
