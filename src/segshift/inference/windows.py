"""Where windows lie, what a network sees in them, and how much each of their voxels counts.

Positions are (z, y, x) on the plan's grid. In 2D and 2.5D a window is one slice deep.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.data.utils import compute_importance_map
from torch.nn import functional

from segshift.plan import View, box_slices

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
    starts: tuple[tuple[int, ...], ...]  # along each axis
    weight: torch.Tensor  # of a window's voxels (d, h, w)

    @property
    def corners(self) -> list[Corner]:
        """Where all windows begin, those of lower z first."""
        return [_corner(place) for place in itertools.product(*self.starts)]

    def seen(self, corner: Corner) -> torch.Tensor:
        """What the network gets at `corner`: (C, d, h, w), or (C (2 context + 1), h, w)."""
        (z, y, x), (depth, height, width) = corner, self.size
        column = self.image[:, :, y : y + height, x : x + width]
        if self.view.dimensions == 3:
            return column[:, z : z + depth]
        return slabs(column, self.view.context, slices=[z])[0]

    def part(self, corner: Corner, box: Sequence[tuple[int, int]]) -> tuple[slice, ...]:
        """The part of the window at `corner` that lies in a box of the padded image."""
        return tuple(
            slice(max(low - at, 0), min(high - at, edge))
            for at, edge, (low, high) in zip(corner, self.size, box, strict=True)
        )

    def share(self, corner: Corner) -> torch.Tensor:
        """What the window at `corner` adds to its voxels' means (d, h, w): with others' it is 1."""
        total = torch.zeros_like(self.weight)
        offsets = [
            [other - start for other in starts if abs(other - start) < edge]
            for start, starts, edge in zip(corner, self.starts, self.size, strict=True)
        ]
        for offset in itertools.product(*offsets):
            both = list(zip(offset, self.size, strict=True))
            here = box_slices([(max(n, 0), edge + min(n, 0)) for n, edge in both])
            there = box_slices([(max(-n, 0), edge - max(n, 0)) for n, edge in both])
            total[here] += self.weight[there]
        return self.weight / total


def windows_of(image: torch.Tensor, view: View, *, overlap: float) -> Windows:
    """Windows of the training patch's size, spread evenly, that overlap by at least `overlap`."""
    size = (*(1,) * (3 - view.dimensions), *view.patch)
    missing = [max(edge - n, 0) for edge, n in zip(size, image.shape[1:], strict=True)]
    before = [n // 2 for n in missing]
    if any(missing):
        sides = [(low, n - low) for low, n in zip(before, missing, strict=True)]
        image = functional.pad(image, [edge for side in reversed(sides) for edge in side])
    starts = tuple(
        tuple(window_starts(n, edge, overlap=overlap))
        for n, edge in zip(image.shape[1:], size, strict=True)
    )
    # Of the patch's own dimensions: clipped from below, it is no product over axes.
    weight = compute_importance_map(view.patch, mode="gaussian", device=image.device)
    return Windows(image, view, _corner(size), _corner(before), starts, weight.reshape(size))


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
