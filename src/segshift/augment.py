"""Random augmentation of whole batches, on whatever device the batch is.

Parameters are drawn per sample from hash(seed, "augment", sample number), then applied to all
samples at once: what is drawn can be tested and does not depend on rank, worker or batch size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch.nn import functional

from segshift.errors import InputError
from segshift.plan import ANISOTROPY
from segshift.seeds import derived_seed, generator


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn for a batch of B samples in n dimensions; every field is indexed by sample."""

    affine: torch.Tensor  # (B, n, n) output to input, in voxels scaled to mm, axes as in the patch
    mirrored: torch.Tensor  # (B, n) bool
    gain: torch.Tensor  # (B,) brightness
    contrast: torch.Tensor  # (B,)
    gamma: torch.Tensor  # (B,)
    noise: torch.Tensor  # (B,) deviation, in units of the normalised image
    noise_seed: torch.Tensor  # (B,) int64


class Augment:
    """Rotation, scaling, mirroring, brightness, contrast, gamma and noise.

    Ranges are (low, high); `share` is the probability of each change for a sample. The defaults in
    the YAML follow nnU-Net's. On a grid with one far coarser axis only in-plane rotation is drawn.
    """

    def __init__(
        self,
        *,
        spacing_mm: Sequence[float],
        seed: int,
        share: float,
        rotation_degrees: float,
        scale: Sequence[float],
        mirror_axes: Sequence[int],
        gain: Sequence[float],
        contrast: Sequence[float],
        gamma: Sequence[float],
        noise: float,
    ) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"augment.share={share}: a probability from 0 to 1")
        if any(axis not in (0, 1, 2) for axis in mirror_axes):
            raise InputError(
                f"augment.mirror_axes={list(mirror_axes)}: axes are 0 (z), 1 (y), 2 (x)"
            )
        self.spacing_mm, self.seed, self.share = tuple(spacing_mm), seed, share
        self.rotation = math.radians(rotation_degrees)
        self.scale, self.mirror_axes = tuple(scale), tuple(mirror_axes)
        self.gain, self.contrast, self.gamma = tuple(gain), tuple(contrast), tuple(gamma)
        self.noise = noise

    def __call__(
        self, image: torch.Tensor, label: torch.Tensor, samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """New image (B, C, *patch) and label (B, 1, *patch) for the sample numbers (B,)."""
        drawn = self.draw(samples.tolist(), dimensions=image.ndim - 2)
        # In bfloat16 a coordinate would be off by half a voxel in a patch of 256.
        with torch.autocast(image.device.type, enabled=False):
            image, label = moved(image, label, drawn, self.spacing_mm)
            return intensities(image, drawn), label

    def draw(self, samples: Sequence[int], *, dimensions: int) -> Drawn:
        """Draw everything for these sample numbers; equal numbers give equal parameters."""
        rows = [self._draw_one(sample, dimensions) for sample in samples]
        return Drawn(*(torch.as_tensor(np.stack(column)) for column in zip(*rows, strict=True)))

    def _draw_one(self, sample: int, dimensions: int) -> tuple[np.ndarray, ...]:
        random = generator(self.seed, "augment", sample)

        def ranged(limits: Sequence[float], neutral: float) -> np.ndarray:
            # Both numbers are always drawn, so that one option does not change another's stream.
            value, chosen = random.uniform(limits[0], limits[1]), random.random() < self.share
            return np.array(value if chosen else neutral, dtype=np.float32)

        spacing = self.spacing_mm[3 - dimensions :]
        in_plane = dimensions == 2 or max(spacing) > ANISOTROPY * min(spacing)
        planes = [(dimensions - 2, dimensions - 1)] + ([] if in_plane else [(0, 1), (0, 2)])
        affine = np.eye(dimensions, dtype=np.float32)
        for a, b in planes:
            angle = float(ranged((-self.rotation, self.rotation), 0.0))
            turn = np.eye(dimensions, dtype=np.float32)
            turn[a, a] = turn[b, b] = math.cos(angle)
            turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
            affine = affine @ turn
        affine = (affine / ranged(self.scale, 1.0)).astype(np.float32)
        mirrored = random.random(3) < 0.5
        allowed = np.isin(np.arange(3), self.mirror_axes)
        return (
            affine,
            (mirrored & allowed)[3 - dimensions :],
            ranged(self.gain, 1.0),
            ranged(self.contrast, 1.0),
            ranged(self.gamma, 1.0),
            ranged((0.0, self.noise), 0.0),
            np.array(derived_seed(self.seed, "noise", sample), dtype=np.int64),
        )


class NoAugment:
    """Patches as they were read."""

    def __call__(
        self, image: torch.Tensor, label: torch.Tensor, samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return both unchanged."""
        return image, label


def moved(
    image: torch.Tensor, label: torch.Tensor, drawn: Drawn, spacing_mm: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotate, scale and mirror: the image linearly, the label by nearest neighbour.

    Only samples whose transform is not the identity are touched. Beyond the patch the image is
    continued by its border and the label is background.
    """
    dimensions = image.ndim - 2
    matrix = drawn.affine * torch.where(drawn.mirrored, -1.0, 1.0)[:, None, :]
    identity = torch.eye(dimensions)
    active = ((matrix - identity).abs().amax(dim=(1, 2)) > 0).nonzero()[:, 0]
    if not len(active):
        return image, label
    # grid_sample wants coordinates in -1..1 and in the order x, y, z.
    half = torch.tensor(image.shape[2:]) * torch.tensor(spacing_mm[3 - dimensions :]) / 2
    theta = (matrix[active] * half[None, None, :] / half[None, :, None]).flip(1, 2)
    theta = functional.pad(theta, (0, 1)).to(image.device)
    active = active.to(image.device)
    chosen = image[active]
    grid = functional.affine_grid(theta.to(image.dtype), list(chosen.shape), align_corners=False)
    warped = functional.grid_sample(chosen, grid, padding_mode="border", align_corners=False)
    classes = label[active].to(image.dtype)
    relabelled = functional.grid_sample(classes, grid, mode="nearest", align_corners=False)
    image, label = image.clone(), label.clone()
    image[active], label[active] = warped, relabelled.to(label.dtype)
    return image, label


def intensities(image: torch.Tensor, drawn: Drawn) -> torch.Tensor:
    """Brightness, contrast about the mean, gamma within the range, Gaussian noise, per sample."""
    shape = (-1,) + (1,) * (image.ndim - 1)
    values = {
        f.name: getattr(drawn, f.name).to(image.device).view(shape)
        for f in fields(drawn)
        if f.name in ("gain", "contrast", "gamma", "noise")
    }
    axes = tuple(range(2, image.ndim))
    image = image * values["gain"]
    if bool((drawn.contrast != 1).any()):
        mean = image.mean(dim=axes, keepdim=True)
        image = (image - mean) * values["contrast"] + mean
    if bool((drawn.gamma != 1).any()):
        low, high = image.amin(dim=axes, keepdim=True), image.amax(dim=axes, keepdim=True)
        extent = (high - low).clamp_min(1e-8)
        image = ((image - low) / extent) ** values["gamma"] * extent + low
    noisy = drawn.noise.nonzero()[:, 0].tolist()
    if noisy:
        noise = torch.zeros_like(image)
        random = torch.Generator(device=image.device)
        for index in noisy:  # one launch a sample: a sample's noise is its own, whatever the batch
            random.manual_seed(int(drawn.noise_seed[index]))
            noise[index].normal_(generator=random)
        image = image + noise * values["noise"]
    return image
