"""A mean as people read it, the same in every table of the pages and in the terminal.

Lines are those of a `site_table`: of each metric its mean, interval and n, then what raters reach
on the same images, and the patients that were failed. What a line lacks is left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from segshift.metrics import Dice, Measure
from segshift.report.measures import coarse, digits, interval, written
from segshift.results import Failed

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """The mean, what stands beside it (its interval and n), and lines below it."""

    text: str
    beside: str = ""
    notes: tuple[str, ...] = ()


def cell_of(line: Line, measure: Measure) -> Cell:
    """The mean of `measure` in a line, and all that is known beside it."""
    n = _count(line, f"{measure.name}_n")
    beside = [interval(line, measure), "" if n is None else f"n {n}"]
    notes = [raters_of(line, measure), failed_of(line, measure)]
    return Cell(
        written(line.get(measure.name), digits(measure)),
        " ".join(filter(None, beside)),
        tuple(filter(None, notes)),
    )


def as_site_line(line: Line, measure: Measure) -> dict[str, Any]:
    """A line of a study's matrix (mean, low, high, n) with the names that a site table has."""
    named = {measure.name: line["mean"], f"{measure.name}_n": line["n"]}
    named |= {f"{measure.name}_{end}": line[end] for end in ("low", "high")}
    return {**line, **named}


def raters_of(line: Line, measure: Measure) -> str:
    """How well people agree on the same images: `raters 0.912 n 2`; empty where one drew them."""
    n = _count(line, f"{measure.name}_raters_n")
    mean = written(line.get(f"{measure.name}_raters"), digits(measure))
    return f"raters {mean} n {n}" if n else ""


def failed_of(line: Line, measure: Measure, *, side: str = "") -> str:
    """Beside a mean of Dice the patients that were failed: `0 of 12 failed: up to 26 %`."""
    failed = failed_patients(line, measure, side=side)
    return failed.told if failed else ""


def failed_patients(line: Line, measure: Measure, *, side: str = "") -> Failed | None:
    """Those of a line if `measure` is Dice, which tells them; None where nobody was measured.

    `side` comes before the columns' names in a table of two means: `out_`.
    """
    of = _count(line, f"{side}failed_of") if measure.name == Dice.name else None
    return Failed(_count(line, f"{side}failed_patients") or 0, of) if of else None


def worst_site_cell(line: Line, measure: Measure) -> Cell:
    """`0.692 (2 patients; shrunken to 0.81)`: the worst of many is mostly one of few patients."""
    patients = _count(line, f"{measure.name}_patients")
    shrunken = written(line.get(f"{measure.name}_shrunken"), coarse(measure))
    who = "1 patient" if patients == 1 else f"{patients} patients"
    beside = "" if patients is None else f"({who}; shrunken to {shrunken})"
    return Cell(written(line.get(measure.name), digits(measure)), beside)


def _count(line: Line, name: str) -> int | None:
    value = line.get(name)
    return None if value is None or pd.isna(value) else int(value)
