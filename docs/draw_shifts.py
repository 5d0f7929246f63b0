"""Draw docs/images/shifts.png: the suites mr and geometry on a slice of a simulated patient.

`python docs/draw_shifts.py` shows severities 0, 1, 3 and 5 of each shift, and in a line those that
are there or not, every picture in a window of its own, as a reader would set it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from segshift import build
from segshift.cohort.checks import load_case
from segshift.cohort.images import read_image
from segshift.seeds import generator
from segshift.shifts import Acquisition

SEVERITIES = (0, 1, 3, 5)
BLOCKS = 2  # of shifts side by side
GREYS = 40


def main() -> None:
    """Write the picture."""
    conf = build.conf_folder()
    options = OmegaConf.load(conf / "data" / "phantom.yaml").cohort
    options.sites = {"alpha": {**options.sites.alpha, "patients": 1}}
    with TemporaryDirectory() as folder:
        (case,) = build.instantiate(OmegaConf.merge(options, {"folder": folder})).cases
        volume, maps = load_case(case), read_image(case.maps)
    acquisition = Acquisition(volume.spacing_mm, case.tags, maps)
    suite = [
        entry
        for name in ("mr", "geometry")
        for entry in OmegaConf.to_container(OmegaConf.load(conf / "shift" / f"{name}.yaml").suite)
    ]
    lines = _lines(suite)
    rows = -(-len(lines) // BLOCKS)
    figure = Figure(figsize=(10, 1.04 * rows), dpi=90)
    grid = figure.subplots(
        rows, BLOCKS * len(SEVERITIES),
        gridspec_kw={"left": 0, "right": 1, "bottom": 0, "top": 1, "wspace": 0.02, "hspace": 0.02},
    )  # fmt: skip
    for axes in grid.flat:
        axes.set_axis_off()
    for number, line in enumerate(lines):
        for column, (text, entry) in enumerate(line):
            shift = build.instantiate(OmegaConf.create(entry))
            random = generator(0, "shift", shift.name, case.id)
            image = shift(volume.image, acquisition=acquisition, random=random)[0]
            plane = image[image.shape[0] // 2, ::-1]
            axes = grid[number % rows, number // rows * len(SEVERITIES) + column]
            low, high = np.percentile(plane, [1, 99.5])
            axes.imshow(plane, cmap="gray", vmin=low, vmax=high, aspect="auto")
            axes.text(
                0.03, 0.96, text or shift.name.replace("_", " "), color="white", fontsize=8,
                va="top", transform=axes.transAxes,
                bbox={"facecolor": "black", "alpha": 0.6, "lw": 0, "pad": 1.5},
            )  # fmt: skip
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    grey = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("L")  # a quarter of the bytes
    grey.quantize(GREYS).save(Path(__file__).parent / "images" / "shifts.png", optimize=True)


def _lines(suite: Sequence[Mapping[str, Any]]) -> list[list[tuple[str, Mapping[str, Any]]]]:
    """Pictures side by side: a text, "" for the shift's name, and what is shown."""
    graded = [
        [(str(severity or ""), {**entry, "severity": severity}) for severity in SEVERITIES]
        for entry in suite
        if "severity" not in entry
    ]
    return [*graded, [("", entry) for entry in suite if "severity" in entry]]


if __name__ == "__main__":
    main()
