"""Two simulated cameras that photograph the same scenes with 64 and with 128 pixels."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from segshift.cohort import Annotation, Case, write_manifest

SMALL, LARGE = 64, 128  # pixels along an edge
FIELD, OBJECT_RADIUS = 0.44, 0.12  # radii, as shares of the edge
SITES = {"near": (SMALL, 6), "far": (LARGE, 3)}  # pixels, patients


def scene(
    edge: int, number: int, *, radius: float = OBJECT_RADIUS
) -> tuple[np.ndarray, np.ndarray]:
    """Grey image and mask (edge, edge), uint8: a dim disc on black, and in it a bright object.

    A function of the place alone, so that cameras of different edges see the same.
    """
    random = np.random.default_rng(number)
    y, x = np.meshgrid(*[(np.arange(edge) + 0.5) / edge] * 2, indexing="ij")
    waves = sum(
        np.sin(2 * np.pi * (a * x + b * y) + c) for a, b, c in random.uniform(-3, 3, (4, 3))
    )
    cy, cx = 0.5 + random.uniform(-0.15, 0.15, 2)
    inside = np.hypot(y - 0.5, x - 0.5) < FIELD
    label = np.hypot(y - cy, x - cx) < radius
    grey = np.where(inside, 80 + 10 * waves, 0)
    return np.where(label, 220, grey).clip(0, 255).astype(np.uint8), label.astype(np.uint8)


def saved(folder: Path, name: str, site: str, image: np.ndarray, label: np.ndarray) -> Case:
    files = [folder / f"{kind}-{name}.png" for kind in ("image", "label")]
    folder.mkdir(parents=True, exist_ok=True)
    for path, array in zip(files, (image, label), strict=True):
        Image.fromarray(array).save(path)
    return Case(name, name, site, (files[0],), Annotation(files[1], (1,)))


def write_cameras(folder: Path, *, far_labels=lambda labels: labels) -> Path:
    """A manifest of both; `far_labels` makes other references of those of the far camera."""
    cases = []
    for place, (site, (edge, patients)) in enumerate(SITES.items()):
        scenes = [scene(edge, 100 * place + n) for n in range(patients)]
        labels = [label for _, label in scenes]
        labels = far_labels(labels) if site == "far" else labels
        for n, ((image, _), label) in enumerate(zip(scenes, labels, strict=True)):
            cases.append(saved(folder, f"{site}-{n}", site, image, label))
    write_manifest(folder / "m.csv", cases, channels=["image"], structures=["disc"])
    return folder / "m.csv"


class Bright(nn.Module):
    """A network that has nothing to learn: what is brighter than `threshold` is the structure."""

    def __init__(self, threshold: float, out_channels: int = 2) -> None:
        super().__init__()
        self.threshold = threshold
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logit = 50 * (image - self.threshold) + 0 * self.weight
        return torch.cat([-logit, logit], dim=1)
