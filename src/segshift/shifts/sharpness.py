"""How fine an image is: voxels, slices, lenses and reconstruction kernels."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from segshift.errors import InputError
from segshift.shifts.shift import Acquisition, Graded

FWHM_PER_SIGMA = 2.3548
EDGE_PIXELS = 1.0  # sigma of what a sharp kernel takes for an edge
Z, Y, X = 1, 2, 3  # axes of an image
RESOLUTION = {  # how many times as large pixels are, by what is imaged and severity
    "mr": (1.12, 1.27, 1.49, 1.8, 2.29),
    "ct": (1.06, 1.14, 1.28, 1.48, 1.89),
    "microscopy": (1.4, 2.6, 3.81, 5.42, 7.56),
}


@dataclass(frozen=True, slots=True)
class SliceThickness(Graded):
    """Thicker slices: the mean over their thickness, and lines between their centres.

    An image of one slice stays as it is. No plausible thickness changes slices that are thick
    already by as much as the other shifts do, so it is not calibrated.
    """

    calibrated: ClassVar[bool] = False
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
    """Larger pixels: each pixel is the mean over one that is larger, centred where it was.

    Nothing is resampled: a coarser grid and its interpolation would change an image by a jump,
    however little coarser it is. `imaging` is the kind of images that the severities are calibrated
    on: one of `RESOLUTION`. Raises InputError for another.
    """

    imaging: str = "mr"
    name: ClassVar[str] = "resolution"
    unit: ClassVar[str] = "times as large along y and along x"
    numbers: ClassVar[tuple[float, ...]] = RESOLUTION["mr"]

    def __post_init__(self) -> None:
        """Check severity and kind."""
        Graded.__post_init__(self)
        if self.imaging not in RESOLUTION:
            raise InputError(
                f"shift resolution: imaging is {self.imaging!r}; valid are {sorted(RESOLUTION)}"
            )

    @property
    def number(self) -> float:
        """What this severity means."""
        return RESOLUTION[self.imaging][self.severity - 1]

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Means over larger pixels."""
        for axis in (Y, X):
            size = image.shape[axis]
            starts = np.arange(size) + 0.5 - self.number / 2
            image = _times(_means(size, starts, self.number), image, axis)
        return image


@dataclass(frozen=True, slots=True)
class Blur(Graded):
    """A microscope out of focus: a Gaussian point spread in plane."""

    name: ClassVar[str] = "blur"
    unit: ClassVar[str] = "standard deviation in pixels"
    numbers: ClassVar[tuple[float, ...]] = (0.556, 0.867, 1.28, 1.83, 2.6)

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
    numbers: ClassVar[tuple[float, ...]] = (0.89, 1.02, 1.18, 1.38, 1.71)

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
    numbers: ClassVar[tuple[float, ...]] = (0.0943, 0.185, 0.271, 0.356, 0.441)

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
    coarse = int(np.ceil(size / factor))
    first = (size - coarse * factor) / 2
    means = _means(size, first + factor * np.arange(coarse), factor)
    places = np.clip((np.arange(size) + 0.5 - first) / factor - 0.5, 0, coarse - 1)
    lines = np.clip(1 - np.abs(places[:, None] - np.arange(coarse)), 0, None)  # (size, coarse)
    return _times(lines @ means, image, axis)


def _means(size: int, starts: np.ndarray, width: float) -> np.ndarray:
    """Weights (starts, size) of the voxels between each start and `width` behind it, of sum 1."""
    starts, voxels = starts[:, None], np.arange(size)
    inside = np.minimum(starts + width, voxels + 1) - np.maximum(starts, voxels)
    weights = np.clip(inside, 0, None)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _times(matrix: np.ndarray, image: np.ndarray, axis: int) -> np.ndarray:
    """The matrix (size, size) times the lines of the image along an axis."""
    made = np.tensordot(image, matrix.astype(np.float32), axes=(axis, 1))
    return np.moveaxis(made, -1, axis)
