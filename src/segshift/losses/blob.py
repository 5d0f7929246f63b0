"""Blob loss: every connected blob of a structure counts the same, however small it is."""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from segshift.losses.contract import (
    annotated_terms,
    foreground,
    full_precision,
    masked,
    one_hot,
    positive,
    probabilities,
    sample_mean,
    structure_mean,
    valid_voxels,
    weight_buffer,
    weight_for,
)


class BlobDice(nn.Module):
    """Mean over a structure's blobs of 1 - Dice, the other blobs' voxels left out of each.

    A blob is a connected component of the label, diagonals included; all share the structure's
    false positives (Kofler et al., IPMI 2023, with Dice inside). Weighted mean over foreground
    structures and samples; an absent structure counts as one blob of no voxels. Add it to a loss of
    the whole volume. logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar.
    """

    weight: Tensor | None

    def __init__(self, *, weight: Sequence[float] | None = None, smooth: float = 1e-5) -> None:
        """`smooth` is a fraction of the patch, as in Dice."""
        super().__init__()
        self.smooth = positive(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        target = foreground(one_hot(label, logits), label)
        probability = masked(foreground(probabilities(logits, label), label), valid)
        blob, owner = _blobs(target > 0)  # (B, C, *S) numbers from 1; (blobs,) place in B * C
        false = sample_mean(probability * (1 - target), valid).flatten()  # (B C,)
        share = 1 / _counted(target, valid)[owner]  # of a voxel in its patch
        hit = _sums(probability * target, blob, len(owner)) * share
        size = _sums(target, blob, len(owner)) * share
        miss = 1 - (2 * hit + self.smooth) / (hit + false[owner] + size + self.smooth)
        number = torch.zeros_like(false).index_add(0, owner, torch.ones_like(miss))
        mean = torch.zeros_like(false).index_add(0, owner, miss) / number.clamp(min=1)
        empty = 1 - self.smooth / (false + self.smooth)
        miss = torch.where(number > 0, mean, empty).view(target.shape[:2])
        return structure_mean(miss, weight, annotated_terms(valid))


def _blobs(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Number of each voxel's blob (B, C, *S), 0 for none, and each blob's place in B * C."""
    masks = mask.cpu().numpy()
    neighbours = np.zeros((3,) * masks.ndim)
    neighbours[1, 1] = 1  # diagonals too, but none in another sample or structure
    numbers, blobs = ndimage.label(masks, neighbours)
    inside, owner = np.flatnonzero(numbers), np.zeros(blobs, dtype=np.int64)
    owner[numbers.flat[inside] - 1] = inside // masks[0, 0].size
    return torch.from_numpy(numbers).to(mask.device), torch.from_numpy(owner).to(mask.device)


def _counted(target: Tensor, valid: Tensor | None) -> Tensor:
    """Voxels that are not ignored, (B C,)."""
    if valid is None:
        return target.new_full((target.shape[0] * target.shape[1],), target[0, 0].numel())
    return valid.expand_as(target).flatten(2).sum(2).flatten().clamp(min=1).to(target)


def _sums(values: Tensor, blob: Tensor, blobs: int) -> Tensor:
    """Sum of the values over each blob (blobs,); in float32 a large one would lose digits."""
    inside = blob.flatten().nonzero()[:, 0]
    total = values.new_zeros(blobs, dtype=torch.float64)
    total = total.index_add(0, blob.flatten()[inside] - 1, values.flatten()[inside].double())
    return total.to(values)
