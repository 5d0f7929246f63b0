"""Cases without the structure: is it predicted there all the same, and how much of it?

And the one number by which checkpoints and post-processing are chosen, which is of every case.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from segshift.metrics.measure import Better
from segshift.metrics.metric import Metric
from segshift.metrics.overlap import Dice
from segshift.metrics.pair import MaskPair
from segshift.units import Quantity


@dataclass(frozen=True, slots=True)
class FalseAlarm(Metric):
    """1 where the structure is predicted though the reference has none, else 0; a mean is a share.

    NaN where the reference has the structure: those cases are judged by overlap and distance.
    """

    name: ClassVar[str] = "false_alarm"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        return math.nan if pair.ref_voxels else float(pair.pred_voxels > 0)


@dataclass(frozen=True, slots=True)
class FalseAlarmVolume(Metric):
    """How much is predicted though the reference has none; 0 without a false alarm.

    NaN where the reference has the structure.
    """

    name: ClassVar[str] = "false_alarm"
    unit: ClassVar[Quantity] = Quantity.SIZE
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        return math.nan if pair.ref_voxels else pair.grid.size(pair.pred_voxels)


@dataclass(frozen=True, slots=True)
class SelectionScore(Metric):
    """Dice where the reference has the structure; elsewhere 1 if nothing is predicted, else 0.

    Of every annotated case, so no choice between two networks or two rules is one between two
    groups of cases.
    """

    name: ClassVar[str] = "selection_score"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        return Dice().of(pair) if pair.ref_voxels else float(pair.pred_voxels == 0)
