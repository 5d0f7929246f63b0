"""Focal losses: cross-entropy that fades on voxels which are already right.

The softmax runs over all structures, the background's included. MONAI's, with its background
excluded, drops that channel before the softmax: with two structures it is 0 with gradient 0.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from segshift.errors import InputError
from segshift.losses.contract import (
    fraction,
    full_precision,
    minus_log_truth,
    not_negative,
    one_hot,
    times_weight_of_truth,
    valid_mean,
    valid_voxels,
    weight_buffer,
    weight_for,
)


class Focal(nn.Module):
    """Mean over voxels of weight[y] * (1 - p_y)^gamma * -log p_y, p the softmax (Lin et al. 2017).

    logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar. gamma 0 is CrossEntropy.
    `weight` is one value per structure, the paper's alpha.
    """

    weight: Tensor | None

    def __init__(self, *, gamma: float = 2.0, weight: Sequence[float] | None = None) -> None:
        """`gamma` from 0 upwards; the higher, the less an easy voxel counts."""
        super().__init__()
        self.gamma = not_negative(gamma=gamma)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight = weight_for(self.weight, logits)
        loss = faded(minus_log_truth(logits, label), self.gamma)
        return valid_mean(times_weight_of_truth(loss, weight, label), valid_voxels(label))


class SigmoidFocal(nn.Module):
    """One-vs-rest focal loss: mean over voxels and structures of weight[y] * alpha_t * FL_k.

    FL_k = (1 - p_t)^gamma * -log p_t with p_t = sigmoid(logits[k]) where the label is k and one
    minus that elsewhere; alpha_t is alpha[k] where it is k and 1 - alpha[k] elsewhere, as in Lin et
    al. 2017, who found 0.25 best. logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S).
    """

    weight: Tensor | None
    alpha: Tensor | None

    def __init__(
        self,
        *,
        gamma: float = 2.0,
        alpha: float | Sequence[float] | None = None,
        weight: Sequence[float] | None = None,
    ) -> None:
        """`alpha` in 0 to 1, for all structures or one for each; None: both sides count 1."""
        super().__init__()
        self.gamma = not_negative(gamma=gamma)
        several = alpha is None or isinstance(alpha, list | tuple)
        shares: Any = alpha if several else [alpha]
        checked = None if shares is None else [fraction(alpha=share) for share in shares]
        self.register_buffer("alpha", weight_buffer(checked), persistent=False)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, true = weight_for(self.weight, logits), one_hot(label, logits) > 0
        loss = faded(functional.softplus(torch.where(true, -logits, logits)), self.gamma)
        if self.alpha is not None:
            if len(self.alpha) not in (1, logits.shape[1]):
                raise InputError(
                    f"alpha has {len(self.alpha)} values; give one, or one for each of the "
                    f"{logits.shape[1]} structures, background first"
                )
            alpha = self.alpha.to(logits).view(-1, *[1] * (logits.ndim - 2))
            loss = loss * torch.where(true, alpha, 1 - alpha)
        return valid_mean(times_weight_of_truth(loss, weight, label), valid_voxels(label))


def faded(minus_log_p: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma * -log p of any shape, without cancellation where p is nearly 1."""
    # The floor keeps the slope of x^gamma finite at 0 if gamma < 1.
    miss = (-torch.expm1(-minus_log_p)).clamp(min=torch.finfo(minus_log_p.dtype).tiny)
    return miss**gamma * minus_log_p
