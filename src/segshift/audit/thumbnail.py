"""One slice of a case with its label's outline, as a PNG for a data URL."""

import base64
import io

import numpy as np
from PIL import Image

from segshift.cohort.case import Case
from segshift.cohort.checks import load_label
from segshift.cohort.images import read_geometry, read_image
from segshift.errors import InputError

WIDTH, MOST_HEIGHT = 240, 480
# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167))


def thumbnail(case: Case) -> str | None:
    """The slice with most foreground, else the middle one, base64; None if it cannot be read."""
    try:
        spacing = read_geometry(case.images[0]).spacing_mm
        image = np.nan_to_num(read_image(case.images[0])[0], posinf=0.0, neginf=0.0)
        label = _label(case)
        if label is None or label.shape != image.shape:
            label = np.zeros(image.shape, np.uint8)
        area = np.count_nonzero(label, axis=(1, 2))
        z = int(area.argmax()) if area.any() else len(image) // 2
        return _png(image[z], label[z], aspect=spacing[1] / spacing[2])
    except Exception:  # the finding beside it says what is wrong with the file
        return None


def _label(case: Case) -> np.ndarray | None:
    try:
        return load_label(case) if case.annotation.paths else None
    except InputError:
        return None


def _png(image: np.ndarray, label: np.ndarray, *, aspect: float) -> str:
    """Of (H, W) in RAS: row 0 is the patient's back, so the picture is turned upside down."""
    low, high = np.quantile(image, (0.01, 0.99))
    grey = np.clip((image - low) / max(float(high - low), 1e-12), 0, 1) * 255
    height = int(np.clip(WIDTH * aspect * image.shape[0] / image.shape[1], 24, MOST_HEIGHT))
    size = (WIDTH, height)
    picture = np.asarray(Image.fromarray(grey.astype(np.uint8)).resize(size), dtype=np.uint8)
    rgb = np.repeat(picture[..., None], 3, axis=2)
    large = np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST))
    edge = np.zeros(large.shape, bool)
    down, across = large[1:] != large[:-1], large[:, 1:] != large[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    for index in np.unique(large[edge & (large > 0)]):
        rgb[edge & (large == index)] = COLOURS[(int(index) - 1) % len(COLOURS)]
    file = io.BytesIO()
    Image.fromarray(rgb[::-1]).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()
