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

from segshift.report.figures import colours_of, jitter
from segshift.report.measures import are_fractions, digits, written
from segshift.results import IN_DOMAIN

HEIGHT = 26  # of a lane, in pixels


@dataclass(frozen=True, slots=True)
class Dot:
    """A case: place in percent of the width and in pixels, and what hovering says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A structure at a site; places in percent of the width, None where there is none."""

    structure: str
    colour: str
    dots: Sequence[Dot]
    line: Mapping[str, Any]  # of the site table: mean, interval, n
    mean: float | None
    inside: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Lanes:
    """All lanes by (set, site), and the ticks of their common axis: (percent, label)."""

    groups: Mapping[tuple[str, str], Sequence[Lane]]
    ticks: Sequence[tuple[float, str]]


def lanes_of(
    rows: pd.DataFrame, sites: pd.DataFrame, *, structures: Sequence[str], metric: str
) -> Lanes:
    """Lanes of `metric`, from the rows and their `site_table`; the sites in domain come first."""
    drawn = rows[(rows["metric"] == metric) & rows["structure"].isin(structures)]
    values = drawn["value"].dropna()
    low, high = (0.0, 1.0) if are_fractions(values) else (values.min(), values.max())
    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    low, high = float(ticks[0]), float(ticks[-1])

    def percent(value: float | None) -> float | None:
        if value is None or pd.isna(value):
            return None
        return round(100 * (float(value) - low) / (high - low), 2)

    inside = drawn[drawn["set"] == IN_DOMAIN].groupby("structure")["value"].mean()
    colours = colours_of(structures)
    lines = {(x["set"], x["site"], x["structure"]): x for x in sites.to_dict("records")}
    names = drawn[["set", "site"]].drop_duplicates().itertuples(index=False)
    groups: dict[tuple[str, str], list[Lane]] = {}
    for set_, site in sorted(names, key=lambda pair: (pair[0] != IN_DOMAIN, *pair)):
        here = drawn[(drawn["set"] == set_) & (drawn["site"] == site)]
        groups[set_, site] = []
        for structure in structures:
            line = lines.get((set_, site, structure))
            if line is None:
                continue
            ends = [percent(line.get(f"{metric}_{end}")) for end in ("low", "high")]
            groups[set_, site].append(
                Lane(
                    structure=structure,
                    colour=colours[structure],
                    dots=_dots(here[here["structure"] == structure], metric, percent),
                    line={str(name): value for name, value in line.items()},
                    mean=percent(line[metric]),
                    inside=None if set_ == IN_DOMAIN else percent(inside.get(structure)),
                    interval=None if ends[0] is None or ends[1] is None else (ends[0], ends[1]),
                )
            )
    return Lanes(groups, [(percent(tick) or 0.0, f"{tick:g}") for tick in np.round(ticks, 9)])


def _dots(rows: pd.DataFrame, metric: str, percent: Any) -> list[Dot]:  # noqa: ANN401
    ordered = rows.dropna(subset=["value"]).sort_values("value")
    heights = HEIGHT / 2 + (HEIGHT - 8) * jitter(len(ordered))
    return [
        Dot(percent(value), round(float(y), 1), f"{case}: {written(value, digits(metric))}")
        for case, value, y in zip(ordered["case"], ordered["value"], heights, strict=True)
    ]
