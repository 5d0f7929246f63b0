"""Voxel by voxel: cross-entropy over all structures, and one binary cross-entropy for each.

Both take a mean over voxels, each times the weight of its true structure. The weights are fixed:
PyTorch's weighted mean divides by those of the voxels at hand instead, then the same voxel counts
differently in each batch, and a batch with none but silenced voxels is NaN.
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
    """One-vs-rest sigmoid cross-entropy: mean over voxels and structures k of weight[y] * BCE_k.

    BCE_k = -log sigmoid(logits[k]) where the label y is k, -log(1 - sigmoid(logits[k])) elsewhere.
    logits (B, K, *S), label (B, 1, *S) -> scalar. `weight` is one value per structure. As in
    CrossEntropy it is that of the voxel: one for channel k would leave the best logits[k] as it is.
    The background has a channel too, since decoding takes the strongest of all.
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
        return functional.binary_cross_entropy_with_logits(
            logits, one_hot(label, logits), None if weight is None else weight[label]
        )


def weighted_bce(
    *, structure_frequency: Sequence[float], weight: Sequence[float] | None = None
) -> BCE:
    """BCE with `weight`, or if that is None with `inverse_frequency(structure_frequency)`."""
    if weight is None:
        weight = inverse_frequency(structure_frequency)
    return BCE(weight=weight)


def inverse_frequency(structure_frequency: Sequence[float]) -> tuple[float, ...]:
    """Weights w_k = 1 / (K f_k) of the K structures' voxel frequencies f (K,), which sum to 1.

    Every structure has the same total weight f_k w_k = 1 / K over its voxels, and the mean weight
    over the voxels of the training cases is 1, so that the loss keeps the scale of the unweighted
    one. A structure that is absent (f = 0) is left out of K and counts as the rarest one present:
    an infinite weight would silence all the others.
    """
    frequency = torch.tensor([float(value) for value in structure_frequency], dtype=torch.float64)
    if not (frequency >= 0).all() or not math.isclose(float(frequency.sum()), 1.0, abs_tol=1e-3):
        raise InputError(
            "structure_frequency must hold fractions of all voxels that sum to 1, "
            f"background first, got {frequency.tolist()}"
        )
    present = frequency[frequency > 0]
    return tuple((1 / (len(present) * frequency.clamp(min=float(present.min())))).tolist())
