"""The signal that MR measures: what the simulated sites and the shifts of contrast agree on.

Times are in ms. Every function is pure: what is random is drawn from the generator passed in.
"""

import numpy as np


def spin_echo(
    proton_density: np.ndarray, t1_ms: np.ndarray, t2_ms: np.ndarray, *, tr_ms: float, te_ms: float
) -> np.ndarray:
    """S = PD (1 - exp(-TR / T1)) exp(-TE / T2), for TE much shorter than TR."""
    return np.asarray(proton_density * (1.0 - np.exp(-tr_ms / t1_ms)) * np.exp(-te_ms / t2_ms))


def add_rician_noise(
    signal: np.ndarray, sigma: float | np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The magnitude of the signal with Gaussian noise in both channels, in the signal's dtype."""
    real = signal + sigma * rng.standard_normal(signal.shape, dtype=signal.dtype)
    imaginary = sigma * rng.standard_normal(signal.shape, dtype=signal.dtype)
    return np.asarray(np.hypot(real, imaginary))
