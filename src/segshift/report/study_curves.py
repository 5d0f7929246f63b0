"""Quality under growing shifts, over all trainings of a study: a panel per shift, worst first."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segshift.metrics import Measure
from segshift.report.figures import FAINT, GREY, INK
from segshift.report.measures import are_fractions, digits, lines_of, records, written
from segshift.report.shifts import UNRANKED
from segshift.report.study_lanes import ELSEWHERE, HERE
from segshift.results import IN_DOMAIN
from segshift.results.curves import SEVERITIES, shift_losses

COLUMNS = 3
DRAWN_SHIFTS = 12


def most_harmful(areas: pd.DataFrame, *, measure: Measure) -> list[str]:
    """The shifts, that with the largest mean loss first; those that are not ranked come last."""
    losses = shift_losses(areas)
    return [str(shift) for shift in losses.loc[losses["metric"] == measure.name, "corruption"]]


def curves_sentence(areas: pd.DataFrame, *, measure: Measure) -> str:
    """Which of the ranked shifts hurts most, and how much; "" without a shift."""
    losses = shift_losses(areas)
    losses = losses[losses["metric"] == measure.name]
    if losses.empty:
        return ""
    worst = records(losses)[0]
    if not worst["calibrated"]:
        return f"No shift is said to hurt most: {UNRANKED}."
    start, area, end = (written(worst[key], digits(measure)) for key in ("start", "area", "end"))
    told = (
        f"mean {measure.name} {start} to {end} at severity {worst['severity']:.3g}, {area} over "
        f"all of the curve from 0 to {SEVERITIES}"
    )
    if worst["loss"] <= 0:
        return f"No ranked shift hurts on average; the worst is {worst['corruption']}: {told}."
    return f"{worst['corruption']} hurts most: {told}."


def area_lines(
    areas: pd.DataFrame, *, measure: Measure, calibrated: bool = True
) -> list[dict[str, Any]]:
    """A line per shift and variant, worst shift first: area and loss in domain and elsewhere.

    Of those that are `calibrated`, or of the others, by name.
    """
    own = areas[(areas["metric"] == measure.name) & (areas["calibrated"] == calibrated)]
    keys = ["variant", "corruption"]
    inside = shift_losses(own[own["set"] == IN_DOMAIN], by=["variant"]).set_index(keys)
    outside = shift_losses(own[own["set"] != IN_DOMAIN], by=["variant"]).set_index(keys)
    both = inside.join(outside.add_suffix("_outside"), how="outer").reset_index()
    order = {shift: place for place, shift in enumerate(most_harmful(areas, measure=measure))}
    both = both.assign(place=both["corruption"].map(order)).sort_values(["place", "variant"])
    means = ("start", "area" if calibrated else "end", "loss")
    names = [f"{name}{end}" for end in ("", "_outside") for name in means]
    return [
        {
            "shift": line["corruption"],
            "variant": line["variant"],
            "means": [written(line[name], digits(measure)) for name in names],
        }
        for line in records(both)
    ]


def curves_figure(curves: pd.DataFrame, areas: pd.DataFrame, *, measure: Measure) -> Figure:
    """Thin: every training and set. Thick: the means of the sets in domain and of those outside."""
    own = lines_of(curves, measure)
    shifts = most_harmful(areas, measure=measure)[:DRAWN_SHIFTS]
    columns = max(1, min(COLUMNS, len(shifts)))
    lines = -(-len(shifts) // columns)
    figure = Figure(figsize=(8.4, 0.5 + 2.1 * lines), dpi=150, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for panel in panels[len(shifts) :]:
        panel.set_visible(False)
    for panel, shift in zip(panels, shifts, strict=False):
        _panel(panel, own[own["corruption"] == shift], title=shift)
    if are_fractions(own["mean"]):
        panels[0].set_ylim(-0.02, 1.02)
    figure.supylabel(f"mean {measure.name}", fontsize=8.5, color=GREY, parse_math=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=2, frameon=False, fontsize=8,
        labelcolor=INK,
    )  # fmt: skip
    return figure


def _panel(axes: Axes, curves: pd.DataFrame, *, title: str) -> None:
    inside = curves["set"] == IN_DOMAIN
    for of, colour, style, label in (
        (curves[inside], HERE, "-", "in domain"),
        (curves[~inside], ELSEWHERE, "--", "other sites"),
    ):
        for _, one in of.groupby(["part", "variant", "train", "set"]):
            points = one.sort_values("severity")
            axes.plot(
                points["severity"], points["mean"], color=colour, lw=0.7, alpha=0.35, ls=style
            )
        means = of.groupby("severity")["mean"].mean()
        if len(means):
            axes.plot(means, color=colour, lw=2, ls=style, marker="o", ms=3.5, label=label)
    axes.set_xticks(range(SEVERITIES + 1))
    axes.set_title(title, fontsize=8.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel("severity", fontsize=7.5, color=GREY)
    axes.tick_params(labelsize=7.5, colors=GREY, labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
