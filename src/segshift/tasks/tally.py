"""What the probabilities of a case are worth, beside its masks: calibration and doubt."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from segshift.metrics import ErrorDetection, Measure, Reliability
from segshift.tasks.task import Score

TALLIED = (
    Measure("ece", "", "lower"),
    Measure("brier", "", "lower"),
    Measure("nll", "", "lower"),
    Measure("uncertainty_auroc", "", "higher"),
)
"""What is measured of probabilities instead of masks."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What the probabilities of one structure were worth over the voxels of a case."""

    reliability: Reliability
    detection: ErrorDetection

    def scores(self, structure: str, *, reference_empty: bool) -> Iterator[Score]:
        """As rows, with the names of TALLIED.

        Where all voxels are right none was wrong without a doubt: an AUROC of 1, and 0 where all
        are wrong. Leaving such a case out would be for the prediction to decide.
        """
        for metric in ("ece", "brier", "nll"):
            yield Score(structure, reference_empty, metric, getattr(self.reliability, metric))
        auroc = self.detection.auroc
        if math.isnan(auroc) and self.detection.voxels:
            auroc = 0.0 if self.detection.wrong else 1.0
        yield Score(structure, reference_empty, "uncertainty_auroc", auroc)
