"""Where windows lie, what a network sees in them, and how much each of their voxels counts.

Positions are (z, y, x) on the plan's grid. In 2D and 2.5D a window is one slice deep.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.data.utils import compute_importance_map
from torch.nn import functional

from segshift.plan import View

Corner = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows of one image (C, D, H, W), which is padded where it is smaller than a window.

    The image lies in the middle of the padding, whose first edges are `before`.
    """

    image: torch.Tensor
    view: View
    size: Corner
    before: Corner
    corners: tuple[Corner, ...]  # those of lower z first
    weight: torch.Tensor  # of a window's voxels (d, h, w)

    def seen(self, corner: Corner) -> torch.Tensor:
        """What the network gets at `corner`: (C, d, h, w), or (C (2 context + 1), h, w)."""
        (z, y, x), (depth, height, width) = corner, self.size
        column = self.image[:, :, y : y + height, x : x + width]
        if self.view.dimensions == 3:
            return column[:, z : z + depth]
        return slabs(column, self.view.context, slices=[z])[0]


def windows_of(image: torch.Tensor, view: View, *, overlap: float) -> Windows:
    """Windows of the training patch's size, spread evenly, that overlap by at least `overlap`."""
    size = (*(1,) * (3 - view.dimensions), *view.patch)
    missing = [max(edge - n, 0) for edge, n in zip(size, image.shape[1:], strict=True)]
    before = [n // 2 for n in missing]
    if any(missing):
        sides = [(low, n - low) for low, n in zip(before, missing, strict=True)]
        image = functional.pad(image, [edge for side in reversed(sides) for edge in side])
    starts = [
        window_starts(n, edge, overlap=overlap)
        for n, edge in zip(image.shape[1:], size, strict=True)
    ]
    # Of the patch's own dimensions: clipped from below, it is no product over axes.
    weight = compute_importance_map(view.patch, mode="gaussian", device=image.device)
    corners = tuple((z, y, x) for z, y, x in itertools.product(*starts))
    z, y, x = before
    return Windows(image, view, _corner(size), (z, y, x), corners, weight.reshape(size))


def window_starts(length: int, edge: int, *, overlap: float) -> list[int]:
    """Where windows of `edge` start that cover `length`: evenly, as nnU-Net spreads them."""
    step = max(edge * (1 - overlap), 1)
    gaps = -int(-(length - edge) // step)  # rounded up
    return [round(i * (length - edge) / gaps) for i in range(gaps + 1)] if gaps else [0]


def slabs(
    image: torch.Tensor, context: int, *, slices: Sequence[int] | None = None
) -> torch.Tensor:
    """Slices of (C, D, H, W) with their neighbours as channels: (N, C (2 context + 1), H, W).

    Every slice, or the given ones. The channels of one image channel lie together; the end slices
    are repeated beyond the ends.
    """
    channels, depth, height, width = image.shape
    offsets = torch.arange(-context, context + 1, device=image.device)
    centres = torch.as_tensor(range(depth) if slices is None else slices, device=image.device)
    index = (centres[:, None] + offsets).clamp(0, depth - 1)
    slab = image[:, index]  # (C, N, 2 context + 1, H, W)
    return slab.transpose(0, 1).reshape(len(centres), channels * len(offsets), height, width)


def _corner(values: Sequence[int]) -> Corner:
    z, y, x = values
    return (z, y, x)
