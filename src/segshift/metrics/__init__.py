"""How good one predicted structure is: pure functions of two masks, with units in the name."""

from segshift.metrics.dice import Dice
from segshift.metrics.empty import value_if_empty
from segshift.metrics.hausdorff import HausdorffDistance95
from segshift.metrics.metric import Metric

__all__ = ["Dice", "HausdorffDistance95", "Metric", "value_if_empty"]
