"""What the pages, the figures and the terminal agree on about a metric and its numbers."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from segshift.metrics import FalseAlarm, Measure
from segshift.results import IN_DOMAIN, MEAN, Measures
from segshift.results.shrinkage import WorstSite, site_means, worst_site
from segshift.results.tables import estimates
from segshift.units import COUNTED, PHYSICAL, mixed_told

HEADINGS = {FalseAlarm.name: "false alarms"}  # in place of the name
TENTHS = {"mm"} | COUNTED  # units of which a tenth is enough
BESIDE = 2  # declared metrics beside the chosen one in the first table


def measured(rows: pd.DataFrame, measures: Measures) -> list[Measure]:
    """Of the measures, as declared, those that have a value in any row."""
    known = set(rows.loc[rows["value"].notna(), "metric"])
    return [measure for name, measure in measures.items() if name in known]


def sizes_told(rows: pd.DataFrame, measures: Measures) -> str:
    """A sentence where some cases were measured in mm and others in pixels; else ""."""
    units = {name: one.unit for name, one in measures.items() if one.unit in PHYSICAL | COUNTED}
    cases = rows[rows["metric"].isin(units)].drop_duplicates(["set", "case"])
    known = cases["metric"].map(units).isin(PHYSICAL)
    return mixed_told({str(set_): own.to_list() for set_, own in known.groupby(cases["set"])})


def main_metrics(measures: Iterable[Measure], measure: Measure) -> list[Measure]:
    """The few that the first table shows: the chosen one, the next two declared, false alarms."""
    others = [other for other in measures if other != measure]
    alarms = [other for other in others[BESIDE:] if other.name == FalseAlarm.name]
    return [measure, *others[:BESIDE], *alarms]


def heading(measure: Measure) -> str:
    """What a column of the metric is called."""
    return HEADINGS.get(measure.name, measure.name)


def is_share(measure: Measure) -> bool:
    """Whether values are shares of what is right, so that one near 0 can only be a failure."""
    return measure.better == "higher" and not measure.unit


def the_worst_site(rows: pd.DataFrame, measure: Measure) -> WorstSite | None:
    """As in the summary; `rows` are of one network, of images as they were acquired."""
    return worst_site(site_means(rows[rows["metric"] == measure.name]), measure=measure)


def inside_means(rows: pd.DataFrame, measure: Measure) -> dict[str, float]:
    """By structure the mean in domain, where the gap starts; empty without that set."""
    inside = rows[(rows["set"] == IN_DOMAIN) & (rows["metric"] == measure.name)]
    lines = estimates(inside, ["set"])
    return dict(zip(lines["structure"], lines["mean"], strict=True))


def lines_of(table: pd.DataFrame, measure: Measure, structure: str = MEAN) -> pd.DataFrame:
    """The lines of a study's table of one metric, by default of the mean over structures."""
    return table[(table["metric"] == measure.name) & (table["structure"] == structure)]


def are_fractions(values: "pd.Series[float]") -> bool:
    """Whether all that is defined lies in 0..1."""
    return bool(values.dropna().between(0, 1).all())


def digits(measure: Measure) -> int:
    """Decimals worth showing: a tenth of a millimetre, pixel or voxel, else three."""
    return 1 if measure.unit in TENTHS else 3


def written(value: float | None, decimals: int) -> str:
    """The value, or - where it is undefined; two digits of one that the decimals would lose."""
    if value is None or pd.isna(value):
        return "-"
    lost = 0 < abs(value) < 0.5 * 10**-decimals  # such as micrometres in mm
    return f"{value:.2g}" if lost else f"{value:.{decimals}f}"


def decimals_beside(values: Iterable[float], *, least: int) -> int:
    """Decimals of numbers that are read together: enough for two digits of one, or `least`."""
    largest = max((abs(value) for value in values if not math.isnan(value)), default=0.0)
    wanted = 1 - math.floor(math.log10(largest)) if largest > 0 else least
    return min(max(wanted, least), least + 3)  # beyond is rounding


def interval(line: Mapping[str, Any], measure: Measure) -> str:
    """[low, high] of the 95 % interval beside a mean in a line of a table; empty without one."""
    low, high = (line.get(f"{measure.name}_{end}") for end in ("low", "high"))
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return ""
    decimals = decimals_beside([low, high], least=coarse(measure))
    return f"[{low:.{decimals}f}, {high:.{decimals}f}]"


def coarse(measure: Measure) -> int:
    """Decimals of what is known less well than a mean: the ends of its interval."""
    return max(digits(measure) - 1, 1)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 12.3 s, 3 min 20 s, 1 h 2 min."""
    if seconds < 120:
        return f"{written(seconds, 1)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of a table, each by the names of its columns."""
    return [{str(name): value for name, value in line.items()} for line in table.to_dict("records")]
