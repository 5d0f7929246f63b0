"""Voxel by voxel: cross-entropy over all structures, and one binary cross-entropy for each.

Both take a mean over voxels with fixed weights. PyTorch's weighted mean divides by the weights of
the voxels at hand instead: then the same voxel counts differently in each batch, and a batch with
none but silenced voxels is NaN.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segshift.errors import InputError
from segshift.losses.contract import (
    full_precision,
    one_hot,
    structure_mean,
    weight_buffer,
    weight_for,
)


class CrossEntropy(nn.Module):
    """Softmax cross-entropy: mean over voxels of weight[y] * -log softmax(logits)[y].

    logits (B, K, *S), label (B, 1, *S) -> scalar. `weight` is one value per structure.
    """

    weight: Tensor | None

    def __init__(self, *, weight: Sequence[float] | None = None) -> None:
        """`weight` None counts every voxel the same."""
        super().__init__()
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight = weight_for(self.weight, logits)
        loss = -logits.log_softmax(1).gather(1, label)  # (B, 1, *S)
        return (loss if weight is None else loss * weight[label]).mean()


class BCE(nn.Module):
    """One-vs-rest sigmoid cross-entropy: mean over voxels and structures k of weight[k] * BCE_k.

    BCE_k = -log sigmoid(logits[k]) where the label is k, -log(1 - sigmoid(logits[k])) elsewhere.
    logits (B, K, *S), label (B, 1, *S) -> scalar. `weight` is one value per structure.
    """

    weight: Tensor | None

    def __init__(
        self, *, weight: Sequence[float] | None = None, include_background: bool = True
    ) -> None:
        """Without `include_background` its logit stays untrained: do not take an argmax then."""
        super().__init__()
        self.include_background = include_background
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight = weight_for(self.weight, logits)
        target = one_hot(label, logits)
        if not self.include_background:
            logits, target = logits[:, 1:], target[:, 1:]
        loss = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
        return structure_mean(loss.flatten(2).mean(2), weight)


def weighted_bce(
    *,
    structure_frequency: Sequence[float],
    weight: Sequence[float] | None = None,
    include_background: bool = True,
) -> BCE:
    """BCE with `weight`, or if that is None with `inverse_frequency(structure_frequency)`."""
    if weight is None:
        weight = inverse_frequency(structure_frequency)
    return BCE(weight=weight, include_background=include_background)


def inverse_frequency(structure_frequency: Sequence[float]) -> tuple[float, ...]:
    """Weights w_k = (1 / f_k) / mean_j(1 / f_j) of voxel frequencies f (K,) that sum to 1.

    1 / f_k gives every structure the same total weight over its voxels; a mean of 1 keeps the loss
    at the scale of the unweighted one, so a learning rate carries over. A structure that is absent
    (f = 0) counts as the rarest one present: an infinite weight would silence all the others.
    """
    frequency = torch.tensor([float(value) for value in structure_frequency], dtype=torch.float64)
    if not (frequency >= 0).all() or not math.isclose(float(frequency.sum()), 1.0, abs_tol=1e-3):
        raise InputError(
            "structure_frequency must hold fractions of all voxels that sum to 1, "
            f"background first, got {frequency.tolist()}"
        )
    inverse = 1 / frequency.clamp(min=float(frequency[frequency > 0].min()))
    return tuple((inverse / inverse.mean()).tolist())
