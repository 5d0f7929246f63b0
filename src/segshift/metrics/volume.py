"""How much too large or too small the prediction is. Signed: positive is too large, 0 is best.

Of a picture these are differences of areas; a relative one has one name for all cases.

A mean of them is a bias, in which errors of both directions cancel. As neither end is the good one
they have no worst site and no gap, and cannot come first among the metrics.
"""

from dataclasses import dataclass
from typing import ClassVar

from segshift.metrics.empty import value_if_empty
from segshift.metrics.measure import Better
from segshift.metrics.metric import Metric
from segshift.metrics.pair import MaskPair
from segshift.units import Quantity, Units


@dataclass(frozen=True, slots=True)
class VolumeDifference(Metric):
    """Predicted minus reference size; a miss is minus the reference's size."""

    name: ClassVar[str] = "volume_difference"
    unit: ClassVar[Quantity] = Quantity.SIZE
    better: ClassVar[Better] = "zero"

    def named(self, units: Units) -> str:
        """Of volumes or of areas."""
        return f"{units.sized}_difference"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        difference = pair.grid.size(pair.pred_voxels - pair.ref_voxels)
        fixed = value_if_empty(pair, miss=difference)
        return difference if fixed is None else fixed


@dataclass(frozen=True, slots=True)
class RelativeVolumeDifference(Metric):
    """Difference of sizes over the mean of both: -2 for a miss, towards 2 for far too much.

    Over the reference's size alone it would have no bound, and a mean would be that of the
    smallest reference.
    """

    name: ClassVar[str] = "volume_difference_relative"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "zero"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = value_if_empty(pair, miss=-2.0)
        if fixed is not None:
            return fixed
        return 2 * (pair.pred_voxels - pair.ref_voxels) / (pair.pred_voxels + pair.ref_voxels)
