"""Boundary loss: a wrong voxel costs the more, the farther it lies from the reference boundary.

The distances come from the label of the batch, so they are right after any augmentation. Alone the
loss collapses (an empty prediction is worth 0, close to its best value), and it can be negative:
add it to a Dice in a WeightedSum.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from segshift.errors import InputError
from segshift.losses.contract import (
    full_precision,
    one_hot,
    structure_mean,
    weight_buffer,
    weight_for,
)
from segshift.losses.distance import signed_distance_mm


class Boundary(nn.Module):
    """Mean over voxels and foreground structures k of weight[k] * p_k * phi_k, p the softmax.

    phi_k is the signed distance to the boundary of structure k, negative inside, as a fraction of
    the patch's diagonal: -1 to 1 for any patch and voxel size (Kervadec et al., MedIA 2021, without
    that scale). logits (B, K, *S), label (B, 1, *S) -> scalar.

    A coarser output of deep supervision is measured with the spacing of the finest. Where the
    strides are the same along all axes the fractions are right, up to a voxel; else an axis that
    was pooled less counts as longer than it is.
    """

    weight: Tensor | None

    def __init__(
        self, *, spacing_mm: Sequence[float], weight: Sequence[float] | None = None
    ) -> None:
        """`spacing_mm` is (z, y, x); a 2D patch uses the last two."""
        super().__init__()
        self.spacing_mm = tuple(float(spacing) for spacing in spacing_mm)
        if len(self.spacing_mm) != 3 or not all(0 < s < math.inf for s in self.spacing_mm):
            raise InputError(f"spacing_mm must be 3 lengths z, y, x above 0, got {self.spacing_mm}")
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight = weight_for(self.weight, logits)
        size = logits.shape[2:]
        spacing_mm = self.spacing_mm[-len(size) :]
        diagonal_mm = math.hypot(*(n * s for n, s in zip(size, spacing_mm, strict=True)))
        foreground = one_hot(label, logits)[:, 1:] > 0
        # No distance in a patch exceeds its diagonal, so the infinite one of an absent structure
        # becomes 1: its false positives cost more than any near a boundary, at a bounded price.
        phi = (signed_distance_mm(foreground, spacing_mm) / diagonal_mm).clamp(-1, 1)
        return structure_mean((logits.softmax(1)[:, 1:] * phi).flatten(2).mean(2), weight)
