"""Losses of distance: a wrong voxel costs the more, the farther it lies from the boundary.

The distances come from the label of the batch, so they are right after any augmentation, in mm,
and are counted as fractions of the patch's diagonal, so that patches and voxels of any size give
values of one scale. Add these losses to a Dice in a WeightedSum: alone they hardly tell a small
structure from none at all, and Boundary collapses.

A coarser output of deep supervision is measured with the spacing of the finest. Where the strides
are the same along all axes the fractions are right, up to a voxel; else an axis that was pooled
less counts as longer than it is.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from segshift.errors import InputError
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
from segshift.losses.distance import signed_distance_mm


class Boundary(nn.Module):
    """Mean over voxels and foreground structures k of weight[k] * p_k * phi_k (Kervadec 2021).

    phi_k is the signed distance to the boundary of structure k, negative inside, as a fraction of
    the patch's diagonal: -1 to 1. The value can be negative. logits (B, K, *S), label (B, 1, *S) or
    regions (B, K, *S) -> scalar. MONAI's BoundaryLoss counts in voxels, takes one 0-1 channel a
    structure and gives an absent structure no signal; here its false positives cost 1 each.
    """

    weight: Tensor | None

    def __init__(
        self, *, spacing_mm: Sequence[float], weight: Sequence[float] | None = None
    ) -> None:
        """`spacing_mm` is (z, y, x); a 2D patch uses the last two."""
        super().__init__()
        self.spacing_mm = _spacing(spacing_mm)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        true = foreground(one_hot(label, logits), label) > 0
        probability = foreground(probabilities(logits, label), label)
        cost = sample_mean(probability * _phi(true, self.spacing_mm), valid)
        return structure_mean(cost, weight, annotated_terms(valid))


class GeneralisedSurface(nn.Module):
    """1 - sum_i (phi (1 - (g + p)))^2 / sum_i phi^2, weighted mean over structures and samples.

    In 0 to 1: the label g and the probability p agree where 1 - (g + p) is 1 or -1 (Celaya et al.
    2023). A ratio for each foreground structure is what the authors' MIST has today. Their paper
    has one ratio of sums over all structures and the background, each times w_k, the share of 1 /
    N_k in the sum of all 1 / N, with N_k the voxels of structure k in the training cases. But phi^2
    sums to no less for a small structure than for a large one, so that these weights leave little
    of the large one, and regions have no such shares. logits (B, K, *S), label (B, 1, *S) or
    regions (B, K, *S) -> scalar; phi as in Boundary.
    """

    weight: Tensor | None

    def __init__(
        self, *, spacing_mm: Sequence[float], weight: Sequence[float] | None = None
    ) -> None:
        """`spacing_mm` is (z, y, x); a 2D patch uses the last two."""
        super().__init__()
        self.spacing_mm = _spacing(spacing_mm)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        target = foreground(one_hot(label, logits), label)
        probability = foreground(probabilities(logits, label), label)
        importance = masked(_phi(target > 0, self.spacing_mm).to(logits).square_(), valid)
        agreed = (importance * (1 - target - probability).square()).flatten(2).sum(2)
        total = importance.flatten(2).sum(2)
        # phi is never 0, so the sum is 0 only where all of a sample is ignored.
        missed = (total - agreed) / total.clamp(min=1e-30)
        return structure_mean(missed, weight, annotated_terms(valid))


class HausdorffDT(nn.Module):
    """Mean of (p - g)^2 * (|phi_g|^alpha + |phi_p|^alpha) over voxels, structures and samples.

    phi_g is the signed distance to the label's boundary, phi_p that to the boundary of p > 0.5,
    through which no gradient flows, 0 if there is none; both as fractions of the patch's diagonal
    (Karimi and Salcudean 2020, in voxels). logits (B, K, *S), label (B, 1, *S) or regions
    (B, K, *S) -> scalar. MONAI's is 0 for an absent structure as long as p < 0.5, and knows no
    spacing.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        spacing_mm: Sequence[float],
        alpha: float = 2.0,
        weight: Sequence[float] | None = None,
    ) -> None:
        """`spacing_mm` is (z, y, x); the higher `alpha`, the more the farthest voxels count."""
        super().__init__()
        self.spacing_mm, self.alpha = _spacing(spacing_mm), positive(alpha=alpha)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        target = foreground(one_hot(label, logits), label)
        probability = foreground(probabilities(logits, label), label)
        found = masked(probability, valid) > 0.5
        far = _phi(target > 0, self.spacing_mm).abs_().pow_(self.alpha)
        far += _phi(found, self.spacing_mm, absent=0.0).abs_().pow_(self.alpha)
        cost = sample_mean((probability - target).square() * far, valid)
        return structure_mean(cost, weight, annotated_terms(valid))


def _phi(mask: Tensor, spacing_mm: tuple[float, ...], *, absent: float = 1.0) -> Tensor:
    """Signed distance of a bool mask (B, K, *S) as a fraction of the patch's diagonal: -1 to 1.

    Where there is no boundary it is `absent`, negative if the mask is full. No distance in a patch
    exceeds its diagonal, so at 1 the false positives of an absent structure cost more than any near
    a boundary, at a bounded price.
    """
    size = mask.shape[2:]
    spacing_mm = spacing_mm[-len(size) :]
    diagonal_mm = math.hypot(*(n * s for n, s in zip(size, spacing_mm, strict=True)))
    phi = signed_distance_mm(mask, spacing_mm).div_(diagonal_mm)
    return phi.nan_to_num_(posinf=absent, neginf=-absent)


def _spacing(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    spacing = tuple(float(value) for value in spacing_mm)
    if len(spacing) != 3 or not all(0 < value < math.inf for value in spacing):
        raise InputError(f"spacing_mm must be 3 lengths z, y, x above 0, got {spacing}")
    return spacing
