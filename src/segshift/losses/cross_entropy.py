"""Voxel by voxel: cross-entropy over all structures, its hardest voxels, and one-vs-rest.

All take a mean over voxels, each times the weight of its true structure. The weights are fixed:
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
    fraction,
    full_precision,
    is_regions,
    minus_log_truth,
    one_hot,
    positive,
    times_weight_of_truth,
    valid_mean,
    valid_voxels,
    weight_buffer,
    weight_for,
)


class CrossEntropy(nn.Module):
    """Mean over voxels of weight[y] * -log p_y, p the softmax; for regions binary cross-entropy.

    logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar. `smoothing` e asks for
    1 - e + e / K on the true structure and e / K on the others, which keeps the network from
    certainty (Szegedy et al., CVPR 2016). `weight` is one value per structure.
    """

    weight: Tensor | None

    def __init__(self, *, smoothing: float = 0.0, weight: Sequence[float] | None = None) -> None:
        """`smoothing` from 0 to 1; `weight` None counts every voxel the same."""
        super().__init__()
        self.smoothing = fraction(smoothing=smoothing)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight = weight_for(self.weight, logits)
        loss = minus_log_truth(logits, label)
        if self.smoothing:
            anything = minus_log_any(logits, label)
            loss = (1 - self.smoothing) * loss + self.smoothing * anything
        return valid_mean(times_weight_of_truth(loss, weight, label), valid_voxels(label))


class TopK(nn.Module):
    """Cross-entropy of the hardest `share` of the batch's voxels alone (Wu et al. 2016).

    Hard is a high -log p_y; the weights count after the choice. Each region has its own hardest.
    logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar.
    """

    weight: Tensor | None

    def __init__(self, *, share: float = 0.1, weight: Sequence[float] | None = None) -> None:
        """`share` of the voxels, above 0; nnU-Net takes a tenth, 1 is CrossEntropy."""
        super().__init__()
        self.share = positive(share=fraction(share=share))
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        hardness = minus_log_truth(logits, label)
        loss = times_weight_of_truth(hardness, weight, label)
        ranked, loss = (v.transpose(0, 1).flatten(1) for v in (hardness.detach(), loss))  # (C, N)
        count = torch.full((len(ranked), 1), ranked.shape[1], device=logits.device)
        if valid is not None:
            valid = valid.transpose(0, 1).flatten(1)
            ranked = ranked.masked_fill(~valid, -1.0)  # below any voxel that counts
            count = valid.sum(1, keepdim=True)
        place = ranked.topk(math.ceil(self.share * ranked.shape[1])).indices
        # Fewer where some are ignored; counted on the device, which a Python number would stall.
        # In float64, as the line above: in float32 0.3 of 50 is more than 15.
        wanted = (self.share * count.double()).ceil()
        kept = torch.arange(place.shape[1], device=logits.device) < wanted
        hardest = (loss.gather(1, place) * kept).sum(1) / wanted[:, 0].clamp(min=1).to(loss)
        return valid_mean(hardest, None if valid is None else valid.any(1))


class BCE(nn.Module):
    """One-vs-rest sigmoid cross-entropy: mean over voxels and structures k of weight[y] * BCE_k.

    BCE_k = -log sigmoid(logits[k]) where the label y is k, -log(1 - sigmoid(logits[k])) elsewhere.
    logits (B, K, *S), label (B, 1, *S) -> scalar. `weight` is one value per structure. As in
    CrossEntropy it is that of the voxel: one for channel k would leave the best logits[k] as it is.
    The background has a channel too, since decoding takes the strongest of all. Regions (B, K, *S)
    are one-vs-rest by themselves, and there it is CrossEntropy.
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
        loss = functional.binary_cross_entropy_with_logits(
            logits, one_hot(label, logits), reduction="none"
        )
        return valid_mean(times_weight_of_truth(loss, weight, label), valid_voxels(label))


class WeightedBCE(BCE):
    """BCE with `weight`, or if that is None with `inverse_frequency(structure_frequency)`."""

    def __init__(
        self, *, structure_frequency: Sequence[float], weight: Sequence[float] | None = None
    ) -> None:
        """`structure_frequency` is that of the training cases' voxels, background first."""
        self.derived = weight is None
        super().__init__(
            weight=inverse_frequency(structure_frequency) if weight is None else weight
        )

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss. InputError for regions: their voxels have no one true structure."""
        if self.derived and is_regions(label):
            raise InputError(
                "weighted_bce derives its weights from structures that exclude each other; for "
                "regions set loss.weight, one number per region, or take another loss"
            )
        return super().forward(logits, label)


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


def minus_log_any(logits: Tensor, label: Tensor) -> Tensor:
    """Mean of -log p over all structures (B, 1, *S); over region and complement (B, K, *S)."""
    if is_regions(label):
        return -(functional.logsigmoid(logits) + functional.logsigmoid(-logits)) / 2
    return -logits.log_softmax(1).mean(1, keepdim=True)
