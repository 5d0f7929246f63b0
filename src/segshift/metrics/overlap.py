"""Overlap of two masks, in [0, 1] and independent of the spacing; 0 where nothing is predicted."""

from dataclasses import dataclass
from typing import ClassVar

from segshift.metrics.empty import value_if_empty
from segshift.metrics.measure import Better
from segshift.metrics.metric import Metric
from segshift.metrics.pair import MaskPair


@dataclass(frozen=True, slots=True)
class Dice(Metric):
    """Dice overlap, the F1 of voxels: 2|P and R| / (|P| + |R|).

    Of the cases whose reference has the structure; `FalseAlarm` is of the others.
    """

    name: ClassVar[str] = "dice"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        return _share(pair, 2 * pair.overlap_voxels, pair.pred_voxels + pair.ref_voxels)


@dataclass(frozen=True, slots=True)
class IoU(Metric):
    """Intersection over union |P and R| / |P or R|, also called Jaccard index."""

    name: ClassVar[str] = "iou"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        union = pair.pred_voxels + pair.ref_voxels - pair.overlap_voxels
        return _share(pair, pair.overlap_voxels, union)


@dataclass(frozen=True, slots=True)
class Sensitivity(Metric):
    """The share |P and R| / |R| of the reference that was found, also called recall."""

    name: ClassVar[str] = "sensitivity"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        return _share(pair, pair.overlap_voxels, pair.ref_voxels)


@dataclass(frozen=True, slots=True)
class Precision(Metric):
    """The share |P and R| / |P| of the prediction that is right.

    A miss is 0, though it predicts nothing wrong: it would otherwise be the best model's value.
    """

    name: ClassVar[str] = "precision"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        return _share(pair, pair.overlap_voxels, pair.pred_voxels)


def _share(pair: MaskPair, part: int, whole: int) -> float:
    fixed = value_if_empty(pair, miss=0.0)
    return part / whole if fixed is None else fixed
