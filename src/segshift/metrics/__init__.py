"""How good one predicted structure is: pure functions of two masks, with units in the name.

And tallies of probabilities, which need no mask: `Reliability` and `ErrorDetection`.
"""

from segshift.metrics.centreline import ClDice
from segshift.metrics.empty import value_if_empty
from segshift.metrics.false_alarm import FalseAlarm, FalseAlarmVolume, SelectionScore
from segshift.metrics.lesions import LesionF1, LesionFalsePositives, LesionSensitivity
from segshift.metrics.measure import Better, Measure, measure_of
from segshift.metrics.metric import Metric, check_metrics, measured_by
from segshift.metrics.overlap import Dice, IoU, Precision, Sensitivity
from segshift.metrics.pair import MaskPair
from segshift.metrics.reliability import Reliability, ReliabilityBin
from segshift.metrics.surface import (
    AverageSurfaceDistance,
    BoundaryIoU,
    BoundaryOffset,
    HausdorffDistance,
    HausdorffDistance95,
    SurfaceDice,
)
from segshift.metrics.uncertainty import ErrorDetection
from segshift.metrics.volume import RelativeVolumeDifference, VolumeDifference

__all__ = [
    "AverageSurfaceDistance",
    "Better",
    "BoundaryIoU",
    "BoundaryOffset",
    "ClDice",
    "Dice",
    "ErrorDetection",
    "FalseAlarm",
    "FalseAlarmVolume",
    "HausdorffDistance",
    "HausdorffDistance95",
    "IoU",
    "LesionF1",
    "LesionFalsePositives",
    "LesionSensitivity",
    "MaskPair",
    "Measure",
    "Metric",
    "Precision",
    "RelativeVolumeDifference",
    "Reliability",
    "ReliabilityBin",
    "SelectionScore",
    "Sensitivity",
    "SurfaceDice",
    "VolumeDifference",
    "check_metrics",
    "measure_of",
    "measured_by",
    "value_if_empty",
]
