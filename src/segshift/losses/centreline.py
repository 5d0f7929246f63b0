"""Losses of the centreline: vessels, nerves and fibres that should come out in one piece."""

import functools
from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage
from skimage.morphology import skeletonize
from torch import Tensor, nn
from torch.nn import functional

from segshift.losses.contract import (
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
    whole,
)


class ClDice(nn.Module):
    """1 - 2 TP TS / (TP + TS), weighted mean over foreground structures and samples.

    TP is the share of the prediction's soft skeleton inside the label, TS that of the label's
    inside the prediction (Shit et al., CVPR 2021). logits (B, K, *S), label (B, 1, *S) or regions
    (B, K, *S) -> scalar. MONAI's sums over the batch and all structures, so that the background,
    which is no tube, decides; a part thicker than twice `iterations` has no skeleton.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        iterations: int = 3,
        weight: Sequence[float] | None = None,
        smooth: float = 1e-5,
    ) -> None:
        """`iterations`: half the thickest tube's diameter, in voxels; time and memory grow by it.

        `smooth` is a fraction of the patch, as in Dice.
        """
        super().__init__()
        self.iterations = whole(lowest=1, iterations=iterations)
        self.smooth = positive(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        target = foreground(one_hot(label, logits), label)
        probability = masked(foreground(probabilities(logits, label), label), valid)
        thin, thin_target = (_soft_skeleton(v, self.iterations) for v in (probability, target))
        precision = self._share(thin, target, valid)
        sensitivity = self._share(thin_target, probability, valid)
        return structure_mean(1 - 2 * precision * sensitivity / (precision + sensitivity), weight)

    def _share(self, skeleton: Tensor, volume: Tensor, valid: Tensor | None) -> Tensor:
        inside = sample_mean(skeleton * volume, valid)
        return (inside + self.smooth) / (sample_mean(skeleton, valid) + self.smooth)


class SkeletonRecall(nn.Module):
    """1 - the share of the label's tubed skeleton that is predicted, mean as in ClDice.

    The skeleton is exact, widened by a box of `radius` within the structure, and takes no gradient,
    which makes it far cheaper than ClDice (Kirchhoff et al., ECCV 2024). It says nothing of false
    positives: add it to a Dice and a cross-entropy. An absent structure costs nothing here.
    logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar.
    """

    weight: Tensor | None

    def __init__(
        self,
        *,
        radius: int = 2,
        weight: Sequence[float] | None = None,
        smooth: float = 1e-5,
    ) -> None:
        """`radius` in voxels, 0 for the skeleton itself; `smooth` is a fraction of the patch."""
        super().__init__()
        self.radius, self.smooth = whole(lowest=0, radius=radius), positive(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        target = foreground(one_hot(label, logits), label)
        tube = _widened(_skeleton(target > 0), self.radius).to(logits) * target
        probability = foreground(probabilities(logits, label), label)
        found, all_ = sample_mean(probability * tube, valid), sample_mean(tube, valid)
        return structure_mean(1 - (found + self.smooth) / (all_ + self.smooth), weight)


def _soft_skeleton(volume: Tensor, iterations: int) -> Tensor:
    """What ever more eroded volumes (B, C, *S) lose by an opening (Shit et al., algorithm 1)."""
    skeleton = torch.zeros_like(volume)
    for _ in range(iterations + 1):
        eroded = _eroded(volume)
        lost = (volume - _dilated(eroded)).relu()
        skeleton = skeleton + (lost - skeleton * lost).relu()
        volume = eroded
    return skeleton


def _eroded(volume: Tensor) -> Tensor:
    """Minimum over each voxel and its face neighbours."""
    lowest = [-_largest(-volume, axis) for axis in range(volume.ndim - 2)]
    return functools.reduce(torch.minimum, lowest)


def _dilated(volume: Tensor) -> Tensor:
    """Maximum over the 3 x 3 (x 3) voxels around each, axis by axis."""
    return functools.reduce(_largest, range(volume.ndim - 2), volume)


def _largest(volume: Tensor, axis: int) -> Tensor:
    """Maximum over each voxel and its two neighbours along one spatial axis."""
    pool = functional.max_pool2d if volume.ndim == 4 else functional.max_pool3d
    kernel = [3 if a == axis else 1 for a in range(volume.ndim - 2)]
    return pool(volume, kernel, stride=1, padding=[k // 2 for k in kernel])


def _widened(mask: Tensor, radius: int) -> Tensor:
    """A bool mask (B, C, *S) grown by a box of `radius` voxels, axis by axis, one voxel a time."""
    for axis in range(2, mask.ndim):
        for _ in range(radius):
            grown, inner = mask.clone(), mask.shape[axis] - 1
            grown.narrow(axis, 1, inner).logical_or_(mask.narrow(axis, 0, inner))
            grown.narrow(axis, 0, inner).logical_or_(mask.narrow(axis, 1, inner))
            mask = grown
    return mask


def _skeleton(mask: Tensor) -> Tensor:
    """The skeleton of each bool mask (B, K, *S), on the CPU: scikit-image has no other."""
    masks = mask.cpu().numpy()
    skeleton = np.zeros_like(masks)
    for index in np.ndindex(*masks.shape[:2]):
        for box in ndimage.find_objects(masks[index].view(np.uint8)):
            skeleton[index][box] = skeletonize(masks[index][box])
    return torch.from_numpy(skeleton).to(mask.device)
