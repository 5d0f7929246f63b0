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
    annotated_terms,
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
    which is no tube, decides. A part thicker than 2 `iterations` + 2 voxels has no skeleton.
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
        miss = 1 - 2 * precision * sensitivity / (precision + sensitivity)
        return structure_mean(miss, weight, annotated_terms(valid))

    def _share(self, skeleton: Tensor, volume: Tensor, valid: Tensor | None) -> Tensor:
        inside = sample_mean(skeleton * volume, valid)
        return (inside + self.smooth) / (sample_mean(skeleton, valid) + self.smooth)


class SkeletonRecall(nn.Module):
    """1 - the share of each structure's tubed skeleton that is predicted, mean as in ClDice.

    As in Kirchhoff et al., ECCV 2024, and their code: all structures together have one skeleton, it
    is dilated `radius` times by a cross, and each of its voxels then belongs to the structure that
    the label has there. (So a seam between two vessels breaks no skeleton.) Regions overlap, which
    the paper leaves open: each has a skeleton of its own. It is computed from the batch's label, so
    a coarser output of deep supervision has that of the coarser label, not a coarser tube.

    The skeleton takes no gradient, which makes it far cheaper than ClDice. It says nothing of false
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
        """`radius` is how often the skeleton is dilated; `smooth` is a fraction of the patch."""
        super().__init__()
        self.radius, self.smooth = whole(lowest=0, radius=radius), positive(smooth=smooth)
        self.register_buffer("weight", weight_buffer(weight), persistent=False)

    @full_precision
    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        weight, valid = weight_for(self.weight, logits), valid_voxels(label)
        target = foreground(one_hot(label, logits), label)
        # Class indices above 0 are the union of all structures, a region's 1 is that region.
        tube = _dilated_by_cross(_skeleton(label > 0), self.radius).to(logits) * target
        probability = foreground(probabilities(logits, label), label)
        found, all_ = sample_mean(probability * tube, valid), sample_mean(tube, valid)
        miss = 1 - (found + self.smooth) / (all_ + self.smooth)
        return structure_mean(miss, weight, annotated_terms(valid))


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


def _dilated_by_cross(mask: Tensor, times: int) -> Tensor:
    """A bool mask (B, C, *S) and, `times` times, the face neighbours of what it has become."""
    for _ in range(times):
        grown = mask.clone()
        for axis in range(2, mask.ndim):
            inner = mask.shape[axis] - 1
            grown.narrow(axis, 1, inner).logical_or_(mask.narrow(axis, 0, inner))
            grown.narrow(axis, 0, inner).logical_or_(mask.narrow(axis, 1, inner))
        mask = grown
    return mask


def _skeleton(mask: Tensor) -> Tensor:
    """The skeleton of each bool mask (B, C, *S), on the CPU: scikit-image has no other."""
    masks = mask.cpu().numpy()
    skeleton = np.zeros_like(masks)
    for index in np.ndindex(*masks.shape[:2]):
        for box in ndimage.find_objects(masks[index].view(np.uint8)):
            skeleton[index][box] = skeletonize(masks[index][box])
    return torch.from_numpy(skeleton).to(mask.device)
