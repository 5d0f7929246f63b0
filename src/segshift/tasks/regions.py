"""Regions: structures that may lie within or across each other, each yes or no at every voxel."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from segshift.errors import InputError
from segshift.losses import IGNORE
from segshift.metrics import Metric
from segshift.tasks.task import Loss, Output, Score, deeply_supervised, scored


class Regions:
    """Overlapping unions of the label's structures: a sigmoid each, present where it is over 0.5.

    `regions` maps a name to the structures that make it up: {organ: [kidney, lesion], lesion:
    [lesion]}. A prediction is a set of bits, the first region's the lowest.
    """

    def __init__(
        self,
        *,
        structures: Sequence[str],
        regions: Mapping[str, Sequence[str]],
        metrics: Sequence[Metric],
    ) -> None:
        unknown = sorted({s for parts in regions.values() for s in parts} - set(structures))
        if not regions or unknown or not all(regions.values()):
            raise InputError(
                f"task.regions={dict(regions)}: each region is a list of structures out of "
                f"{list(structures)}"
            )
        self.structures, self.metrics = tuple(regions), tuple(metrics)
        # table[r, 1 + s]: whether structure s belongs to region r; column 0 is the background.
        self.table = torch.tensor(
            [[False, *(s in parts for s in structures)] for parts in regions.values()]
        )

    @property
    def channels(self) -> int:
        """One per region; what is in none of them is background."""
        return len(self.structures)

    @property
    def directions(self) -> Mapping[str, bool]:
        """Metric name to higher-is-better."""
        return {metric.name: metric.higher_is_better for metric in self.metrics}

    def loss(self, loss: Loss, output: Output, batch: Mapping[str, Any]) -> torch.Tensor:
        """The loss on the regions of `label`, in deep supervision too."""
        return deeply_supervised(
            lambda logits, label: loss(logits, self._masks(label)), output, batch["label"]
        )

    def activation(self, output: torch.Tensor) -> torch.Tensor:
        """Probabilities: one sigmoid per channel."""
        return output.sigmoid()

    def decode(self, activated: torch.Tensor) -> np.ndarray:
        """Bits int64 (D, H, W): bit r is set where region r is."""
        bits = 2 ** torch.arange(len(activated), device=activated.device)
        held = activated > 0.5
        total = (held * bits.view(-1, *[1] * (activated.ndim - 1))).sum(0)
        return np.asarray(total.cpu().numpy())

    def predicted(self, prediction: np.ndarray) -> Iterator[np.ndarray]:
        """Mask bool (*S) of each region in a decoded prediction (*S)."""
        return ((prediction >> region & 1).astype(bool) for region in range(self.channels))

    def referred(self, reference: np.ndarray) -> Iterator[np.ndarray]:
        """Mask bool (*S) of each region in class indices (*S)."""
        known = reference != IGNORE
        return (row[np.maximum(reference, 0)] & known for row in self.table.numpy())

    def scores(
        self, prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
    ) -> Iterator[Score]:
        """Every metric of every region, each region as a boolean mask."""
        return scored(self, self.metrics, prediction, reference, spacing_mm)

    def _masks(self, label: torch.Tensor) -> torch.Tensor:
        """int8 (B, regions, *S) of class indices (B, 1, *S); ignored stays ignored."""
        table = self.table.to(label.device)
        masks = table[:, label[:, 0].clamp(min=0)].transpose(0, 1).to(torch.int8)
        return masks.masked_fill_(label == IGNORE, IGNORE)
