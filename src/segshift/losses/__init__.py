"""Losses: `loss(logits, label) -> scalar`, raw logits and class indices in; see `contract`."""

from segshift.losses.blob import BlobDice
from segshift.losses.boundary import Boundary, GeneralisedSurface, HausdorffDT
from segshift.losses.calibration import NACL
from segshift.losses.centreline import ClDice, SkeletonRecall
from segshift.losses.contract import IGNORE
from segshift.losses.cross_entropy import (
    BCE,
    CrossEntropy,
    TopK,
    WeightedBCE,
    inverse_frequency,
)
from segshift.losses.distance import signed_distance_mm
from segshift.losses.focal import Focal, SigmoidFocal
from segshift.losses.overlap import Dice, GeneralisedDice, Tversky
from segshift.losses.unified_focal import UnifiedFocal
from segshift.losses.weighted_sum import Scheduled, WeightedSum

__all__ = [
    "BCE",
    "IGNORE",
    "NACL",
    "BlobDice",
    "Boundary",
    "ClDice",
    "CrossEntropy",
    "Dice",
    "Focal",
    "GeneralisedDice",
    "GeneralisedSurface",
    "HausdorffDT",
    "Scheduled",
    "SigmoidFocal",
    "SkeletonRecall",
    "TopK",
    "Tversky",
    "UnifiedFocal",
    "WeightedBCE",
    "WeightedSum",
    "inverse_frequency",
    "signed_distance_mm",
]
