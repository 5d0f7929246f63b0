"""Noise: of an MR magnitude, and of a CT at a lower dose."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import fft

from segshift.mr_signal import add_rician_noise
from segshift.shifts.scale import robust_range
from segshift.shifts.shift import Acquisition, Graded

NOISE_AT_FULL_DOSE_HU = 10.0
PEAK = 0.2  # cycles per pixel at which a usual kernel's noise is strongest


@dataclass(frozen=True, slots=True)
class RicianNoise(Graded):
    """The magnitude of the signal with Gaussian noise in both receiver channels.

    Gudbjartsson and Patz, MRM 1995. Negative intensities are measured from their minimum.
    """

    name: ClassVar[str] = "rician_noise"
    unit: ClassVar[str] = "standard deviation per channel, share of the range"
    numbers: ClassVar[tuple[float, ...]] = (0.0147, 0.0294, 0.0444, 0.0596, 0.0751)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Noise of the same size everywhere, which lifts what is dark."""
        _, width = robust_range(image)
        floor = np.minimum(image.min(axis=(1, 2, 3), keepdims=True), 0)
        noisy = add_rician_noise(image - floor, np.float32(self.number) * width, random)
        return np.asarray(noisy + floor)


@dataclass(frozen=True, slots=True)
class DoseNoise(Graded):
    """Quantum noise of a CT that was taken with a part of the dose, in Hounsfield units.

    The variance grows with 1 / dose; what is added to a scan with 10 HU at its full dose has the
    spectrum of filtered back-projection, which rises with the frequency and falls with the kernel
    (Riederer et al., Phys Med Biol 1978).
    """

    name: ClassVar[str] = "dose_noise"
    unit: ClassVar[str] = "share of the dose"
    numbers: ClassVar[tuple[float, ...]] = (0.786, 0.478, 0.289, 0.185, 0.126)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Add noise that is correlated in plane."""
        added_hu = NOISE_AT_FULL_DOSE_HU * np.sqrt(1 / self.number - 1)
        white = random.standard_normal(image.shape, dtype=np.float32)
        y, x = (fft.fftfreq(size) for size in image.shape[2:])
        frequency = np.hypot(y[:, None], x)
        spectrum = frequency * np.exp(-frequency / PEAK)
        power = spectrum.mean()  # 0 in an image of one pixel, whose noise is white
        gain = np.sqrt(spectrum / power if power else np.ones_like(spectrum)).astype(np.float32)
        half = gain[:, : image.shape[3] // 2 + 1]
        noise = fft.irfft2(fft.rfft2(white) * half, s=image.shape[2:])
        return np.asarray(image + np.float32(added_hu) * noise)
