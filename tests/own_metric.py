"""A metric as another package would bring it: lower is better, and no name of ours says so."""

from dataclasses import dataclass
from typing import ClassVar

from segshift.metrics import Better, MaskPair, Metric


@dataclass(frozen=True, slots=True)
class FalsePositiveRate(Metric):
    """The share of the voxels outside the reference that are predicted."""

    name: ClassVar[str] = "false_positive_rate"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "lower"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair; every case has voxels outside."""
        outside = pair.ref.size - pair.ref_voxels
        return (pair.pred_voxels - pair.overlap_voxels) / outside


@dataclass(frozen=True, slots=True)
class Undeclared(Metric):
    """It forgets to say which end is better."""

    name: ClassVar[str] = "undeclared"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        return 0.0
