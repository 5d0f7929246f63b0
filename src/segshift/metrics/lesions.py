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


class _Counts(NamedTuple):
    """Lesions of the reference found and missed, and false components of the prediction."""

    found: int
    missed: int
    false: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesions:
    """Which components count: of a size class, of at least `least_mm3` and less than `below_mm3`.

    A lesion is in the class of its own volume, a false finding in that of the predicted component.
    `size` names the class and is the end of the metric's name: `lesion_f1_small`.
    """

    size: str = ""
    least_mm3: float = 0.0
    below_mm3: float = math.inf
    overlap: float = 0.0
    connectivity: Literal[6, 18, 26] = 26

    def __post_init__(self) -> None:
        if self.connectivity not in CONNECTIVITIES:
            raise InputError(f"connectivity={self.connectivity!r}: one of {CONNECTIVITIES}")
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap={self.overlap!r}: a share from 0 to below 1")
        if not 0 <= self.least_mm3 < self.below_mm3:
            raise InputError(
                f"least_mm3={self.least_mm3!r}, below_mm3={self.below_mm3!r}: volumes in mm3, the "
                "first smaller than the second"
            )
        if bool(self.size) != ((self.least_mm3, self.below_mm3) != (0.0, math.inf)):
            raise InputError(
                f"size={self.size!r} with least_mm3={self.least_mm3!r} and below_mm3="
                f"{self.below_mm3!r}: a size class needs a name and bounds, all lesions neither"
            )

    def _named(self, name: str) -> str:
        return f"{name}_{self.size}" if self.size else name

    def _counts(self, pair: MaskPair) -> _Counts:
        pred, ref = pair.cropped
        found, in_class = self._touched(ref, pred, pair.voxel_mm3)
        true, of_class = self._touched(pred, ref, pair.voxel_mm3)
        return _Counts(
            found=int(np.count_nonzero(found & in_class)),
            missed=int(np.count_nonzero(~found & in_class)),
            false=int(np.count_nonzero(~true & of_class)),
        )

    def _touched(
        self, mask: Mask, other: Mask, voxel_mm3: float
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of each component of `mask`: whether `other` covers it, and whether its size counts."""
        if not mask.any():
            return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
        components = cc3d.connected_components(mask, connectivity=self.connectivity)
        # Only the voxels inside, of which there are few, and without the background at place 0.
        inside = components[mask]
        voxels = np.bincount(inside)[1:]
        common = np.bincount(inside[other[mask]], minlength=len(voxels) + 1)[1:]
        volume_mm3 = voxels * voxel_mm3
        in_class = (self.least_mm3 <= volume_mm3) & (volume_mm3 < self.below_mm3)
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
        found, missed, false = self._counts(pair)
        return 2 * found / (2 * found + missed + false) if found + missed else math.nan


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
        found, missed, _ = self._counts(pair)
        return found / (found + missed) if found + missed else math.nan


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
        return float(self._counts(pair).false)
