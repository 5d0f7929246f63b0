"""What happens to k-space of MR, slice by slice; lines are encoded along y.

Images are magnitudes, whose phase nobody stored: it is taken to be 0 before the artefact. Of an
image with negative values, which is no magnitude, the real part stays.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import fft

from segshift.mr_signal import PLANE, reconstructed
from segshift.shifts.geometry import turned_image
from segshift.shifts.scale import robust_range
from segshift.shifts.shift import Acquisition, Graded

FEWEST_GHOSTS, MOST_GHOSTS = 3, 6
MOVED_MM, MOVED_DEGREES = 5.0, 5.0
BEFORE = (0.4, 0.6)  # of the moved lines, those before the middle one, which never moves
STRIPES = (0.1, 0.4)  # cycles per pixel


@dataclass(frozen=True, slots=True)
class Ghosting(Graded):
    """Breathing or flow: every few lines are stronger, and two ghosts lie a part of the view away.

    Lines weighted by 1 + 2 g cos(2 pi k s / N) are copies moved by s and -s that are g as bright
    (Wood and Henkelman, Med Phys 1985).
    """

    name: ClassVar[str] = "ghosting"
    unit: ClassVar[str] = "brightness of each ghost, share of the image's"
    numbers: ClassVar[tuple[float, ...]] = (0.0374, 0.0751, 0.113, 0.152, 0.193)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Weigh the lines."""
        ghosts = int(random.integers(FEWEST_GHOSTS, MOST_GHOSTS, endpoint=True))
        lines = fft.fftfreq(image.shape[2]) * image.shape[2]
        weights = 1 + 2 * self.number * np.cos(2 * np.pi * lines / ghosts)
        k_space = fft.fft2(image, axes=PLANE)
        return _image(k_space * weights.astype(np.float32)[:, None], like=image)


@dataclass(frozen=True, slots=True)
class Motion(Graded):
    """The patient moves twice by 5 mm and 5 degrees, before and after the middle of k-space.

    The outer lines are those of the patient displaced and turned in plane (Shaw et al., MIDL 2019);
    the middle ones, which say where things are, are those at rest, so that the label stays right.
    """

    name: ClassVar[str] = "motion"
    unit: ClassVar[str] = "share of the lines acquired of the moved patient"
    numbers: ClassVar[tuple[float, ...]] = (0.06, 0.206, 0.371, 0.502, 0.598)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Take the outer lines of the moved patient."""
        y, x = (fft.fftfreq(size).astype(np.float32) for size in image.shape[2:])
        k_space = fft.fft2(image, axes=PLANE)
        before = random.uniform(*BEFORE)
        for side, share in ((-1, before), (1, 1 - before)):
            direction, turn = random.uniform(0, 2 * np.pi), random.choice([-1, 1])
            step_mm = MOVED_MM * np.array([np.sin(direction), np.cos(direction)])
            step_y, step_x = step_mm / acquisition.spacing_mm[1:]
            moved = turned_image(image, turn * MOVED_DEGREES, acquisition.spacing_mm)
            ramp = np.exp(-2j * np.pi * (y[:, None] * step_y + x * step_x)).astype(np.complex64)
            lines = side * y > 0.5 - share * self.number
            k_space[:, :, lines] = (fft.fft2(moved, axes=PLANE) * ramp)[:, :, lines]
        return _image(k_space, like=image)


@dataclass(frozen=True, slots=True)
class Gibbs(Graded):
    """Too few lines and samples: k-space is cut off, and edges ring (Archibald, IEEE TMI 2002)."""

    name: ClassVar[str] = "gibbs"
    unit: ClassVar[str] = "part of k-space that is kept along y and along x"
    numbers: ClassVar[tuple[float, ...]] = (0.965, 0.87, 0.72, 0.58, 0.47)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Fill the outside of k-space with zeros."""
        y, x = (np.abs(fft.fftfreq(size)) <= self.number / 2 for size in image.shape[2:])
        return _image(fft.fft2(image, axes=PLANE) * (y[:, None] & x), like=image)


@dataclass(frozen=True, slots=True)
class Reconstruction(Graded):
    """Other reconstruction software: fewer lines, a filter over them, zeros around them.

    Of k-space a part of 1 - s / 4 along y and along x is kept under a window of strength s, from 1
    in the middle to 1 - s at the edge; 0.92 would be Hamming's, 1 Hann's. Images are softer, and
    ring less than where k-space is only cut off (Bernstein, Fain and Riederer, JMRI 2001).
    """

    name: ClassVar[str] = "reconstruction"
    unit: ClassVar[str] = "strength of the filter; a fourth of it of k-space is zero"
    numbers: ClassVar[tuple[float, ...]] = (0.12, 0.29, 0.485, 0.665, 0.84)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Filter k-space and fill its outside with zeros."""
        made = reconstructed(image, acquired=1 - self.number / 4, filter_strength=self.number)
        return _magnitude(made, like=image)


@dataclass(frozen=True, slots=True)
class Spike(Graded):
    """A spark in the room: one sample of each slice's k-space is too large, so stripes cover it.

    A sample of k-space is a plane wave, which is added here where it is cheap: to the image.
    """

    name: ClassVar[str] = "spike"
    unit: ClassVar[str] = "height of the stripes, share of the range"
    numbers: ClassVar[tuple[float, ...]] = (0.0207, 0.0416, 0.0627, 0.0841, 0.106)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Add a wave to each slice."""
        _, depth, *plane = image.shape
        radius, direction, phase = random.uniform(
            (STRIPES[0], 0, 0), (STRIPES[1], 2 * np.pi, 2 * np.pi), (depth, 3)
        ).T
        along_y, along_x = (
            np.rint(frequency * n)[:, None] * np.arange(n) / n  # whole waves: a point of k-space
            for frequency, n in zip(
                (radius * np.sin(direction), radius * np.cos(direction)), plane, strict=True
            )
        )
        cycles = along_y[:, :, None] + along_x[:, None, :] + (phase / (2 * np.pi))[:, None, None]
        _, width = robust_range(image)
        wave = np.exp(2j * np.pi * cycles).astype(np.complex64)
        return _magnitude(image + np.float32(self.number) * width * wave, like=image)


def _image(k_space: np.ndarray, *, like: np.ndarray) -> np.ndarray:
    return _magnitude(fft.ifft2(k_space, axes=PLANE), like=like)


def _magnitude(complex_image: np.ndarray, *, like: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(complex_image) if like.min() >= 0 else complex_image.real)
