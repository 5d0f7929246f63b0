"""How fine an image is: voxels, slices, lenses and reconstruction kernels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from segshift.shifts.shift import Acquisition, Graded

FWHM_PER_SIGMA = 2.3548
EDGE_PIXELS = 1.0  # sigma of what a sharp kernel takes for an edge
Z, Y, X = 1, 2, 3  # axes of an image


@dataclass(frozen=True, slots=True)
class SliceThickness(Graded):
    """Thicker slices: the mean over their thickness, and lines between their centres.

    An image of one slice stays as it is.
    """

    name: ClassVar[str] = "slice_thickness"
    unit: ClassVar[str] = "times as thick"
    numbers: ClassVar[tuple[float, ...]] = (1.5, 2.0, 2.5, 3.0, 4.0)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Coarser along z."""
        return _coarser(image, Z, self.number)


@dataclass(frozen=True, slots=True)
class Resolution(Graded):
    """Larger pixels: the mean over each, and lines between their centres."""

    name: ClassVar[str] = "resolution"
    unit: ClassVar[str] = "times as large along y and along x"
    numbers: ClassVar[tuple[float, ...]] = (1.25, 1.5, 2.0, 3.0, 4.0)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Coarser in plane."""
        return _coarser(_coarser(image, Y, self.number), X, self.number)


@dataclass(frozen=True, slots=True)
class Blur(Graded):
    """A microscope out of focus: a Gaussian point spread in plane."""

    name: ClassVar[str] = "blur"
    unit: ClassVar[str] = "standard deviation in pixels"
    numbers: ClassVar[tuple[float, ...]] = (0.7, 1.2, 2.0, 3.0, 5.0)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Smooth every slice."""
        return _smooth(image, self.number)


@dataclass(frozen=True, slots=True)
class SmoothKernel(Graded):
    """A soft reconstruction kernel of a CT: less noise, wider edges."""

    name: ClassVar[str] = "smooth_kernel"
    unit: ClassVar[str] = "width of a point at half its height, in pixels"
    numbers: ClassVar[tuple[float, ...]] = (1.5, 2.0, 3.0, 4.0, 6.0)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Smooth every slice."""
        return _smooth(image, self.number / FWHM_PER_SIGMA)


@dataclass(frozen=True, slots=True)
class SharpKernel(Graded):
    """A sharp reconstruction kernel of a CT, as for bone: edges overshoot, noise grows.

    The image plus so many times what a Gaussian of one pixel takes away from it.
    """

    name: ClassVar[str] = "sharp_kernel"
    unit: ClassVar[str] = "gain of the finest detail, beyond 1"
    numbers: ClassVar[tuple[float, ...]] = (0.5, 1.0, 2.0, 3.0, 5.0)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Enhance the detail of every slice."""
        return np.asarray(image + np.float32(self.number) * (image - _smooth(image, EDGE_PIXELS)))


def _smooth(image: np.ndarray, sigma_pixels: float) -> np.ndarray:
    return np.asarray(ndimage.gaussian_filter(image, (0, 0, sigma_pixels, sigma_pixels)))


def _coarser(image: np.ndarray, axis: int, factor: float) -> np.ndarray:
    """Means over voxels that are thicker along one axis, centred, and lines between their centres.

    Those that reach beyond the image are the means of what is inside.
    """
    size = image.shape[axis]
    coarse, voxels = int(np.ceil(size / factor)), np.arange(size)
    first = (size - coarse * factor) / 2
    starts = first + factor * np.arange(coarse)[:, None]
    overlap = np.minimum(starts + factor, voxels + 1) - np.maximum(starts, voxels)
    means = np.clip(overlap, 0, None)  # (coarse, size)
    means /= means.sum(axis=1, keepdims=True)
    places = np.clip((voxels + 0.5 - first) / factor - 0.5, 0, coarse - 1)
    lines = np.clip(1 - np.abs(places[:, None] - np.arange(coarse)), 0, None)  # (size, coarse)
    matrix = (lines @ means).astype(np.float32)
    return np.moveaxis(np.tensordot(image, matrix, axes=(axis, 1)), -1, axis)
