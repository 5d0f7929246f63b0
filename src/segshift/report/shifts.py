"""Severity curves: small multiples, one sentence, and what the worst of each shift looks like."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from segshift.metrics import Measure
from segshift.report.cells import failed_of
from segshift.report.figures import FAINT, GREY, INK, colours_of
from segshift.report.measures import are_fractions, digits, records, written
from segshift.report.page import Picture, picture
from segshift.report.slices import sets_of, slice_paths
from segshift.report.svg import inline_svg
from segshift.results import IN_DOMAIN, MEAN
from segshift.results.curves import SEVERITIES, shift_areas, shift_losses
from segshift.results.failures import COUNTS
from segshift.results.names import file_name, slice_folder

COLUMNS = 4
PANEL_INCHES = (2.7, 2.1)
UNRANKED = "their severities are no common steps"


@dataclass(frozen=True, slots=True)
class ShiftSection:
    """What the page shows; losses are means over sets, panels SVG by set.

    `ranked` are those of calibrated shifts, worst first, `unranked` the others by name.
    """

    sentence: str
    ranked: Sequence[Mapping[str, Any]]
    unranked: Sequence[Mapping[str, Any]]
    panels: Mapping[str, Sequence[str]]
    examples: Sequence[Picture]
    why_unranked: str = UNRANKED


def shift_section(
    folder: Path, curves: pd.DataFrame, *, structures: Sequence[str], measure: Measure
) -> ShiftSection | None:
    """Draws `figures/shifts.png`, and one of each further set; None without a shift to be shown."""
    losses = losses_of(curves, measure=measure)
    if not losses:
        return None
    areas = _areas(curves, measure=measure)
    sets, highest = sets_of(areas), areas.set_index(["set", "corruption"])["severity"]
    first = sets[0]
    panels: dict[str, list[str]] = {}
    for set_ in sets:
        own = curves[(curves["set"] == set_) & (curves["metric"] == measure.name)]
        shifts = [x["corruption"] for x in losses if (set_, x["corruption"]) in highest]
        name = "shifts" if set_ == first else f"shifts-{file_name(set_)}"
        shift_figure(own, shifts, structures=structures, measure=measure).savefig(
            folder / "figures" / f"{name}.png"
        )
        panels[set_] = [
            inline_svg(
                shift_figure(own, [shift], structures=structures, measure=measure),
                name=f"{name}-{shift}",
            )
            for shift in shifts
        ]
    return ShiftSection(
        sentence=_sentence(losses[0], measure=measure),
        ranked=[line for line in losses if line["calibrated"]],
        unranked=[line for line in losses if not line["calibrated"]],
        panels=panels,
        examples=[
            picture(
                path,
                folder / "figures" / "shifts" / f"{file_name(shift)}.png",
                head=f"{shift} {highest[first, shift]}",
                where=f"{case}, {first}",
                structures=structures,
            )
            for shift in (line["corruption"] for line in losses)
            if (first, shift) in highest
            for case, path in [
                *slice_paths(slice_folder(folder, first, shift, highest[first, shift])).items()
            ][:1]
        ],
    )


def losses_of(curves: pd.DataFrame, *, measure: Measure) -> list[dict[str, Any]]:
    """Lines of `shift_losses` of `measure`, in their order, and their `sets` and `n`.

    `sets` are those with a curve of the shift, which need not be all; `n` are the cases of these,
    counted where the curve has the fewest. `failed_start` and `failed_end` say which patients of
    these failed without it and at the highest severity; "" beside other metrics than Dice.
    """
    areas = _areas(curves, measure=measure)
    losses = shift_losses(areas)
    sets = {shift: sets_of(own) for shift, own in areas.groupby("corruption")}
    means = curves[(curves["metric"] == measure.name) & (curves["structure"] == MEAN)]
    counts = means.groupby(["corruption", "set"])["n"].min().groupby("corruption").sum()
    of_shifts = losses["corruption"]
    lines = losses.assign(sets=of_shifts.map(sets), n=of_shifts.map(counts))
    for end, severity in (("start", 0), ("end", areas["severity"])):
        point = areas[["set", "corruption"]].assign(severity=severity)
        own = means.merge(point, on=["set", "corruption", "severity"])
        failed = own.groupby("corruption")[COUNTS].sum().reindex(of_shifts)
        lines[f"failed_{end}"] = [failed_of(line, measure) for line in records(failed)]
    return records(lines)


def shift_figure(
    curves: pd.DataFrame, shifts: Sequence[str], *, structures: Sequence[str], measure: Measure
) -> Figure:
    """A panel for each shift in turn: `measure` of one set against the severity, with its band.

    Structures have their colours, their mean is black; all panels have the same axes. A single
    panel has no legend: the page has one for all.
    """
    columns = min(len(shifts), COLUMNS)
    rows = -(-len(shifts) // columns)
    width, height = PANEL_INCHES
    size = (width * columns, height * rows + 0.3 * (len(shifts) > 1))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes, shift in zip(grid.flat, shifts, strict=False):
        _panel(axes, curves[curves["corruption"] == shift], structures=structures)
        axes.set_title(shift.replace("_", " "), fontsize=9, color=INK, loc="left")
    for place in range(len(shifts), grid.size):
        grid.flat[place].set_visible(False)
        grid.flat[place - columns].tick_params(labelbottom=True)
    first = grid[0, 0]
    first.set_xticks(range(SEVERITIES + 1))
    first.set_xlim(0, SEVERITIES + 0.1)
    if are_fractions(curves["mean"]):
        first.set_ylim(0, 1.02)
    for axes in grid[:, 0]:
        axes.set_ylabel(measure.name, fontsize=8, color=GREY)
    if len(shifts) > 1:
        figure.supxlabel("severity", fontsize=8.5, color=GREY)
        colours = {**colours_of(structures), MEAN: INK}
        keys = [Line2D([], [], marker=".", color=c, label=name) for name, c in colours.items()]
        figure.legend(handles=keys, loc="outside upper center", ncols=6, frameon=False, fontsize=8)
    return figure


def print_shifts(curves: pd.DataFrame, *, measure: Measure, console: Console | None = None) -> None:
    """Print what each shift costs, the most harmful first; nothing without shifts.

    Those that are not calibrated have a table of their own, in no order.
    """
    losses = losses_of(curves, measure=measure)
    if not losses:
        return
    sets = sets_of(_areas(curves, measure=measure))
    of, over = (f"{len(sets)} sets", " and sets") if len(sets) > 1 else (sets[0], "")
    about = f"{measure.name} of {of} under shifts, mean over structures{over}"
    for title, lost, calibrated in (
        (about, "lost on average", True),
        (f"not ranked: {UNRANKED}", "lost", False),
    ):
        lines = [line for line in losses if line["calibrated"] == calibrated]
        if lines:
            table = _table(lines, measure=measure, lost=lost, several=len(sets) > 1)
            table.title = title
            (console or Console()).print(table)


def _table(
    lines: Sequence[Mapping[str, Any]], *, measure: Measure, lost: str, several: bool
) -> Table:
    table = Table(title_justify="left", box=SIMPLE_HEAD)
    table.add_column("shift")
    counts = ("sets", "n") if several else ("n",)
    for name in ("without", "with", "severity", lost, *counts):
        table.add_column(name, justify="right")
    for line in lines:
        values = (
            "\n".join(filter(None, (written(line[key], digits(measure)), line[f"failed_{key}"])))
            for key in ("start", "end")
        )
        loss = written(line["loss"], digits(measure))
        numbers = {"sets": len(line["sets"]), "n": line["n"]}
        counted = (str(numbers[name]) for name in counts)
        table.add_row(line["corruption"], *values, f"{line['severity']:.3g}", loss, *counted)
    return table


def _areas(curves: pd.DataFrame, *, measure: Measure) -> pd.DataFrame:
    """Lines of `shift_areas` for the mean of structures."""
    areas = shift_areas(curves, {measure.name: measure})
    return areas[areas["structure"] == MEAN]


def _panel(axes: Axes, curves: pd.DataFrame, *, structures: Sequence[str]) -> None:
    for name, colour in {**colours_of(structures), MEAN: INK}.items():
        curve = curves[curves["structure"] == name].sort_values("severity")
        severity, width = curve["severity"], 1.8 if name == MEAN else 1.1
        axes.fill_between(severity, curve["low"], curve["high"], color=colour, alpha=0.12, lw=0)
        style: dict[str, Any] = {"marker": ".", "markersize": 4, "clip_on": False}
        axes.plot(severity, curve["mean"], color=colour, linewidth=width, **style)
    axes.tick_params(labelsize=7.5, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _sentence(worst: Mapping[str, Any], *, measure: Measure) -> str:
    if not worst["calibrated"]:
        return f"No shift is said to hurt most: {UNRANKED}."
    sets = worst["sets"]
    where = f", mean of {len(sets)} sets" if len(sets) > 1 else f" at {sets[0]}"
    where = "" if sets == [IN_DOMAIN] else where
    start, end = (written(worst[key], digits(measure)) for key in ("start", "end"))
    told = f"{measure.name} {start} -> {end} at severity {worst['severity']:.3g}{where}"
    shift = str(worst["corruption"]).replace("_", " ")
    if worst["loss"] <= 0:
        return f"No ranked shift hurts on average; the worst is {shift}: {told}."
    return f"{shift.capitalize()} hurts most: {told}."
