"""Quality under growing shifts, over all trainings of a study: a panel per shift, worst first."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segshift.report.figures import FAINT, GREY, INK
from segshift.report.measures import are_fractions, digits, written
from segshift.report.study_lanes import ELSEWHERE, HERE
from segshift.results import IN_DOMAIN, MEAN, higher_is_better

COLUMNS = 3
DRAWN_SHIFTS = 12
SEVERITIES = range(6)


def most_harmful(curves: pd.DataFrame, *, metric: str) -> list[str]:
    """The shifts, that with the largest mean loss over its severities first."""
    of_mean = _of_mean(curves, metric)
    change = {
        str(shift): own.loc[own["severity"] > 0, "mean"].mean()
        - own.loc[own["severity"] == 0, "mean"].mean()
        for shift, own in of_mean.groupby("shift")
    }
    sign = 1 if higher_is_better(metric) else -1
    return sorted(change, key=lambda shift: (sign * change[shift], shift))


def curves_sentence(curves: pd.DataFrame, *, metric: str) -> str:
    """Which shift hurts most, and how much; "" without a shift."""
    shifts = most_harmful(curves, metric=metric)
    if not shifts:
        return ""
    own = _of_mean(curves, metric)
    means = own[own["shift"] == shifts[0]].groupby("severity")["mean"].mean()
    start, end = (written(means.iloc[place], digits(metric)) for place in (0, -1))
    return f"{shifts[0]} hurts most: mean {metric} {start} to {end} at severity {means.index[-1]}."


def curves_figure(curves: pd.DataFrame, *, metric: str) -> Figure:
    """Thin: every training and set. Thick: the means of the sets in domain and of those outside."""
    own = _of_mean(curves, metric)
    shifts = most_harmful(curves, metric=metric)[:DRAWN_SHIFTS]
    lines = -(-len(shifts) // COLUMNS)
    figure = Figure(figsize=(8.4, 0.5 + 2.1 * lines), dpi=150, layout="constrained")
    panels = figure.subplots(lines, COLUMNS, squeeze=False, sharex=True, sharey=True).ravel()
    for panel in panels[len(shifts) :]:
        panel.set_visible(False)
    for panel, shift in zip(panels, shifts, strict=False):
        _panel(panel, own[own["shift"] == shift], title=shift)
    if are_fractions(own["mean"]):
        panels[0].set_ylim(-0.02, 1.02)
    figure.supylabel(f"mean {metric}", fontsize=8.5, color=GREY, parse_math=False)
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
    axes.set_xticks(list(SEVERITIES))
    axes.set_title(title, fontsize=8.5, color=INK, loc="left", parse_math=False)
    axes.set_xlabel("severity", fontsize=7.5, color=GREY)
    axes.tick_params(labelsize=7.5, colors=GREY, labelbottom=True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _of_mean(curves: pd.DataFrame, metric: str) -> pd.DataFrame:
    return curves[(curves["metric"] == metric) & (curves["structure"] == MEAN)]
