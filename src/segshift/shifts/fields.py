"""Smooth fields over an image: a coil's sensitivity, uneven light."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.polynomial import legendre

from segshift.shifts.shift import Acquisition, Graded

COIL_DEGREE = 3
LIGHT_DEGREE = 2


@dataclass(frozen=True, slots=True)
class BiasField(Graded):
    """A coil that hears one side better: a smooth factor, the same for all channels.

    Its logarithm is a random polynomial of degree 3 (Van Leemput et al., IEEE TMI 1999).
    """

    name: ClassVar[str] = "bias_field"
    unit: ClassVar[str] = "largest over smallest factor"
    numbers: ClassVar[tuple[float, ...]] = (1.26, 1.59, 2.02, 2.57, 3.31)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Multiply by factors around 1."""
        field = smooth_field(image.shape[1:], COIL_DEGREE, random)
        return np.asarray(image * np.float32(self.number) ** (field - np.float32(0.5)))


@dataclass(frozen=True, slots=True)
class Illumination(Graded):
    """Uneven light under a microscope: parts of the plane are darker, in all slices alike."""

    name: ClassVar[str] = "illumination"
    unit: ClassVar[str] = "light lost in the darkest place"
    numbers: ClassVar[tuple[float, ...]] = (0.028, 0.056, 0.084, 0.112, 0.14)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Multiply by factors up to 1."""
        field = smooth_field((1, *image.shape[2:]), LIGHT_DEGREE, random)
        return np.asarray(image * (1 - np.float32(self.number) * field))


def smooth_field(shape: Sequence[int], degree: int, random: np.random.Generator) -> np.ndarray:
    """A polynomial (D, H, W) float32 of that total degree with random coefficients, from 0 to 1."""
    coefficients = random.uniform(-1, 1, (degree + 1,) * 3)
    coefficients[np.indices(coefficients.shape).sum(axis=0) > degree] = 0
    z, y, x = (np.linspace(-1, 1, size) for size in shape)
    field = legendre.leggrid3d(z, y, x, coefficients).astype(np.float32)
    low, high = field.min(), field.max()
    return np.asarray((field - low) / (high - low) if high > low else np.zeros_like(field))
