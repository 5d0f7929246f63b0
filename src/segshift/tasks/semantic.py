"""Semantic segmentation: every voxel belongs to the background or to one structure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from segshift.metrics import Measure, Metric, measured_by
from segshift.tasks.task import Loss, Output, Score, deeply_supervised, scored, with_false_alarms


class Semantic:
    """Exclusive structures: softmax over background and structures, the strongest wins."""

    def __init__(self, *, structures: Sequence[str], metrics: Sequence[Metric]) -> None:
        self.structures, self.metrics = tuple(structures), with_false_alarms(metrics)

    @property
    def channels(self) -> int:
        """Background and one per structure."""
        return len(self.structures) + 1

    @property
    def measures(self) -> Mapping[str, Measure]:
        """What may be measured, by name: lengths and sizes in the units of any case."""
        return measured_by(self.metrics)

    def loss(self, loss: Loss, output: Output, batch: Mapping[str, Any]) -> torch.Tensor:
        """The loss on `label`, in deep supervision too."""
        return deeply_supervised(loss, output, batch["label"])

    def activation(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities: softmax over channels."""
        return output.softmax(dim=1)

    def decode(self, activated: torch.Tensor) -> np.ndarray:
        """Class indices uint8 (D, H, W)."""
        highest = activated.max(dim=0).indices  # argmax, which is many times slower on a CPU
        return highest.to(torch.uint8).cpu().numpy()

    def predicted(self, prediction: np.ndarray) -> Iterator[np.ndarray]:
        """Mask bool (*S) of each structure in a decoded prediction (*S)."""
        return (prediction == index for index in range(1, self.channels))

    def referred(self, reference: np.ndarray) -> Iterator[np.ndarray]:
        """Mask bool (*S) of each structure in class indices (*S)."""
        return self.predicted(reference)

    def drawn(self, reference: np.ndarray) -> np.ndarray:
        """Class indices (*S) as they are; what is ignored is no structure."""
        return reference

    def known(self, annotated: Sequence[bool]) -> list[bool]:
        """Those that are annotated themselves."""
        return list(annotated)

    def scores(
        self,
        prediction: np.ndarray,
        reference: np.ndarray,
        spacing_mm: Sequence[float] | None,
        *,
        annotated: Sequence[bool],
    ) -> Iterator[Score]:
        """Every metric of every annotated structure, each structure as a boolean mask."""
        return scored(self, self.metrics, prediction, reference, spacing_mm, annotated=annotated)
