"""Losses: `loss(logits, label) -> scalar`, raw logits and class indices in; see `contract`."""

from segshift.losses.boundary import Boundary
from segshift.losses.cross_entropy import BCE, CrossEntropy, inverse_frequency, weighted_bce
from segshift.losses.distance import signed_distance_mm
from segshift.losses.focal import Focal
from segshift.losses.overlap import Dice, Tversky
from segshift.losses.weighted_sum import WeightedSum

__all__ = [
    "BCE",
    "Boundary",
    "CrossEntropy",
    "Dice",
    "Focal",
    "Tversky",
    "WeightedSum",
    "inverse_frequency",
    "signed_distance_mm",
    "weighted_bce",
]
