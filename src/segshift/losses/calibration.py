"""Cross-entropy that does not push the network to certainty: calibrated probabilities."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segshift.losses.contract import (
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


class NACL(nn.Module):
    """Mean over voxels of weight[y] * (-log p_y + alpha * mean over k of |logits_k - share_k|).

    share_k is how much of the voxel's 3 x 3 (x 3) neighbourhood is structure k, so that logits stay
    small, and smaller near boundaries (Murugesan et al., MedIA 2025: neighbour-aware calibration).
    logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar. MONAI's NACLLoss knows no
    weights, no ignored voxels and no regions, and counts what lies beyond the patch as nothing.
    """

    weight: Tensor | None

    def __init__(self, *, alpha: float = 0.1, weight: Sequence[float] | None = None) -> None:
        """`alpha` from 0 upwards is the weight of the calibration term; 0 is CrossEntropy."""
        super().__init__()
        self.alpha = not_negative(alpha=alpha)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        away = (logits - _neighbourhood(one_hot(label, logits), valid)).abs()
        if away.shape[1] != label.shape[1]:  # exclusive structures: one value for each voxel
            away = away.mean(1, keepdim=True)
        loss = minus_log_truth(logits, label) + self.alpha * away
        return valid_mean(times_weight_of_truth(loss, weight, label), valid)


def _neighbourhood(target: Tensor, valid: Tensor | None) -> Tensor:
    """Share of each structure among a voxel's annotated neighbours and itself (B, K, *S)."""
    known = torch.ones_like(target[:1, :1]) if valid is None else valid.to(target)
    return _box_sum(target) / _box_sum(known).clamp(min=1)


def _box_sum(volume: Tensor) -> Tensor:
    """Sum over the 3 x 3 (x 3) voxels around each (B, C, *S), axis by axis: pooling is slow."""
    for axis in range(2, volume.ndim):
        total, inner = volume.clone(), volume.shape[axis] - 1
        total.narrow(axis, 1, inner).add_(volume.narrow(axis, 0, inner))
        total.narrow(axis, 0, inner).add_(volume.narrow(axis, 1, inner))
        volume = total
    return volume
