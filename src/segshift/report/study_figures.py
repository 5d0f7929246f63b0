"""The figures of a study for paper and README: tables in, a matplotlib Figure out; no files.

`matrix_figure`: the train-test matrix as a heat map, beside it every case at every site.
`gaps_figure`: what is lost at another site, split into a harder site and the shift.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from segshift.metrics import Measure
from segshift.report.figures import FAINT, GREY, INK, OKABE_ITO, jitter
from segshift.report.heat import Cell, Heat, Scale
from segshift.report.lanes import Lanes
from segshift.report.measures import lines_of, records
from segshift.report.study_lanes import KEY
from segshift.report.study_words import train_label
from segshift.results import place_name

DRAWN_LANES = 5  # per site
DRAWN_SITES = 12  # as strips; the page has all
CELL_INCHES, SMALL_CELL_INCHES = (0.85, 0.8), (0.42, 0.3)
DRAWN_PAIRS = 24
WITH_INTERVALS = 7  # columns in which an interval still fits below the number
LONGEST_NAME = 24
FITTING_NAME = 13  # letters above an inch of cells
HARDER, SHIFT = GREY, OKABE_ITO[4]


def matrix_figure(heat: Heat, lanes: Lanes, *, scale: Scale, title: str) -> Figure:
    """The heat map of one variant, and the lanes of its first sites, `DRAWN_SITES` at most."""
    sites = list(lanes.groups.items())[:DRAWN_SITES]
    drawn = {key: own[:DRAWN_LANES] for key, own in sites}
    count = sum(len(own) + 1 for own in drawn.values())
    wide, high = _cell_inches(heat)
    width = 1.6 + wide * len(heat.columns)
    height = max(high * len(heat.lines) + 1.2, 0.19 * count + 0.9, 2.4)
    figure = Figure(figsize=(width + 4.6, height), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(width, 4.6))
    _heat(left, heat, scale=scale)
    _strips(right, Lanes(drawn, lanes.ticks), metric=scale.measure.name)
    figure.suptitle(_short(title, 90), fontsize=9.5, color=INK, x=0.01, ha="left", parse_math=False)
    colours = {name: colour for name, colour in KEY.items()}
    keys = [Line2D([], [], ls="", marker="o", color=c, label=name) for name, c in colours.items()]
    right.legend(
        handles=keys, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=7.5,
        handletextpad=0.1, columnspacing=0.9, borderaxespad=0.1,
    )  # fmt: skip
    return figure


def gaps_figure(gaps: pd.DataFrame, *, measure: Measure, sites: Sequence[str]) -> Figure:
    """The gap of each pair with its interval, below it the bars that it is made of, worst first."""
    pairs = lines_of(gaps, measure).dropna(subset=["gap"])
    order = ["gap", "variant", "train", "site"]
    shown = pairs.sort_values(order, ascending=[False, True, True, True]).head(DRAWN_PAIRS)
    figure = Figure(figsize=(8, 1.4 + 0.36 * max(len(shown), 1)), dpi=150, layout="constrained")
    axes = figure.subplots()
    axes.use_sticky_edges = False  # the longest bar would end in the frame
    names = []
    for y, line in enumerate(records(shown)):
        if pd.notna(line["shift"]):
            harder, shift = line["harder"], line["shift"]
            axes.barh(y, harder, height=0.56, color=HARDER, alpha=0.35, hatch="///", lw=0)
            axes.barh(y, shift, left=harder, height=0.3, color=SHIFT, alpha=0.85, lw=0)
        axes.plot([line["gap_low"], line["gap_high"]], [y, y], color=INK, linewidth=1.3)
        axes.plot([line["gap"]], [y], "o", color=INK, markersize=4.5)
        variant = f"{line['variant']}: " if line["variant"] else ""
        trained = _short(train_label(line["train"], sites))
        tested = _short(place_name(line["set"], line["site"]))
        names.append(f"{_short(variant)}{trained} -> {tested}")
    axes.axvline(0, color=GREY, linewidth=0.9, linestyle=":")
    axes.set_yticks(range(len(names)), names, fontsize=7.5, parse_math=False)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    left_out = f"; the worst {len(shown)} of {len(pairs)} pairs" if len(pairs) > len(shown) else ""
    text = f"worse in {measure.name} than at home, with 95 % interval{left_out}"
    axes.set_xlabel(text, fontsize=8.5, color=GREY, parse_math=False)
    _style(axes)
    keys = [
        Line2D([], [], color=INK, marker="o", markersize=4.5, linewidth=1.3, label="gap"),
        Patch(facecolor=HARDER, alpha=0.35, hatch="///", lw=0, label="the site is harder"),
        Patch(facecolor=SHIFT, alpha=0.85, lw=0, label="the shift"),
    ]
    figure.legend(handles=keys, loc="outside upper left", ncols=3, frameon=False, fontsize=8)
    return figure


def _cell_inches(heat: Heat) -> tuple[float, float]:
    return CELL_INCHES if len(heat.columns) <= WITH_INTERVALS else SMALL_CELL_INCHES


def _heat(axes: Axes, heat: Heat, *, scale: Scale) -> None:
    for y, line in enumerate(heat.lines):
        for x, cell in enumerate(line.cells):
            _cell(axes, cell, (x, y), few=len(heat.columns) <= WITH_INTERVALS)
    _heat_axes(axes, heat)
    text = f"mean {scale.measure.name}; bold: trained at this site"
    axes.set_xlabel(text, fontsize=8, color=GREY, parse_math=False)


def _cell(axes: Axes, cell: Cell | None, place: tuple[float, float], *, few: bool) -> None:
    x, y = place
    hatch = None if cell else "///"
    ground = cell.ground if cell else FAINT
    axes.add_patch(
        Rectangle(
            (x - 0.5, y - 0.5), 1, 1, facecolor=ground, edgecolor="white", lw=1.5, hatch=hatch
        )
    )
    if cell is None:
        return
    style: dict[str, Any] = {"ha": "center", "va": "center", "color": cell.ink}
    weight, size = "bold" if cell.own else "normal", 9 if few else 6.5
    below = [cell.interval, cell.failed, cell.share] if few else []
    lines = list(filter(None, below))
    axes.text(x, y - 0.12 * len(lines), cell.text, fontsize=size, weight=weight, **style)
    for number, line in enumerate(lines, start=1):
        axes.text(x, y - 0.12 * len(lines) + 0.07 + 0.23 * number, line, fontsize=6.3, **style)


def _heat_axes(axes: Axes, heat: Heat) -> None:
    columns = [_short(name) for name in heat.columns]
    lines = [_short(line.name) for line in heat.lines]
    axes.set_xlim(-0.5, max(len(columns), 1) - 0.5)
    axes.set_ylim(max(len(lines), 1) - 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), columns, fontsize=8, parse_math=False)
    wide, _ = _cell_inches(heat)
    if max(map(len, columns), default=0) > FITTING_NAME * wide:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="left")
    axes.set_yticks(range(len(lines)), lines, fontsize=8, parse_math=False)
    axes.tick_params(length=0, colors=GREY)
    axes.spines[:].set_visible(False)
    axes.set_ylabel("trained at", fontsize=8.5, color=GREY)
    axes.set_title("tested at", fontsize=8.5, color=GREY, loc="left")


def _strips(axes: Axes, lanes: Lanes, *, metric: str) -> None:
    y, names = 0.0, []
    for (_, site), own in lanes.groups.items():
        axes.text(0, y, _short(site, 40), va="center", fontsize=8.5, color=INK, parse_math=False)
        for lane in own:
            y += 1
            if lane.inside is not None and lane.mean is not None:
                ends = sorted((lane.inside, lane.mean))
                axes.fill_betweenx(
                    [y - 0.3, y + 0.3], ends[0], ends[1], color=lane.colour, alpha=0.22, lw=0
                )
            heights = y + 0.5 * jitter(len(lane.dots))
            places = [dot.x for dot in lane.dots]
            axes.scatter(places, heights, s=9, color=lane.colour, alpha=0.8, lw=0, zorder=3)
            if lane.mean is not None:
                axes.plot([lane.mean] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=2, zorder=4)
            names.append((y, lane.name))
        y += 1.15
    axes.set_yticks([at for at, _ in names], [_short(name) for _, name in names], parse_math=False)
    axes.set_ylim(y - 0.4, -0.7)
    axes.set_xlim(-1, 101)
    axes.set_xticks([at for at, _ in lanes.ticks], [label for _, label in lanes.ticks])
    text = f"{metric}: dots are cases, bars are means,\nbands lead from the site's own network"
    axes.set_xlabel(text, fontsize=8, color=GREY, parse_math=False)
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    _style(axes)
    axes.tick_params(axis="y", labelsize=7, length=0)


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=7.5, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _short(name: str, letters: int = LONGEST_NAME) -> str:
    return name if len(name) <= letters else name[: letters - 3] + "..."
