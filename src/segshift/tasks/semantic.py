"""Semantic segmentation: every voxel belongs to the background or to one structure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from segshift.metrics import Metric
from segshift.tasks.task import Loss, Output, Score


class Semantic:
    """Exclusive structures: softmax over background and structures, the strongest wins."""

    def __init__(self, *, structures: Sequence[str], metrics: Sequence[Metric]) -> None:
        self.structures, self.metrics = tuple(structures), tuple(metrics)

    @property
    def channels(self) -> int:
        """Background and one per structure."""
        return len(self.structures) + 1

    @property
    def directions(self) -> Mapping[str, bool]:
        """Metric name to higher-is-better."""
        return {metric.name: metric.higher_is_better for metric in self.metrics}

    def loss(self, loss: Loss, output: Output, batch: Mapping[str, Any]) -> torch.Tensor:
        """The loss on `label`; deep supervision halves the weight with every coarser output."""
        label: torch.Tensor = batch["label"]
        if isinstance(output, torch.Tensor):
            return loss(output, label)
        weights = [0.5**level for level in range(len(output))]
        total = sum(
            weight * loss(logits, _nearest(label, logits.shape[2:]))
            for weight, logits in zip(weights, output, strict=True)
        )
        return torch.as_tensor(total) / sum(weights)

    def activation(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities: softmax over channels."""
        return output.softmax(dim=1)

    def decode(self, activated: torch.Tensor) -> np.ndarray:
        """Class indices uint8 (D, H, W)."""
        return activated.argmax(dim=0).to(torch.uint8).cpu().numpy()

    def scores(
        self, prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
    ) -> Iterator[Score]:
        """Every metric of every structure, each structure as a boolean mask."""
        for index, structure in enumerate(self.structures, start=1):
            predicted, referred = prediction == index, reference == index
            for metric in self.metrics:
                yield Score(structure, metric.name, metric(predicted, referred, spacing_mm))


def _nearest(label: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Class indices (B, 1, *S) at a coarser size; float32 holds every index exactly."""
    return functional.interpolate(label.float(), size=tuple(size)).long()
