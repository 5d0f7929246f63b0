"""The interface of a task: everything that depends on what the output means lies behind it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from segshift.losses import IGNORE
from segshift.metrics import (
    FalseAlarm,
    FalseAlarmVolume,
    MaskPair,
    Measure,
    Metric,
    check_metrics,
    measure_of,
)

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Output = torch.Tensor | Sequence[torch.Tensor]


class Score(NamedTuple):
    """One measured number of one case; `reference_empty`: the structure is not in the reference."""

    structure: str
    reference_empty: bool
    metric: str
    value: float


class Task(Protocol):
    """A module, an inference or a callback needs no more of a task than this."""

    @property
    def structures(self) -> Sequence[str]:
        """The names that rows and pictures show, in the order of the masks."""
        ...

    @property
    def channels(self) -> int:
        """How many channels the network must put out."""
        ...

    @property
    def measures(self) -> Mapping[str, Measure]:
        """What may be measured, by name: lengths and sizes in the units of any case.

        Pages and tables are about the first of those that were measured.
        """
        ...

    def loss(self, loss: Loss, output: Output, batch: Mapping[str, Any]) -> torch.Tensor:
        """Scalar loss of the network's output on the targets that the task makes of the batch."""
        ...

    def activation(self, output: torch.Tensor) -> torch.Tensor:
        """What may be averaged over windows, mirrors and models: (B, channels, *S) to the same."""
        ...

    def decode(self, activated: torch.Tensor) -> np.ndarray:
        """The prediction, integers (D, H, W), from (channels, D, H, W); 0 where nothing is."""
        ...

    def predicted(self, prediction: np.ndarray) -> Iterator[np.ndarray]:
        """Mask bool (*S) of each structure in turn, of a decoded prediction (*S)."""
        ...

    def referred(self, reference: np.ndarray) -> Iterator[np.ndarray]:
        """Mask bool (*S) of each structure, of a case's class indices (*S); ignored is in none."""
        ...

    def drawn(self, reference: np.ndarray) -> np.ndarray:
        """Somebody's class indices (*S) as `decode` would give them."""
        ...

    def known(self, annotated: Sequence[bool]) -> list[bool]:
        """Whether each mask can be judged in a case whose structures are partly `annotated`."""
        ...

    def scores(
        self,
        prediction: np.ndarray,
        reference: np.ndarray,
        spacing_mm: Sequence[float] | None,
        *,
        annotated: Sequence[bool],
    ) -> Iterator[Score]:
        """Every metric of every structure of one case whose structures are partly `annotated`.

        Without a spacing all is measured in pixels.
        """
        ...


def deeply_supervised(loss: Loss, output: Output, label: torch.Tensor) -> torch.Tensor:
    """`loss` on class indices (B, 1, *S); every coarser output has half the weight of the last.

    It is the weighted mean over the outputs under which somebody annotated a voxel; 0 if none. Of a
    sparse label the few voxels under a coarse output may all be ignored, and it would look perfect.
    """
    if isinstance(output, torch.Tensor):
        return loss(output, label)
    labels = [_strided(label, logits.shape[2:]) for logits in output]
    weights = torch.stack([0.5**n * (one != IGNORE).any() for n, one in enumerate(labels)])
    losses = torch.stack([loss(*pair) for pair in zip(output, labels, strict=True)])
    return (weights * losses).sum() / weights.sum().clamp(min=0.5 ** len(labels))


def scored(
    task: Task,
    metrics: Sequence[Metric],
    prediction: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float] | None,
    *,
    annotated: Sequence[bool],
) -> Iterator[Score]:
    """Every metric of every annotated mask; ignored voxels are in none, whatever is predicted."""
    counted = reference != IGNORE
    masks = task.predicted(prediction), task.referred(reference), annotated
    for structure, predicted, referred, known in zip(task.structures, *masks, strict=True):
        if known:
            pair = MaskPair(predicted & counted, referred, spacing_mm)
            for metric in metrics:
                name = measure_of(metric, pair.units).name
                yield Score(structure, pair.ref_voxels == 0, name, metric.of(pair))


def with_false_alarms(metrics: Sequence[Metric]) -> tuple[Metric, ...]:
    """The metrics, and what is of the cases without a structure, so that no case is unjudged.

    Raises InputError as `check_metrics` does.
    """
    check_metrics(metrics)
    names = {measure_of(metric).name for metric in metrics}
    more: tuple[Metric, ...] = (FalseAlarm(), FalseAlarmVolume())
    return (*metrics, *(metric for metric in more if measure_of(metric).name not in names))


def _strided(label: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """Class indices (B, 1, *S) at a coarser `size`: the first voxel under each coarse one.

    A network pools by powers of two and rounds up, so the stride is the first of them that fits;
    interpolation to `size` would drift away from the coarse voxels where it does not divide.
    """
    for axis, edge in enumerate(size, start=2):
        stride = 1
        while -(-label.shape[axis] // stride) > edge:
            stride *= 2
        label = label[(slice(None),) * axis + (slice(None, None, stride),)]
    return label
