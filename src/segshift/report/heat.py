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

from segshift.metrics import Measure
from segshift.report.cells import as_site_line, failed_patients
from segshift.report.measures import digits, interval, records, written
from segshift.report.study_words import short_name, train_label
from segshift.results import IN_DOMAIN, place_name, sites_of

STEPS = 9  # colours of the key
RATERS = "raters"  # the name of the last line


@dataclass(frozen=True, slots=True)
class Scale:
    """Values of a metric as colours, the best bright; of a signed metric that is 0.

    `low` and `high` are the ends, of a signed metric those of the distance to 0.
    """

    measure: Measure
    low: float
    high: float

    @classmethod
    def of(cls, values: "pd.Series[float]", *, measure: Measure) -> "Scale":
        """From the least to the largest of `values`; of none or one value 0 to 1 around it."""
        known = values.dropna().abs() if measure.signed else values.dropna()
        if known.empty:
            return cls(measure, 0.0, 1.0)
        low, high = float(known.min()), float(known.max())
        return cls(measure, low, high) if low < high else cls(measure, low - 0.5, high + 0.5)

    def colours(self, value: float) -> tuple[str, str]:
        """Ground and ink, as #rrggbb."""
        distance = abs(value) if self.measure.signed else value
        share = (distance - self.low) / (self.high - self.low)
        good = share if self.measure.better == "higher" else 1 - share
        red, green, blue, _ = colormaps["cividis"](good)
        return to_hex((red, green, blue)), _ink((red, green, blue))

    @property
    def key(self) -> Sequence[str]:
        """Colours from the worst to the best."""
        return [to_hex(colour) for colour in colormaps["cividis"](np.linspace(0, 1, STEPS))]

    @property
    def ends(self) -> tuple[str, str]:
        """The worst and the best value, written."""
        sign = "+-" if self.measure.signed else ""
        low, high = (sign + written(end, digits(self.measure)) for end in (self.low, self.high))
        return (low, high) if self.measure.better == "higher" else (high, low)


@dataclass(frozen=True, slots=True)
class Cell:
    """A mean at one site: what is shown and what pointing at it says; `own` was trained there.

    `failed` are patients with a Dice below 0.1, `1 of 12 failed`, and `share` the bounds of their
    share, `0 to 39 %`; "" for other metrics.
    """

    text: str
    interval: str
    n: int
    failed: str
    share: str
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
    raters: pd.DataFrame | None = None,
) -> Heat:
    """Arrange the lines of the matrix of one variant, metric and structure.

    Networks of one site come first, in the order of the columns. `names` is that of `line_names`.
    `raters` are lines of raters.csv of the same metric and structure: the last line, of people.
    """
    tests = _with_tests(lines)
    known = set(sites)
    columns = sorted(tests["test"].unique(), key=lambda name: (name not in known, name))
    pairs = sorted(
        set(zip(tests["part"], tests["train"], strict=True)),
        key=lambda pair: (len(sites_of(pair[1])) > 1, train_label(pair[1], sites), pair[0]),
    )
    cells = {(x["part"], x["train"], x["test"]): _trained(x, scale) for x in records(tests)}
    shown = [
        HeatLine(
            name=short_name(names[part, train], train, sites),
            full=names[part, train],
            several=len(sites_of(train)) > 1,
            cells=[cells.get((part, train, column)) for column in columns],
        )
        for part, train in pairs
    ]
    people = {} if raters is None else _of_raters(raters, scale)
    if any(people.get(column) for column in columns):
        own = [people.get(column) for column in columns]
        full = "how well other people agree with the reference on the same images"
        shown.append(HeatLine(RATERS, full, several=False, cells=own))
    return Heat(columns, shown)


def _with_tests(lines: pd.DataFrame) -> pd.DataFrame:
    places = zip(lines["set"], lines["site"], strict=True)
    return lines.assign(test=[place_name(set_, site) for set_, site in places])


def _of_raters(raters: pd.DataFrame, scale: Scale) -> dict[str, Cell | None]:
    """By test site, of two sets there that with more cases: in domain may be those of one fold."""
    ordered = _with_tests(raters).sort_values(["n", "set"])
    return {line["test"]: _cell(line, scale, about=_who(line)) for line in records(ordered)}


def _trained(line: Mapping[str, Any], scale: Scale) -> Cell | None:
    spread = [written(line[end], digits(scale.measure)) for end in ("seed_low", "seed_high")]
    seeds = "1 seed" if line["seeds"] == 1 else f"{line['seeds']} seeds: {' to '.join(spread)}"
    failed = failed_patients(line, scale.measure)
    told = f"; {failed.told}" if failed else ""
    about = f"{_who(line)}, {seeds}{told}; {line['jobs'].replace(';', ', ')}"
    return _cell(line, scale, about=about, own=line["set"] == IN_DOMAIN)


def _who(line: Mapping[str, Any]) -> str:
    return f"{line['n']} cases, interval of {line['patients']} patients"


def _cell(line: Mapping[str, Any], scale: Scale, *, about: str, own: bool = False) -> Cell | None:
    if pd.isna(line["mean"]):
        return None
    measure, (ground, ink) = scale.measure, scale.colours(line["mean"])
    failed = failed_patients(line, measure)
    return Cell(
        text=written(line["mean"], digits(measure)),
        interval=interval(as_site_line(line, measure), measure),
        n=line["n"],
        failed=f"{failed.patients} of {failed.of} failed" if failed else "",
        share=failed.share if failed else "",
        about=about,
        ground=ground,
        ink=ink,
        own=own,
    )


def _ink(ground: tuple[float, float, float]) -> str:
    """Black or white, whichever has more contrast by WCAG 2.2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in ground]
    luminance = float(np.dot((0.2126, 0.7152, 0.0722), linear))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"
