"""Unified focal loss: a focal cross-entropy and a focal Tversky with one set of options."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segshift.errors import InputError
from segshift.losses.contract import (
    fraction,
    full_precision,
    is_regions,
    minus_log_truth,
    positive,
    structure_mean,
    times_weight_of_truth,
    valid_mean,
    valid_voxels,
    weight_buffer,
    weight_for,
)
from segshift.losses.focal import faded
from segshift.losses.overlap import power, tversky_miss, volumes


class UnifiedFocal(nn.Module):
    """balance * focal + (1 - balance) * Tversky, asymmetric (Yeung et al., CMIG 2022).

    The focal part is the mean over voxels of weight[y] * fn * -log p_y on foreground and weight[y]
    * (1 - fn) * (1 - p_y)^gamma * -log p_y on background: only easy background fades. The Tversky
    part has fp = 1 - fn; its foreground terms are raised to 1 - gamma, which favours structures
    that are nearly right. logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar.
    MONAI's is for one structure only; the paper's for two classes, here all structures are rare.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        fn: float = 0.6,
        gamma: float = 0.5,
        balance: float = 0.5,
        weight: Sequence[float] | None = None,
        batch_dice: bool = False,
        smooth: float = 1e-5,
    ) -> None:
        """`fn`, `gamma` and `balance` from 0 to 1 are the paper's delta, gamma and lambda."""
        super().__init__()
        self.fn, self.gamma = fraction(fn=fn), fraction(gamma=gamma)
        if gamma == 1:
            raise InputError("gamma must be below 1, or the Tversky part is the same for all")
        self.balance, self.batch_dice = fraction(balance=balance), batch_dice
        self.smooth = positive(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        minus_log_p = minus_log_truth(logits, label)
        faint = (1 - self.fn) * faded(minus_log_p, self.gamma)
        voxels = torch.where(label > 0, self.fn * minus_log_p, faint)
        voxels = times_weight_of_truth(voxels, weight_for(self.weight, logits), label)
        v = volumes(logits, label, self.weight, True, self.batch_dice)
        miss = tversky_miss(v, fp=1 - self.fn, fn=self.fn, smooth=self.smooth)
        # The background's term, or in regions the complements', comes first and is not raised.
        rest = logits.shape[1] if is_regions(label) else 1
        miss = torch.cat([miss[..., :rest], power(miss[..., rest:], 1 - self.gamma)], -1)
        return self.balance * valid_mean(voxels, valid_voxels(label)) + (
            1 - self.balance
        ) * structure_mean(miss, v.weight, v.annotated)
