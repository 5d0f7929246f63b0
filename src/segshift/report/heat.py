"""Tables whose cells are coloured by a metric, in cividis, which the colour-blind read as well.

A cell has a ground and an ink of its own, so that it is read as well on a dark page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex

from segshift.metrics import SIGNED
from segshift.report.measures import digits, interval, records, written
from segshift.report.study_words import train_label
from segshift.results import IN_DOMAIN, higher_is_better, place_name, sites_of

STEPS = 9  # colours of the key


@dataclass(frozen=True, slots=True)
class Scale:
    """Values of a metric as colours, the best bright; of a signed metric that is 0.

    `low` and `high` are the ends, of a signed metric those of the distance to 0.
    """

    metric: str
    low: float
    high: float

    @classmethod
    def of(cls, values: "pd.Series[float]", *, metric: str) -> "Scale":
        """From the least to the largest of `values`; of none or one value 0 to 1 around it."""
        known = values.dropna().abs() if SIGNED.fullmatch(metric) else values.dropna()
        if known.empty:
            return cls(metric, 0.0, 1.0)
        low, high = float(known.min()), float(known.max())
        return cls(metric, low, high) if low < high else cls(metric, low - 0.5, high + 0.5)

    def colours(self, value: float) -> tuple[str, str]:
        """Ground and ink, as #rrggbb."""
        distance = abs(value) if SIGNED.fullmatch(self.metric) else value
        share = (distance - self.low) / (self.high - self.low)
        good = share if higher_is_better(self.metric) else 1 - share
        red, green, blue, _ = colormaps["cividis"](good)
        return to_hex((red, green, blue)), _ink((red, green, blue))

    @property
    def key(self) -> Sequence[str]:
        """Colours from the worst to the best."""
        return [to_hex(colour) for colour in colormaps["cividis"](np.linspace(0, 1, STEPS))]

    @property
    def ends(self) -> tuple[str, str]:
        """The worst and the best value, written."""
        sign = "+-" if SIGNED.fullmatch(self.metric) else ""
        low, high = (sign + written(end, digits(self.metric)) for end in (self.low, self.high))
        return (low, high) if higher_is_better(self.metric) else (high, low)


@dataclass(frozen=True, slots=True)
class Cell:
    """A mean at one site: what is shown and what pointing at it says; `own` was trained there."""

    text: str
    interval: str
    n: int
    about: str
    ground: str
    ink: str
    own: bool


@dataclass(frozen=True, slots=True)
class HeatLine:
    """What was trained where, in short and in full; `several` sites; a cell per column or None."""

    name: str
    full: str
    several: bool
    cells: Sequence[Cell | None]


@dataclass(frozen=True, slots=True)
class Heat:
    """The train-test matrix of one variant, metric and structure."""

    columns: Sequence[str]
    lines: Sequence[HeatLine]


def heat_of(
    lines: pd.DataFrame,
    *,
    names: Mapping[tuple[str, str], str],
    sites: Sequence[str],
    scale: Scale,
) -> Heat:
    """Arrange the lines of the matrix of one variant, metric and structure.

    Networks of one site come first, in the order of the columns. `names` is that of `line_names`.
    """
    tests = lines.assign(
        test=[place_name(s, site) for s, site in zip(lines["set"], lines["site"], strict=True)]
    )
    known = set(sites)
    columns = sorted(tests["test"].unique(), key=lambda name: (name not in known, name))
    pairs = sorted(
        set(zip(tests["part"], tests["train"], strict=True)),
        key=lambda pair: (
            len(sites_of(pair[1], known)) > 1,
            train_label(pair[1], sites),
            pair[0],
        ),
    )
    cells = {(x["part"], x["train"], x["test"]): _cell(x, scale) for x in records(tests)}
    return Heat(
        columns,
        [
            HeatLine(
                name=names[part, train].replace(train, train_label(train, sites), 1),
                full=names[part, train],
                several=len(sites_of(train, known)) > 1,
                cells=[cells.get((part, train, column)) for column in columns],
            )
            for part, train in pairs
        ],
    )


def _cell(line: Mapping[str, Any], scale: Scale) -> Cell | None:
    if pd.isna(line["mean"]):
        return None
    ground, ink = scale.colours(line["mean"])
    metric = scale.metric
    who = f"{line['n']} cases, interval of {line['patients']} patients"
    spread = [written(line[end], digits(metric)) for end in ("seed_low", "seed_high")]
    seeds = "1 seed" if line["seeds"] == 1 else f"{line['seeds']} seeds: {' to '.join(spread)}"
    return Cell(
        text=written(line["mean"], digits(metric)),
        interval=interval({f"{metric}_low": line["low"], f"{metric}_high": line["high"]}, metric),
        n=line["n"],
        about=f"{who}, {seeds}; {line['jobs'].replace(';', ', ')}",
        ground=ground,
        ink=ink,
        own=line["set"] == IN_DOMAIN,
    )


def _ink(ground: tuple[float, float, float]) -> str:
    """Black or white, whichever has more contrast by WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground]
    luminance = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"
