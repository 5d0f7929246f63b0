"""Overlap of whole structures: soft Dice and its lopsided sister Tversky, on softmax probabilities.

Volumes are means over voxels, not sums, so that `smooth` is a fraction of the patch and the value
does not depend on the patch's size. Where a structure is absent, its own term is smooth / (its
predicted volume + smooth): nearly 1 and flat, so false positives go unpunished. Only the
background's term then has a useful gradient, hence include_background is true by default; leave
the background out where another term, such as cross-entropy, takes care of absent structures.
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


class Dice(nn.Module):
    """1 - (2 |PG| + smooth) / (|P| + |G| + smooth), weighted mean over structures and samples.

    |.| is the mean over voxels of the softmax P, the one-hot label G or their product (Milletari et
    al. 2016, linear denominator). logits (B, K, *S), label (B, 1, *S) -> scalar. `batch_dice` takes
    volumes over the whole batch, as one big patch: calmer where most samples lack a structure.
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
        self.include_background = include_background
        self.batch_dice = batch_dice
        self.smooth = _checked(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight = weight_for(self.weight, logits)
        both, predicted, reference = _volumes(
            logits, label, self.include_background, self.batch_dice
        )
        dice = (2 * both + self.smooth) / (predicted + reference + self.smooth)
        return structure_mean(1 - dice, weight)


class Tversky(nn.Module):
    """1 - (TP + smooth) / (TP + fp * FP + fn * FN + smooth), weighted mean as in Dice.

    TP, FP and FN are mean volumes of the softmax (Salehi et al. 2017: fp 0.3 and fn 0.7 did best on
    small lesions, their alpha and beta). fp = fn = 0.5 is Dice with twice the smooth.
    logits (B, K, *S), label (B, 1, *S) -> scalar.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        fp: float = 0.3,
        fn: float = 0.7,
        include_background: bool = True,
        weight: Sequence[float] | None = None,
        batch_dice: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        """`fp` and `fn` weigh false positives and false negatives, both above 0."""
        super().__init__()
        self.fp = _checked(fp=fp)
        self.fn = _checked(fn=fn)
        self.include_background = include_background
        self.batch_dice = batch_dice
        self.smooth = _checked(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight = weight_for(self.weight, logits)
        both, predicted, reference = _volumes(
            logits, label, self.include_background, self.batch_dice
        )
        wrong = self.fp * (predicted - both) + self.fn * (reference - both)
        return structure_mean(1 - (both + self.smooth) / (both + wrong + self.smooth), weight)


def _volumes(
    logits: Tensor, label: Tensor, include_background: bool, batch_dice: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean volumes of overlap, prediction and reference, each (B, C), or (C,) over the batch."""
    probability = logits.softmax(1)  # over all structures, before any is left out
    target = one_hot(label, logits)
    if not include_background:
        probability, target = probability[:, 1:], target[:, 1:]
    probability, target = probability.flatten(2), target.flatten(2)  # (B, C, voxels)
    axes = (0, 2) if batch_dice else (2,)
    both, predicted, reference = (v.sum(axes) for v in (probability * target, probability, target))
    # Divided after the sum: the gradient of a mean would be one more pass over the voxels.
    voxels = math.prod(target.shape[axis] for axis in axes)
    return both / voxels, predicted / voxels, reference / voxels


def _checked(**option: float) -> float:
    ((name, value),) = option.items()
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} must be a finite number above 0, got {value}")
    return value
