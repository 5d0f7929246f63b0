"""The interface of a task: everything that depends on what the output means lies behind it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Output = torch.Tensor | Sequence[torch.Tensor]


class Score(NamedTuple):
    """One measured number of one case."""

    structure: str
    metric: str
    value: float


class Task(Protocol):
    """A module, an inference or a callback needs no more of a task than this."""

    structures: Sequence[str]

    @property
    def channels(self) -> int:
        """How many channels the network must put out."""
        ...

    @property
    def directions(self) -> Mapping[str, bool]:
        """Each metric's name and whether higher is better; the first one chooses checkpoints."""
        ...

    def loss(self, loss: Loss, output: Output, batch: Mapping[str, Any]) -> torch.Tensor:
        """Scalar loss of the network's output on the targets that the task makes of the batch."""
        ...

    def activation(self, output: torch.Tensor) -> torch.Tensor:
        """What may be averaged over windows, mirrors and models: (B, channels, *S) to the same."""
        ...

    def decode(self, activated: torch.Tensor) -> np.ndarray:
        """The prediction, integers (D, H, W), from (channels, D, H, W)."""
        ...

    def scores(
        self, prediction: np.ndarray, reference: np.ndarray, spacing_mm: tuple[float, ...]
    ) -> Iterator[Score]:
        """Every metric of every structure of one case."""
        ...
