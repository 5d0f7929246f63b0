"""Every case as a dot on the page: lanes of SVG whose positions are percentages of the width.

The page can so be as narrow as a phone while text and dots keep their size, which no picture of
fixed proportions can. `figures.site_strip` draws the same for paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from segshift.metrics import Measure
from segshift.report.cells import Cell, cell_of
from segshift.report.figures import colours_of, jitter
from segshift.report.measures import are_fractions, digits, inside_means, records, written
from segshift.results import IN_DOMAIN

HEIGHT = 26  # of a lane, in pixels


@dataclass(frozen=True, slots=True)
class Axis:
    """The common axis of all lanes, from `low` to `high`, and its ticks: (percent, label)."""

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]

    @classmethod
    def of(cls, values: "pd.Series[float]") -> "Axis":
        """An axis with room for all values; 0 to 1 where they are fractions."""
        known = values.dropna()
        low, high = (0.0, 1.0) if are_fractions(known) else (known.min(), known.max())
        places = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
        axis = cls(float(places[0]), float(places[-1]), ())
        ticks = [(axis.percent(place) or 0.0, f"{place:g}") for place in np.round(places, 9)]
        return cls(axis.low, axis.high, ticks)

    def percent(self, value: float | None) -> float | None:
        """The place in percent of the width, None where the value is undefined."""
        if value is None or pd.isna(value):
            return None
        return round(100 * (float(value) - self.low) / (self.high - self.low), 2)


@dataclass(frozen=True, slots=True)
class Dot:
    """A case: place in percent of the width and in pixels, and what hovering says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Lane:
    """What a lane is of, such as a structure; places in percent, None where there is none."""

    name: str
    colour: str
    dots: Sequence[Dot]
    note: Cell  # what the table says: mean, interval, n, the patients that were failed
    mean: float | None
    inside: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Lanes:
    """All lanes by (set, site), and the ticks of their common axis: (percent, label)."""

    groups: Mapping[tuple[str, str], Sequence[Lane]]
    ticks: Sequence[tuple[float, str]]


def lanes_of(
    rows: pd.DataFrame, sites: pd.DataFrame, *, structures: Sequence[str], measure: Measure
) -> Lanes:
    """Lanes of `measure`, from the rows and their `site_table`; the sites in domain come first.

    Means are those of the tables: over patients, not over the dots.
    """
    drawn = rows[(rows["metric"] == measure.name) & rows["structure"].isin(structures)]
    axis = Axis.of(drawn["value"])
    inside = inside_means(drawn, measure)
    colours = colours_of(structures)
    lines = {(x["set"], x["site"], x["structure"]): x for x in records(sites)}
    names = drawn[["set", "site"]].drop_duplicates().itertuples(index=False)
    groups: dict[tuple[str, str], list[Lane]] = {}
    for set_, site in sorted(names, key=lambda pair: (pair[0] != IN_DOMAIN, *pair)):
        here = drawn[(drawn["set"] == set_) & (drawn["site"] == site)]
        groups[set_, site] = []
        for structure in structures:
            line = lines.get((set_, site, structure))
            if line is None:
                continue
            groups[set_, site].append(
                lane_of(
                    here[here["structure"] == structure],
                    line,
                    axis,
                    name=structure,
                    colour=colours[structure],
                    measure=measure,
                    inside=None if set_ == IN_DOMAIN else inside.get(structure),
                )
            )
    return Lanes(groups, axis.ticks)


def lane_of(
    values: pd.DataFrame,
    line: Mapping[str, Any],
    axis: Axis,
    *,
    name: str,
    colour: str,
    measure: Measure,
    inside: float | None,
) -> Lane:
    """A lane of `values`, with the columns case and value, and of their `line` in a table."""
    ends = [axis.percent(line.get(f"{measure.name}_{end}")) for end in ("low", "high")]
    ordered = values.dropna(subset=["value"]).sort_values("value")
    heights = HEIGHT / 2 + (HEIGHT - 8) * jitter(len(ordered))
    dots = [
        Dot(
            axis.percent(value) or 0.0,
            round(float(y), 1),
            f"{case}: {written(value, digits(measure))}",
        )
        for case, value, y in zip(ordered["case"], ordered["value"], heights, strict=True)
    ]
    return Lane(
        name=name,
        colour=colour,
        dots=dots,
        note=cell_of(line, measure),
        mean=axis.percent(line[measure.name]),
        inside=axis.percent(inside),
        interval=None if ends[0] is None or ends[1] is None else (ends[0], ends[1]),
    )
