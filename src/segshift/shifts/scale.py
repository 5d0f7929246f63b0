"""The image's own scale of intensities, which severities are relative to."""

import numpy as np

LOOKED_AT = 1 << 20  # voxels of a channel; percentiles of more would cost more than the shift


def robust_range(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 1st percentile of each channel of (C, D, H, W) and how far the 99th is: (C, 1, 1, 1).

    The distance is that of the extremes where the percentiles agree, and 1 in a constant channel.
    """
    flat = image.reshape(len(image), -1)
    seen = flat[:, :: flat.shape[1] // LOOKED_AT + 1]
    low, high = np.percentile(seen, [1, 99], axis=1)
    flat_low, flat_high = flat.min(axis=1), flat.max(axis=1)
    alike = high <= low
    low, high = np.where(alike, flat_low, low), np.where(alike, flat_high, high)
    width = np.where(high > low, high - low, 1)
    place = (slice(None), None, None, None)
    return low.astype(np.float32)[place], width.astype(np.float32)[place]
