"""The figures of a report: tables and slices in, a matplotlib Figure out; no files, no pyplot.

Every structure has one colour of the Okabe-Ito palette, told apart by colour-blind readers too,
and it is the same in every figure. From the eighth on it is a lighter or a darker one.
"""

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from segshift.metrics import Measure, SelectionScore
from segshift.report.cells import failed_patients
from segshift.report.measures import are_fractions, inside_means, records, written
from segshift.report.slices import Slice
from segshift.results import IN_DOMAIN

# Without black, which is lost on an image, and with yellow, which is lost on paper, last.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
# Shares of white (1) or black (0) in the palette's rounds: those that leave most between any two
# of the 21, also in simulated colour blindness, and are not lost on an image.
SHADES = ((0.0, 0), (0.5, 1), (0.4, 0))
INK, GREY, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"
DRAWN_POINTS = 1000  # of a curve; more would only make the page heavy
OVERLAY_INCHES = 3.2


def loss_curve(metrics: pd.DataFrame) -> Figure:
    """Training loss against the step, from Lightning's `metrics.csv`; thin as logged."""
    figure, axes = _panel()
    loss = _series(metrics, "train/loss")
    smooth = loss.rolling(max(len(loss) // 15, 1), center=True, min_periods=1).mean()
    every = len(loss) // DRAWN_POINTS + 1
    for line, colour, width in ((loss, OKABE_ITO[1], 0.8), (smooth, INK, 1.6)):
        axes.plot(line.iloc[::every], color=colour, linewidth=width)
    _label(axes, title="training loss", x="step")
    return figure


def validation_curve(metrics: pd.DataFrame) -> Figure:
    """The score that chooses the checkpoint, from the same file; the best step has a ring."""
    figure, axes = _panel()
    values = _series(metrics, f"val/{SelectionScore.name}")
    axes.plot(values.index, values, color=OKABE_ITO[4], linewidth=1.8, marker=".", markersize=4)
    axes.set_ylim(0, 1.02)
    title = "validation score"
    if not values.empty:
        best = values[values == values.max()].iloc[:1]
        title += f", best {written(best.iloc[0], 3)} at step {best.index[0]}"
        axes.plot(best, "o", markersize=9, mfc="none", mec=INK)
    _label(axes, title=title, x="step")
    return figure


def site_strip(
    rows: pd.DataFrame, sites: pd.DataFrame, *, structures: Sequence[str], measure: Measure
) -> Figure:
    """`measure` of every case as a dot, one lane per set, site and structure, means as bars.

    `sites` is the `site_table` of the rows, whose means are over patients. Outside `in_domain` a
    band leads from the mean in domain to that of the site: the gap.
    """
    drawn = rows[(rows["metric"] == measure.name) & rows["structure"].isin(structures)]
    colours, inside = colours_of(structures), inside_means(drawn, measure)
    lines = {(x["set"], x["site"], x["structure"]): x for x in records(sites)}
    groups = sorted(
        {
            (set_ != IN_DOMAIN, set_, site)
            for set_, site in zip(drawn["set"], drawn["site"], strict=True)
        }
    )
    height = max(len(structures), 2) + 0.7  # of a group, in lanes
    figure = Figure(
        figsize=(8, 0.9 + 0.23 * height * max(len(groups), 1)), dpi=150, layout="constrained"
    )
    axes = figure.subplots()
    for number, (outside, set_, site) in enumerate(groups):
        top = number * height
        here = drawn[(drawn["set"] == set_) & (drawn["site"] == site)]
        _name_group(axes, y=top + (height - 0.7) / 2, site=site, set_=set_)
        if number:
            axes.axhline(top - 0.35, color=FAINT, linewidth=0.8)
        for lane, structure in enumerate(structures):
            values = here.loc[here["structure"] == structure, "value"].dropna().sort_values()
            y = top + lane + (height - 0.7 - len(structures)) / 2 + 0.5
            if values.empty:
                _beside(axes, "n 0", y=y, colour=GREY)
                continue
            line = lines[set_, site, structure]
            start = inside[structure] if outside and structure in inside else None
            ends = start, line[measure.name]
            _lane(axes, values.to_numpy(), ends, y=y, colour=colours[structure])
            _beside(axes, _lane_note(line, measure), y=y, colour=INK)
    axes.set_ylim(max(len(groups), 1) * height - 0.35, -0.35)
    if are_fractions(drawn["value"]):
        axes.set_xlim(-0.02, 1.02)
    axes.set_yticks([])
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    told = "dots are cases, bars are means, bands lead from the mean in domain"
    _label(axes, x=f"{measure.name}: {told}")
    keys = [Line2D([], [], ls="", marker="o", color=colours[s], label=s) for s in structures]
    figure.legend(handles=keys, loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    return figure


def overlay(shown: Slice, *, structures: Sequence[str]) -> Figure:
    """A slice that fills the picture; the reference's outline solid, the prediction's dashed."""
    rows, columns = shown.image.shape
    ratio = rows * shown.spacing_mm[0] / (columns * shown.spacing_mm[1])
    height = OVERLAY_INCHES * min(max(ratio, 0.4), 2)
    figure = Figure(figsize=(OVERLAY_INCHES, height), dpi=150, facecolor="black")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    aspect = shown.spacing_mm[0] / shown.spacing_mm[1]
    low, high = shown.window()
    axes.imshow(shown.image, cmap="gray", vmin=low, vmax=high, aspect=aspect)
    colours = colours_of(structures)
    for structure, *masks in zip(structures, shown.reference, shown.prediction, strict=True):
        for mask, style in zip(masks, ("solid", "dashed"), strict=True):
            _outline(axes, mask, colour=colours[structure], style=style)
    return figure


def reliability_diagram(bins: pd.DataFrame, *, structures: Sequence[str], title: str) -> Figure:
    """Share of voxels that are the structure against the probability given to them.

    `bins` has the columns structure, voxels, confidence, accuracy; lines of several sites are
    pooled. The diagonal is a network whose probabilities are right; the area of a dot grows with
    the logarithm of its voxels.
    """
    figure, axes = _panel(width=3.4, height=3.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    colours = colours_of(structures)
    for structure in structures:
        own = bins[(bins["structure"] == structure) & (bins["voxels"] > 0)]
        sums = own[["confidence", "accuracy"]].mul(own["voxels"], axis=0)
        sums = sums.assign(voxels=own["voxels"]).groupby(own["low"]).sum()
        means = sums[["confidence", "accuracy"]].div(sums["voxels"], axis=0)
        colour = colours[structure]
        axes.plot(
            means["confidence"], means["accuracy"], linewidth=1.4, color=colour, label=structure
        )
        axes.scatter(
            means["confidence"], means["accuracy"], s=4 + 6 * np.log10(sums["voxels"]),
            color=colour, lw=0,
        )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_ylabel("share of voxels that are it", fontsize=8.5, color=GREY)
    axes.legend(loc="lower right", frameon=False, fontsize=7.5, labelcolor=INK)
    _label(axes, title=fill(title, width=45), x="probability of the structure")
    return figure


def colours_of(structures: Sequence[str]) -> Mapping[str, str]:
    """The colour of each structure, the same in every figure; those of 21 differ."""
    palette = [_shade(colour, *shade) for shade in SHADES for colour in OKABE_ITO]
    return {name: palette[i % len(palette)] for i, name in enumerate(structures)}


def jitter(count: int) -> NDArray[np.float64]:
    """Offsets in -0.5..0.5 for sorted values, of which neighbours are far apart; 0 for one."""
    return np.arange(count, dtype=np.float64) * 0.618 % 1 - 0.5 if count > 1 else np.zeros(count)


def _shade(colour: str, share: float, grey: int) -> str:
    red, green, blue = ((1 - share) * part + share * grey for part in to_rgb(colour))
    return to_hex((red, green, blue)).upper()


def _panel(*, width: float = 4.0, height: float = 2.6) -> tuple[Figure, Axes]:
    """Narrow enough to be read on a phone; the page puts two side by side where there is room."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure, figure.subplots()


def _series(metrics: pd.DataFrame, column: str) -> "pd.Series[float]":
    """The column's values by step; it is empty in the lines that logged something else."""
    if column not in metrics:
        return pd.Series(dtype="float64")
    return metrics.dropna(subset=[column]).set_index("step")[column]


def _label(axes: Axes, *, x: str, title: str = "") -> None:
    axes.set_title(title, fontsize=9, color=INK, loc="left", parse_math=False)
    axes.set_xlabel(x, fontsize=8.5, color=GREY)
    axes.tick_params(labelsize=8, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _name_group(axes: Axes, *, y: float, site: str, set_: str) -> None:
    beside = axes.get_yaxis_transform()
    place: dict[str, Any] = {"transform": beside, "ha": "right", "parse_math": False}
    axes.text(-0.015, y, site, va="bottom", fontsize=9.5, color=INK, **place)
    axes.text(-0.015, y, set_, va="top", fontsize=7.5, color=GREY, **place)


def _lane(
    axes: Axes,
    values: NDArray[np.float64],
    ends: tuple[float | None, float],
    *,
    y: float,
    colour: str,
) -> None:
    """One structure at one site; `values` sorted, so that neighbours get different heights.

    The band leads from the mean in domain, if there is one, to that of the site.
    """
    inside, mean = ends
    if inside is not None:
        axes.fill_betweenx([y - 0.28, y + 0.28], inside, mean, color=colour, alpha=0.22, lw=0)
        axes.plot([inside] * 2, [y - 0.36, y + 0.36], color=colour, linewidth=1.2, linestyle=":")
    heights = y + 0.45 * jitter(len(values))
    axes.scatter(values, heights, s=15, color=colour, alpha=0.8, lw=0, zorder=3)
    axes.plot([mean] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=2.2)


def _beside(axes: Axes, note: str, *, y: float, colour: str) -> None:
    beside = axes.get_yaxis_transform()
    axes.text(1.015, y, note, transform=beside, va="center", fontsize=7.5, color=colour)


def _lane_note(line: Mapping[str, Any], measure: Measure) -> str:
    failed = failed_patients(line, measure)
    note = f"{line[measure.name]:.2f}  n {line[f'{measure.name}_n']}"
    return note if failed is None else f"{note}, {failed.patients} failed"


def _outline(axes: Axes, mask: NDArray[np.bool_], *, colour: str, style: str) -> None:
    if not mask.any():
        return
    # A frame closes the outline of a structure that leaves the image.
    framed = np.pad(mask, 1).astype(np.float32)
    y, x = (np.arange(-1, n + 1) for n in mask.shape)
    lines = axes.contour(x, y, framed, [0.5], colors=[colour], linestyles=[style])
    lines.set_linewidth(1.8 if style == "solid" else 1.3)
    if style == "dashed":  # dark edges, or it could not be seen where it covers the reference
        lines.set_path_effects([withStroke(linewidth=2.6, foreground="black")])
