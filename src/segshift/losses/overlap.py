"""Overlap of whole structures: soft Dice, its generalised form and its lopsided sister Tversky.

Volumes are means over voxels, not sums, so that `smooth` is a fraction of the patch and the value
does not depend on the patch's size. Where a structure is absent, its own term is smooth / (its
predicted volume + smooth): nearly 1 and flat, so false positives go unpunished. Only the
background's term then has a useful gradient, hence include_background is true by default; leave
the background out where another term, such as cross-entropy, takes care of absent structures.
The background of a region is its complement, with a term and the weight of the region.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from segshift.losses.contract import (
    foreground,
    full_precision,
    is_regions,
    masked,
    one_hot,
    positive,
    probabilities,
    structure_mean,
    valid_mean,
    valid_voxels,
    weight_buffer,
    weight_for,
)


class Dice(nn.Module):
    """1 - (2 |PG| + smooth) / (|P| + |G| + smooth), weighted mean over structures and samples.

    |.| is the mean over voxels of the probabilities P, the one-hot label G or their product
    (Milletari et al. 2016, linear denominator). logits (B, K, *S), label (B, 1, *S) or regions
    (B, K, *S) -> scalar. `batch_dice` takes volumes over the whole batch, as one big patch: calmer
    where most samples lack a structure.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        include_background: bool = True,
        weight: Sequence[float] | None = None,
        batch_dice: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        """`smooth` is a fraction of the patch, above 0: two empty masks agree."""
        super().__init__()
        self.include_background, self.batch_dice = include_background, batch_dice
        self.smooth = positive(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        v = volumes(logits, label, self.weight, self.include_background, self.batch_dice)
        dice = (2 * v.both + self.smooth) / (v.predicted + v.reference + self.smooth)
        return structure_mean(1 - dice, v.weight, v.annotated)


class GeneralisedDice(nn.Module):
    """1 - (2 sum_k w_k |PG| + smooth) / (sum_k w_k (|P| + |G|) + smooth), mean over samples.

    w_k is `weight` / |G_k|^2, so that each structure counts alike whatever its volume (Sudre et al.
    2017); their sum is 1, so that the scale of `weight` has no meaning here. An absent structure
    has the largest w_k of those present: 1 / 0 would leave nothing of the others. logits
    (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        include_background: bool = True,
        weight: Sequence[float] | None = None,
        batch_dice: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        """Options as in Dice."""
        super().__init__()
        self.include_background, self.batch_dice = include_background, batch_dice
        self.smooth = positive(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        v = volumes(logits, label, self.weight, self.include_background, self.batch_dice)
        weight = torch.ones_like(v.reference) if v.weight is None else v.weight
        if v.annotated is not None:
            weight = weight * v.annotated
        counted = (v.reference > 0) & (weight > 0)  # a silenced structure does not set the scale
        importance = torch.where(counted, v.reference, torch.inf).square().reciprocal()
        largest = importance.amax(-1, keepdim=True)
        largest = torch.where(largest > 0, largest, 1.0)  # not one structure is present
        importance = torch.where(counted, importance, largest) * weight
        importance = importance / importance.sum(-1, keepdim=True).clamp(min=1e-30)
        both = (importance * v.both).sum(-1)
        total = (importance * (v.predicted + v.reference)).sum(-1)
        ratio = (2 * both + self.smooth) / (total + self.smooth)
        return valid_mean(1 - ratio, None if v.annotated is None else v.annotated.any(-1))


class Tversky(nn.Module):
    """((fp * FP + fn * FN) / (TP + fp * FP + fn * FN + smooth))^(1 / gamma), mean as in Dice.

    TP, FP and FN are mean volumes of the probabilities (Salehi et al. 2017: fp 0.3 and fn 0.7 did
    best on small lesions, their alpha and beta). fp = fn = 0.5 is Dice with twice the smooth. A
    gamma above 1 is focal Tversky: structures that are nearly right count more (Abraham and Khan
    2019: 4/3). logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        fp: float = 0.3,
        fn: float = 0.7,
        gamma: float = 1.0,
        include_background: bool = True,
        weight: Sequence[float] | None = None,
        batch_dice: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        """`fp` and `fn` weigh false positives and false negatives; they and `gamma` above 0."""
        super().__init__()
        self.fp, self.fn, self.gamma = positive(fp=fp), positive(fn=fn), positive(gamma=gamma)
        self.include_background, self.batch_dice = include_background, batch_dice
        self.smooth = positive(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        v = volumes(logits, label, self.weight, self.include_background, self.batch_dice)
        miss = tversky_miss(v, fp=self.fp, fn=self.fn, smooth=self.smooth)
        if self.gamma != 1:
            miss = power(miss, 1 / self.gamma)
        return structure_mean(miss, v.weight, v.annotated)


class Volumes(NamedTuple):
    """Mean volumes (B, C), or (C,) over the batch, of C structures; `weight` (C,) is theirs.

    `annotated` (B, 1 or C), or (1 or C,), is whether anybody annotated a voxel of it; None: all.
    """

    both: Tensor
    predicted: Tensor
    reference: Tensor
    weight: Tensor | None
    annotated: Tensor | None


def volumes(
    logits: Tensor,
    label: Tensor,
    weight: Tensor | None,
    include_background: bool,
    batch_dice: bool,
) -> Volumes:
    """Volumes of overlap, prediction and reference as fractions of the voxels that count."""
    weight, valid = weight_for(weight, logits), valid_voxels(label)
    probability, target = masked(probabilities(logits, label), valid), one_hot(label, logits)
    if not include_background:
        probability, target = foreground(probability, label), foreground(target, label)
        weight = weight if weight is None else weight[-target.shape[1] :]
    probability, target = probability.flatten(2), target.flatten(2)  # (B, C, voxels)
    axes = (0, 2) if batch_dice else (2,)
    both, predicted, reference = (v.sum(axes) for v in (probability * target, probability, target))
    # Divided after the sum: the gradient of a mean would be one more pass over the voxels.
    count: int | Tensor = math.prod(target.shape[axis] for axis in axes)
    annotated = None
    if valid is not None:
        count = valid.flatten(2).sum(axes)
        count, annotated = count.clamp(min=1), count > 0
    both, predicted, reference = both / count, predicted / count, reference / count
    if is_regions(label) and include_background:
        # The complements' volumes follow from the regions', without a pass over the voxels.
        both = torch.cat([1 - predicted - reference + both, both], -1)
        predicted, reference = (torch.cat([1 - v, v], -1) for v in (predicted, reference))
        weight, annotated = (v if v is None else torch.cat([v, v], -1) for v in (weight, annotated))
    return Volumes(both, predicted, reference, weight, annotated)


def tversky_miss(v: Volumes, *, fp: float, fn: float, smooth: float) -> Tensor:
    """1 - Tversky index of each structure, in the shape of the volumes."""
    wrong = fp * (v.predicted - v.both) + fn * (v.reference - v.both)
    return wrong / (v.both + wrong + smooth)


def power(miss: Tensor, exponent: float) -> Tensor:
    """miss^exponent for values from 0; the floor keeps the slope finite at 0 below exponent 1."""
    return miss.clamp(min=torch.finfo(miss.dtype).tiny) ** exponent
