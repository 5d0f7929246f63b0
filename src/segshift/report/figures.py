"""The figures of a report: tables and slices in, a matplotlib Figure out; no files, no pyplot.

Every structure has one colour of the Okabe-Ito palette, told apart by colour-blind readers too,
and it is the same in every figure.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from segshift.report.measures import are_fractions, digits, written
from segshift.results import IN_DOMAIN

# Without black, which is lost on an image, and with yellow, which is lost on paper, last.
OKABE_ITO = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#D55E00", "#0072B2", "#F0E442")
INK, GREY, FAINT = "#1a1a1a", "#6b6b6b", "#d9d9d9"


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice: image (H, W), masks of the structures (K, H, W), pixel spacing in mm (y, x)."""

    title: str
    image: NDArray[np.float32]
    reference: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    spacing_mm: tuple[float, float]


def learning_curves(metrics: pd.DataFrame, *, metric: str, higher_is_better: bool) -> Figure:
    """Training loss and `val/<metric>` against the step, from Lightning's `metrics.csv`."""
    figure = Figure(figsize=(8, 3), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    loss, values = (_series(metrics, column) for column in ("train/loss", f"val/{metric}"))
    left.plot(loss.index, loss, color=OKABE_ITO[1], linewidth=0.8, alpha=0.7)
    smooth = loss.rolling(max(len(loss) // 15, 1), center=True, min_periods=1).mean()
    left.plot(smooth.index, smooth, color=OKABE_ITO[5], linewidth=1.8)
    _label(left, title="training loss", x="step")
    right.plot(values.index, values, color=OKABE_ITO[4], linewidth=1.8, marker=".", markersize=4)
    if are_fractions(values):
        right.set_ylim(0, 1.02)
    title = f"validation {metric}"
    if not values.empty:
        best = values.max() if higher_is_better else values.min()
        step = values.idxmax() if higher_is_better else values.idxmin()
        title += f", best {written(best, digits(metric))} at step {step}"
        right.plot([step], [best], "o", markersize=9, mfc="none", mec=INK)
    _label(right, title=title, x="step")
    return figure


def site_strip(rows: pd.DataFrame, *, structures: Sequence[str], metric: str) -> Figure:
    """`metric` of every case as a dot, one lane per set, site and structure, means as bars.

    Outside `in_domain` a band leads from the mean in domain to that of the site: the gap.
    """
    drawn = rows[(rows["metric"] == metric) & rows["structure"].isin(structures)]
    colours = _colours(structures)
    inside = drawn[drawn["set"] == IN_DOMAIN].groupby("structure")["value"].mean()
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
            start = inside.get(structure, np.nan) if outside else np.nan
            y = top + lane + (height - 0.7 - len(structures)) / 2 + 0.5
            _lane(axes, values.to_numpy(), y=y, colour=colours[structure], inside=float(start))
    axes.set_ylim(max(len(groups), 1) * height - 0.35, -0.35)
    if are_fractions(drawn["value"]):
        axes.set_xlim(-0.02, 1.02)
    axes.set_yticks([])
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    _label(axes, x=f"{metric}: dots are cases, bars are means, bands lead from the mean in domain")
    keys = [Line2D([], [], ls="", marker="o", color=colours[s], label=s) for s in structures]
    figure.legend(handles=keys, loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    return figure


def overlays(slices: Sequence[Slice], *, structures: Sequence[str]) -> Figure:
    """Slices side by side; outline of the reference solid, of the prediction dashed."""
    columns = max(len(slices), 3)  # so that one case is not three times as large as three
    tallest = max(_height_over_width(one) for one in slices)
    height = 8 / columns * min(max(tallest, 0.4), 2) + 0.9
    figure = Figure(figsize=(8, height), dpi=150, layout="constrained")
    colours = _colours(structures)
    places = figure.subplots(1, columns, squeeze=False)[0]
    for axes in places:
        axes.set_axis_off()
    for axes, one in zip(places, slices, strict=False):
        low, high = np.percentile(one.image, [1, 99])
        aspect = one.spacing_mm[0] / one.spacing_mm[1]
        axes.imshow(one.image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
        for structure, *masks in zip(structures, one.reference, one.prediction, strict=True):
            for mask, style in zip(masks, ("solid", "dashed"), strict=True):
                _outline(axes, mask, colour=colours[structure], style=style)
        axes.set_title(one.title, fontsize=8, color=INK, parse_math=False)
    keys = [Line2D([], [], color=colours[s], linewidth=3, label=s) for s in structures]
    keys.append(Line2D([], [], color=INK, linestyle="-", label="reference"))
    keys.append(Line2D([], [], color=INK, linestyle="--", label="prediction"))
    figure.legend(handles=keys, loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    return figure


def _colours(structures: Sequence[str]) -> Mapping[str, str]:
    return {name: OKABE_ITO[i % len(OKABE_ITO)] for i, name in enumerate(structures)}


def _height_over_width(one: Slice) -> float:
    rows, columns = one.image.shape
    return float(rows * one.spacing_mm[0] / (columns * one.spacing_mm[1]))


def _series(metrics: pd.DataFrame, column: str) -> "pd.Series[float]":
    """The column's values by step; it is empty in the lines that logged something else."""
    if column not in metrics:
        return pd.Series(dtype="float64")
    return metrics.dropna(subset=[column]).set_index("step")[column]


def _label(axes: Axes, *, x: str, title: str = "") -> None:
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=8.5, color=GREY)
    axes.tick_params(labelsize=8, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _name_group(axes: Axes, *, y: float, site: str, set_: str) -> None:
    beside = axes.get_yaxis_transform()
    place: dict[str, Any] = {"transform": beside, "ha": "right", "parse_math": False}
    axes.text(-0.015, y, site, va="bottom", fontsize=9.5, color=INK, **place)
    axes.text(-0.015, y, set_, va="top", fontsize=7.5, color=GREY, **place)


def _lane(axes: Axes, values: NDArray[np.float64], *, y: float, colour: str, inside: float) -> None:
    """One structure at one site; `values` sorted, so that neighbours get different heights."""
    beside = axes.get_yaxis_transform()
    if not len(values):
        axes.text(1.015, y, "n 0", transform=beside, va="center", fontsize=7.5, color=GREY)
        return
    mean = float(values.mean())
    jitter = (np.arange(len(values)) * 0.618 % 1 - 0.5) * 0.45 if len(values) > 1 else 0
    if np.isfinite(inside):
        axes.fill_betweenx([y - 0.28, y + 0.28], inside, mean, color=colour, alpha=0.22, lw=0)
        axes.plot([inside] * 2, [y - 0.36, y + 0.36], color=colour, linewidth=1.2, linestyle=":")
    axes.scatter(
        values, y + jitter * np.ones(len(values)), s=15, color=colour, alpha=0.8, lw=0, zorder=3
    )
    axes.plot([mean] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=2.2)
    note = f"{mean:.2f}  n {len(values)}"
    axes.text(1.015, y, note, transform=beside, va="center", fontsize=7.5, color=INK)


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
