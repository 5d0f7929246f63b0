"""The figure of several runs: differences with their intervals, and the patients behind them.

A line of panels per evaluation set. Left a forest plot, a line per pair of runs: the difference of
means and its 95 % interval, filled where the interval leaves 0 out. Right every patient as a dot
per run, joined by a line, with the runs' means as bars; dashed, how well people agree.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from segshift.metrics import Measure
from segshift.report.figures import FAINT, GREY, INK, OKABE_ITO
from segshift.report.measures import digits
from segshift.results import Comparison, set_label
from segshift.results.comparison import RATERS
from segshift.results.pairing import of_sets, sets_of

DRAWN_SETS = 12  # more would make a picture that nobody looks at; the tables have all
LONGEST_NAME = 28
ROOM_FOR_NAMES = 40  # letters under the dots that fit side by side


def comparison_figure(comparison: Comparison, patients: pd.DataFrame) -> Figure:
    """Draw a `Comparison`; `patients` is the table of `patient_means`."""
    measure = comparison.measure
    sets = sets_of(comparison.differences)
    drawn = sets[:DRAWN_SETS]
    pairs = len(comparison.differences) // len(sets)
    inches = 0.9 + 0.3 * max(pairs, 4)
    figure = Figure(figsize=(10, inches * len(drawn) + 0.5), dpi=150, layout="constrained")
    grid = figure.subplots(len(drawn), 2, squeeze=False, width_ratios=(1.25, 1), sharex="col")
    for (left, right), key in zip(grid, drawn, strict=True):
        of_set = of_sets(comparison.differences, [key])
        _forest(left, of_set, measure=measure)
        runs = of_sets(comparison.runs, [key]).set_index("run")
        _dots(right, of_sets(patients.reset_index(), [key]), runs, measure=measure)
        n = f"{of_set['n'].iloc[0]} cases of {of_set['patients'].iloc[0]} patients"
        title = f"{set_label(*key)}: {n}"
        left.set_title(title, fontsize=9, color=INK, loc="left", parse_math=False)
    better = "right" if measure.better == "higher" else "left"
    text = f"difference of mean {measure.name}, 95 % interval; better to the {better}"
    grid[-1][0].set_xlabel(text, fontsize=8.5, color=GREY, parse_math=False)
    if len(sets) > len(drawn):
        figure.suptitle(f"the first {len(drawn)} of {len(sets)} sets", fontsize=9, color=GREY)
    return figure


def _forest(axes: Axes, lines: pd.DataFrame, *, measure: Measure) -> None:
    axes.axvline(0, color=GREY, linewidth=0.9, linestyle=":")
    names = []
    for y, line in enumerate(lines.to_dict("records")):
        low, middle, high = line["low"], line["difference"], line["high"]
        clear = low > 0 or high < 0  # NaN is not
        good = measure.badness(middle) < 0
        colour = (OKABE_ITO[5] if good else OKABE_ITO[4]) if clear else GREY
        axes.plot([low, high], [y, y], color=colour, linewidth=2)
        axes.plot([middle], [y], "o", color=colour, mfc=colour if clear else "white", markersize=6)
        names.append(f"{_short(line['run'])}\nminus {_short(line['baseline'])}")
    axes.set_yticks(range(len(names)), names, fontsize=7.5, parse_math=False)
    axes.set_ylim(len(names) - 0.4, -0.6)
    _style(axes)


def _dots(axes: Axes, patients: pd.DataFrame, runs: pd.DataFrame, *, measure: Measure) -> None:
    people = runs[runs.index == RATERS]
    runs = runs.drop(index=people.index)
    places = np.arange(len(runs))
    for mean in people["mean"]:
        axes.axhline(mean, color=GREY, linewidth=0.9, linestyle="--")
        axes.text(-0.46, mean, RATERS, va="bottom", fontsize=7.5, color=GREY)
    values = patients[list(runs.index)].to_numpy()
    axes.plot(places, values.T, color=GREY, linewidth=0.6, alpha=0.45)
    for place, (_, run) in enumerate(runs.iterrows()):
        colour = OKABE_ITO[place % len(OKABE_ITO)]
        axes.scatter(np.full(len(values), place), values[:, place], s=14, color=colour, zorder=3)
        axes.plot(
            [place - 0.22, place + 0.22], [run["mean"]] * 2, color=INK, linewidth=2.2, zorder=4
        )
        note = f"{run['mean']:.{digits(measure)}f}"
        axes.text(place + 0.26, run["mean"], note, va="center", fontsize=7.5, color=INK, zorder=5)
    names = [_short(str(name)) for name in runs.index]
    axes.set_xticks(places, names, fontsize=7.5, parse_math=False)
    if max(map(len, names)) * len(names) > ROOM_FOR_NAMES:
        for label in axes.get_xticklabels():
            label.set(rotation=20, ha="right")
    axes.set_xlim(-0.5, len(runs) - 0.3)
    axes.set_ylabel(f"{measure.name} per patient", fontsize=8.5, color=GREY, parse_math=False)
    _style(axes)


def _short(name: str) -> str:
    """Its end, which differs between runs of one name."""
    return name if len(name) <= LONGEST_NAME else "..." + name[3 - LONGEST_NAME :]


def _style(axes: Axes) -> None:
    axes.tick_params(labelsize=7.5, colors=GREY)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
