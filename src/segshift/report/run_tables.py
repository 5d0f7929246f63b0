"""The tables of a run's page: its sets in the summary, then sites, guidelines, raters.

Rows and tables in, plain lines of `Cell` for the template out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from segshift.metrics import Measure
from segshift.report.cells import Cell, cell_of, worst_site_cell
from segshift.report.measures import records
from segshift.report.slices import sets_of

WORST, GAP = "worst site", "gap: lost outside"  # lines of the summary


@dataclass(frozen=True, slots=True)
class TableLine:
    """A line of a table: its place (set, site), what it is of, and a cell by metric."""

    key: tuple[str, str]
    name: str
    cells: Mapping[str, Cell]


def summary_lines(
    summary: Mapping[str, Any], rows: pd.DataFrame, measures: Iterable[Measure]
) -> list[TableLine]:
    """The sets, the worst site and the gap, each from the keys that `summarise` has for it."""
    shown, lines = list(measures), []
    for set_ in sets_of(rows):
        line = {**_under(summary, f"test/{set_}/"), **_of_raters(summary, set_)}
        lines.append(TableLine((set_, ""), set_, _cells(line, shown)))
    worst, gap = (_under(summary, f"test/{name}/") for name in ("worst_site", "gap"))
    if worst:
        cells = {measure.name: worst_site_cell(worst, measure) for measure in shown}
        lines.append(TableLine(("", ""), WORST, cells))
    if gap:
        lines.append(TableLine(("", ""), GAP, _cells(gap, shown)))
    return lines


def site_lines(
    table: pd.DataFrame, by: str, *, structures: Sequence[str], measures: Iterable[Measure]
) -> list[TableLine]:
    """The lines of a `site_table`, structures in the task's order, the mean last."""
    shown = list(measures)
    order = {structure: place for place, structure in enumerate(structures)}
    lines = [
        TableLine((line["set"], line[by]), line["structure"], _cells(line, shown))
        for line in records(table)
    ]
    return sorted(lines, key=lambda line: order.get(line.name, len(order)))


def _cells(line: Mapping[str, Any], measures: Iterable[Measure]) -> dict[str, Cell]:
    return {measure.name: cell_of(line, measure) for measure in measures}


def _under(summary: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """What stands directly below `prefix`, without it: metrics and the ends of their intervals."""
    below = {k.removeprefix(prefix): v for k, v in summary.items() if k.startswith(prefix)}
    return {name: value for name, value in below.items() if "/" not in name}


def _of_raters(summary: Mapping[str, Any], set_: str) -> dict[str, Any]:
    """The means of other people's masks and their n, named as those of a site table."""
    found = {}
    for name, value in _under(summary, f"raters/{set_}/").items():
        metric = name.removesuffix("_n")
        found[f"{metric}_raters{name.removeprefix(metric)}"] = value
    return found
