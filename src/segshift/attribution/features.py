"""What a network's first filters see around the structures that it predicts.

The first convolution looks at a few voxels, so its answers tell of contrast, noise and sharpness.
Deeper layers look further: they see the lesions beside a voxel, and would take other patients for
another scanner.
"""

from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from segshift.attribution.appearance import FAR_VOXELS
from segshift.tasks import Task

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


class FilterAnswers:
    """While it is entered, sums up the sizes of the first filters' answers in every window.

    Only over voxels at least FAR_VOXELS away from all structures that the window's prediction
    shows: no more than of the image, it is a function of what the network makes of the image.
    """

    def __init__(self, network: nn.Module, task: Task) -> None:
        self._network, self._task = network, task
        self._handles: list[Any] = []
        self._answers: torch.Tensor | None = None
        self._sums: np.ndarray = np.zeros(1)
        self._voxels = 0.0

    def __enter__(self) -> Self:
        convolutions = [m for m in self._network.modules() if isinstance(m, CONVOLUTIONS)]
        self._handles = [
            self._network.register_forward_pre_hook(self._begin),
            *(module.register_forward_hook(self._see) for module in convolutions),
            self._network.register_forward_hook(self._pool),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def taken(self) -> np.ndarray:
        """Mean sizes (filters,) in the windows since the last time; NaN without such a voxel."""
        means = self._sums / self._voxels if self._voxels else np.full_like(self._sums, np.nan)
        self._sums, self._voxels = np.zeros_like(self._sums), 0.0
        return means

    def _begin(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._answers = None

    def _see(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        if self._answers is None:
            self._answers = output

    def _pool(
        self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> None:
        if self._answers is None:
            return
        decoded = (self._task.decode(each) for each in self._task.activation(output.float()))
        masks = np.stack([np.logical_or.reduce([*self._task.predicted(d)]) for d in decoded])
        places = _surroundings(torch.from_numpy(masks).to(output.device))
        size = self._answers.shape[2:]
        if places.shape[2:] != size:
            places = functional.interpolate(places, size=size, mode="nearest")
        across = [0, *range(2, places.ndim)]
        self._sums = self._sums + (self._answers.float().abs() * places).sum(across).cpu().numpy()
        self._voxels += float(places.sum())


def _surroundings(masks: torch.Tensor) -> torch.Tensor:
    """1.0 far from every True voxel of masks (B, *S), else 0.0, as (B, 1, *S)."""
    pool = functional.max_pool2d if masks.ndim == 3 else functional.max_pool3d
    edge = 2 * FAR_VOXELS + 1
    return 1 - pool(masks[:, None].float(), edge, stride=1, padding=FAR_VOXELS)
