"""Regions: structures that may lie within or across each other, each yes or no at every voxel."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from segshift.errors import InputError
from segshift.losses import IGNORE
from segshift.metrics import Measure, Metric, measured_by
from segshift.tasks.task import Loss, Output, Score, deeply_supervised, scored, with_false_alarms


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
        if (
            not isinstance(regions, Mapping)
            or not regions
            or not all(
                isinstance(parts, list | tuple)
                and parts
                and set(map(str, parts)) <= set(structures)
                for parts in regions.values()
            )
        ):
            raise InputError(
                f"task.regions={regions}: a mapping of names to lists of structures out of "
                f"{list(structures)}"
            )
        self.structures, self.metrics = tuple(regions), with_false_alarms(metrics)
        # The class indices of each region; plain numbers, which need no copy to a device.
        self.parts = tuple(
            tuple(1 + structures.index(part) for part in parts) for parts in regions.values()
        )

    @property
    def channels(self) -> int:
        """One per region; what is in none of them is background."""
        return len(self.structures)

    @property
    def measures(self) -> Mapping[str, Measure]:
        """What may be measured, by name: lengths and sizes in the units of any case."""
        return measured_by(self.metrics)

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
        total = torch.zeros(activated.shape[1:], dtype=torch.int64, device=activated.device)
        for region, probability in enumerate(activated):
            total += (probability > 0.5).long() << region
        return total.cpu().numpy()

    def predicted(self, prediction: np.ndarray) -> Iterator[np.ndarray]:
        """Mask bool (*S) of each region in a decoded prediction (*S)."""
        return ((prediction >> region & 1).astype(bool) for region in range(self.channels))

    def referred(self, reference: np.ndarray) -> Iterator[np.ndarray]:
        """Mask bool (*S) of each region in class indices (*S)."""
        return (np.isin(reference, parts) for parts in self.parts)

    def drawn(self, reference: np.ndarray) -> np.ndarray:
        """Class indices (*S) as bits int64 (*S)."""
        total = np.zeros(reference.shape, dtype=np.int64)
        for region, mask in enumerate(self.referred(reference)):
            total |= mask.astype(np.int64) << region
        return total

    def known(self, annotated: Sequence[bool]) -> list[bool]:
        """Regions whose structures are all annotated."""
        return [all(annotated[index - 1] for index in parts) for parts in self.parts]

    def scores(
        self,
        prediction: np.ndarray,
        reference: np.ndarray,
        spacing_mm: Sequence[float] | None,
        *,
        annotated: Sequence[bool],
    ) -> Iterator[Score]:
        """Every metric of every region, as a boolean mask, whose structures are all annotated."""
        known = self.known(annotated)
        return scored(self, self.metrics, prediction, reference, spacing_mm, annotated=known)

    def _masks(self, label: torch.Tensor) -> torch.Tensor:
        """int8 (B, regions, *S) of class indices (B, 1, *S); ignored stays ignored."""
        unions = [sum(label == index for index in parts) for parts in self.parts]
        masks = torch.cat([torch.as_tensor(union) for union in unions], 1).to(torch.int8)
        return masks.masked_fill_(label == IGNORE, IGNORE)
