"""The signal that MR measures: what the simulated sites and the shifts of MR images agree on.

Times are in ms. Every function is pure: what is random is drawn from the generator passed in.
"""

from collections.abc import Sequence

import numpy as np
from scipy import fft

PLANE = (-2, -1)  # the axes y and x, along which k-space is sampled


def spin_echo(
    proton_density: np.ndarray, t1_ms: np.ndarray, t2_ms: np.ndarray, *, tr_ms: float, te_ms: float
) -> np.ndarray:
    """S = PD (1 - exp(-TR / T1)) exp(-TE / T2), for TE much shorter than TR."""
    return np.asarray(proton_density * (1.0 - np.exp(-tr_ms / t1_ms)) * np.exp(-te_ms / t2_ms))


def add_rician_noise(
    signal: np.ndarray, sigma: float | np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The magnitude of the signal with Gaussian noise in both channels, in the signal's dtype."""
    return np.asarray(np.hypot(*receiver_channels(signal, sigma, rng)))


def receiver_channels(
    signal: np.ndarray, sigma: float | np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The real and the imaginary channel of the signal with Gaussian noise, in its dtype."""
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=signal.dtype)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=signal.dtype)
    return real, imaginary


def reconstructed(image: np.ndarray, *, acquired: float, filter_strength: float) -> np.ndarray:
    """Real images (..., H, W) of k-space that was acquired in part, filtered and zero filled.

    As a scanner's software makes a larger matrix of fewer lines: of each slice's k-space the part
    `acquired` (0 to 1) along y and along x is kept and multiplied by `k_space_window`; zeros take
    the place of the rest. The mean of a slice stays (Bernstein, Fain and Riederer, JMRI 2001).
    """
    height, width = image.shape[-2:]
    window = k_space_window((height, width), acquired=acquired, filter_strength=filter_strength)
    half = window[:, : width // 2 + 1].astype(image.dtype)
    return np.asarray(fft.irfft2(fft.rfft2(image, axes=PLANE) * half, s=(height, width)))


def k_space_window(shape: Sequence[int], *, acquired: float, filter_strength: float) -> np.ndarray:
    """The weights (H, W) of k-space, zero frequency first: 1 in the middle, 0 where none was taken.

    Along each axis 1 - strength sin^2(pi u / 2), u from 0 in the middle to 1 at the edge of what
    was acquired: strength 0 is no filter, 0.92 Hamming's, 1 Hann's (Harris, Proc IEEE 1978).
    """
    y, x = (_window(size, acquired, filter_strength) for size in shape)
    return np.asarray(y[:, None] * x)


def _window(size: int, acquired: float, filter_strength: float) -> np.ndarray:
    edge = np.abs(fft.fftfreq(size)) / (acquired / 2)
    weights = 1 - filter_strength * np.sin(np.pi / 2 * edge) ** 2
    return np.where(edge <= 1 + 1e-9, weights, 0)
