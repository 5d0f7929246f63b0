"""Training patches: sample number in, one patch out; all randomness is hash(seed, sample).

MONAI's random transforms under torch's own DataLoader give every worker and every epoch the same
stream. Here a worker has no stream: what sample 1234 is depends on nothing but the seed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from segshift.cohort.checks import IGNORED
from segshift.data.prefetch import prefetch
from segshift.data.sampling import CaseOrder, case_order
from segshift.data.stored import StoredCase
from segshift.losses import IGNORE
from segshift.plan import View
from segshift.seeds import generator


@dataclass(frozen=True, slots=True)
class PatchDataset(Dataset[dict[str, Any]]):
    """Maps a sample number to `image` float32 (C', *patch), `label` int64 (1, *patch) and names.

    `foreground_share` of the samples are centred on a voxel of a structure drawn at random among
    those present in the case; `balance` says how often a case's turn comes (`case_order`).
    """

    cases: Sequence[StoredCase]
    view: View
    foreground_share: float
    seed: int
    balance: str = "none"
    order: CaseOrder = field(init=False)

    def __post_init__(self) -> None:
        order = case_order(self.cases, balance=self.balance, seed=self.seed)
        object.__setattr__(self, "order", order)

    def __getitem__(self, sample: int) -> dict[str, Any]:
        """Read one patch; only its own bytes are touched."""
        stored = self.cases[self.order(sample)]
        random = generator(self.seed, "patch", sample)
        image, label = stored.image(), stored.label()
        window = (*(1,) * (3 - self.view.dimensions), *self.view.patch)
        start = _corner(random, stored, label.shape, window, self.foreground_share)
        patch = cut(image, start, window, context=self.view.context)
        target = cut(label[None], start, window, context=0)
        if self.view.dimensions == 2:
            patch, target = patch.reshape(-1, *window[1:]), target[:, 0]
        return {
            "image": torch.from_numpy(patch),
            "label": class_indices(target),
            "case": stored.case.id,
            "site": stored.case.site,
            "sample": sample,
        }


def class_indices(label: np.ndarray) -> torch.Tensor:
    """A stored label uint8 as int64, what nobody decided on as the losses' IGNORE."""
    indices = label.astype(np.int64)
    indices[label == IGNORED] = IGNORE  # six times as fast as torch's masked_fill_
    return torch.from_numpy(indices)


def cut(
    array: np.ndarray, start: Sequence[int], window: Sequence[int], *, context: int
) -> np.ndarray:
    """Copy a window (d, h, w) from `start` out of (C, D, H, W); outside is zero.

    With `context` the window is one slice deep and comes with its neighbours, (C, 2 context + 1,
    h, w); at the volume's ends the last slice is repeated.
    """
    channels, *shape = array.shape
    low = [max(s, 0) for s in start]
    high = [min(s + w, n) for s, w, n in zip(start, window, shape, strict=True)]
    inside = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    target = [slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True)]
    prefetch(array, low, high)
    if context:
        slices = np.clip(np.arange(start[0] - context, start[0] + context + 1), 0, shape[0] - 1)
        result = np.zeros((channels, len(slices), *window[1:]), array.dtype)
        result[:, :, target[1], target[2]] = array[:, slices, inside[1], inside[2]]
        return result
    result = np.zeros((channels, *window), array.dtype)
    result[(slice(None), *target)] = array[(slice(None), *inside)]
    return result


def _corner(
    random: np.random.Generator,
    stored: StoredCase,
    shape: Sequence[int],
    window: Sequence[int],
    foreground_share: float,
) -> list[int]:
    """The window's first voxel: anywhere, or such that a structure's voxel is near its middle."""
    # A volume smaller than the window is centred in it: the corner is then negative and fixed.
    slack = np.array(shape) - np.array(window)
    low, high = np.minimum(slack // 2, 0), np.maximum(slack, slack // 2)
    low = np.where(slack >= 0, 0, low)
    if random.random() < foreground_share:
        landmarks = stored.landmarks()
        if len(landmarks):
            structure = random.choice(np.unique(landmarks[:, 0]))
            centre = random.choice(landmarks[landmarks[:, 0] == structure])[1:]
            return [int(n) for n in np.clip(centre - np.array(window) // 2, low, high)]
    return [int(n) for n in random.integers(low, high, endpoint=True)]
