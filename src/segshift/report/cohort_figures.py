"""The figures of a cohort's fingerprint: spacing, intensities and sizes, one lane per site."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from segshift.cohort.fingerprint import CaseFacts
from segshift.report.figures import FAINT, GREY, INK, OKABE_ITO
from segshift.report.fingerprint import AXES, by_site

BINS = 60


def write_cohort_figures(
    facts: Sequence[CaseFacts],
    folder: str | Path,
    *,
    channels: Sequence[str],
    structures: Sequence[str],
) -> list[Path]:
    """Write to `folder` intensities.png, spacing.png where one is known, and volumes.png.

    The last is of structures, if there are any, and called areas.png where all cases are pictures.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = any(one.grid.units.known for one in facts)
    figures = {"spacing": spacing_figure(facts)} if known else {}
    figures["intensities"] = intensity_figure(facts, channels=channels)
    if structures:
        sized = "areas" if all(one.grid.units.flat for one in facts) else "volumes"
        figures[sized] = size_figure(facts, structures=structures)
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in figures]


def spacing_figure(facts: Sequence[CaseFacts]) -> Figure:
    """Voxel size along each axis, a dot per case that has a known one."""
    axes = [axis for axis in range(3) if any(one.grid.shape[axis] > 1 for one in facts)]
    figure, panels = _panels([f"spacing {AXES[axis]}, mm" for axis in axes], facts)
    for axis, panel in zip(axes, panels, strict=True):
        for lane, own in enumerate(by_site(facts).values()):
            known_mm = [one.grid.spacing_mm for one in own if one.grid.spacing_mm is not None]
            values = np.array([spacing_mm[axis] for spacing_mm in known_mm])
            _dots(panel, values, lane=lane, colour=OKABE_ITO[5])
    return figure


def size_figure(facts: Sequence[CaseFacts], *, structures: Sequence[str]) -> Figure:
    """Size of each structure in each unit, a dot per case that has it, the median as a bar."""
    units = list(dict.fromkeys(one.grid.units.size for one in facts))
    shown = [(place, name, unit) for place, name in enumerate(structures) for unit in units]
    figure, panels = _panels([f"{name}, {unit}" for _, name, unit in shown], facts)
    for (place, _, unit), panel in zip(shown, panels, strict=True):
        for lane, own in enumerate(by_site(facts).values()):
            here = [one for one in own if one.grid.units.size == unit and one.counts[place]]
            values = np.array([one.size(place) for one in here])
            _dots(panel, values, lane=lane, colour=OKABE_ITO[place % len(OKABE_ITO)])
    return figure


def intensity_figure(facts: Sequence[CaseFacts], *, channels: Sequence[str]) -> Figure:
    """A histogram per site and channel: everywhere in grey, inside the structures in colour.

    The axis shows the middle 99 % of the whole cohort; each histogram has its own height.
    """
    count = len(facts[0].whole)
    names = list(channels) if len(channels) == count else [str(c) for c in range(count)]
    figure, panels = _panels([f"{n}: all (grey), structures (blue)" for n in names], facts)
    for channel, panel in enumerate(panels):
        pooled = np.concatenate([one.whole[channel] for one in facts])
        low, high = np.percentile(pooled, [0.5, 99.5])
        edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
        for lane, own in enumerate(by_site(facts).values()):
            samples = [np.concatenate([one.whole[channel] for one in own])]
            samples.append(np.concatenate([one.foreground[channel] for one in own]))
            for values, colour in zip(samples, (GREY, OKABE_ITO[1]), strict=True):
                _histogram(panel, values, edges, lane=lane, colour=colour)
    return figure


def _panels(titles: Sequence[str], facts: Sequence[CaseFacts]) -> tuple[Figure, list[Axes]]:
    """A panel per title, side by side; lanes of the sites from top to bottom, n beside them."""
    sites = by_site(facts)
    figure = Figure(
        figsize=(max(2.4 * len(titles), 4) + 1, 0.9 + 0.45 * len(sites)),
        dpi=150,
        layout="constrained",
    )
    panels = list(figure.subplots(1, len(titles), squeeze=False, sharey=True)[0])
    for panel, title in zip(panels, titles, strict=True):
        panel.set_title(title, fontsize=9, color=INK, loc="left", parse_math=False)
        panel.tick_params(labelsize=8, colors=GREY)
        panel.tick_params(axis="y", length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
        panel.spines["bottom"].set_color(FAINT)
        panel.grid(axis="x", color=FAINT, linewidth=0.6)
        panel.set_axisbelow(True)
    panels[0].set_ylim(len(sites) - 0.45, -0.55)
    names = [f"{site}  n {len(own)}" for site, own in sites.items()]
    panels[0].set_yticks(range(len(sites)), names, parse_math=False)
    return figure, panels


def _dots(panel: Axes, values: NDArray[np.float64], *, lane: int, colour: str) -> None:
    if not len(values):
        return
    jitter = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.45 if len(values) > 1 else 0
    heights = lane + jitter * np.ones(len(values))
    panel.scatter(np.sort(values), heights, s=12, color=colour, alpha=0.7, lw=0, zorder=3)
    panel.plot([np.median(values)] * 2, [lane - 0.35, lane + 0.35], color=INK, linewidth=2)


def _histogram(
    panel: Axes,
    values: NDArray[np.float32],
    edges: NDArray[np.float64],
    *,
    lane: int,
    colour: str,
) -> None:
    counts, _ = np.histogram(values, edges)
    if not counts.any():
        return
    heights = lane + 0.35 - 0.8 * counts / counts.max()  # the axis points down
    panel.fill_between(
        edges, lane + 0.35, np.append(heights, heights[-1]), step="post", color=colour, alpha=0.6,
        lw=0,
    )  # fmt: skip
