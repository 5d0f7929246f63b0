"""Focal loss: cross-entropy that fades on voxels which are already right.

The softmax runs over all structures, the background's included. MONAI's, with its background
excluded, drops that channel before the softmax: with two structures it is 0 with gradient 0.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segshift.errors import InputError
from segshift.losses.contract import full_precision, weight_buffer, weight_for


class Focal(nn.Module):
    """Mean over voxels of weight[y] * (1 - p_y)^gamma * -log p_y, p the softmax (Lin et al. 2017).

    logits (B, K, *S), label (B, 1, *S) -> scalar. gamma 0 is CrossEntropy. `weight` is one value
    per structure, the paper's alpha.
    """

    weight: Tensor | None

    def __init__(self, *, gamma: float = 2.0, weight: Sequence[float] | None = None) -> None:
        """`gamma` from 0 upwards; the higher, the less an easy voxel counts."""
        super().__init__()
        if not (math.isfinite(gamma) and gamma >= 0):
            raise InputError(f"gamma must be a finite number from 0 upwards, got {gamma}")
        self.gamma = gamma
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight = weight_for(self.weight, logits)
        minus_log_p = -logits.log_softmax(1).gather(1, label)  # (B, 1, *S)
        # 1 - p without cancellation; the floor keeps the slope of x^gamma finite at 0 if gamma < 1.
        miss = (-torch.expm1(-minus_log_p)).clamp(min=torch.finfo(logits.dtype).tiny)
        loss = miss**self.gamma * minus_log_p
        return (loss if weight is None else loss * weight[label]).mean()
