"""What the page, the figures and the terminal agree on about a metric."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from segshift.metrics import SIGNED
from segshift.results import MEAN, is_shifted


def worst_site(
    sites: pd.DataFrame, *, metric: str, higher_is_better: bool
) -> tuple[str, str] | None:
    """(set, site) with the worst mean over structures in a `site_table`; None unless two have one.

    Of equals it is the first. As in the summary, sets under a shift (`in_domain+noise3`) stay out,
    and a signed metric has no worst site.
    """
    if SIGNED.fullmatch(metric):
        return None
    acquired = ~sites["set"].map(is_shifted)
    means = sites[(sites["structure"] == MEAN) & acquired].dropna(subset=[metric])
    if len(means) < 2:
        return None
    worst = means.sort_values(metric, ascending=higher_is_better, kind="stable").iloc[0]
    return str(worst["set"]), str(worst["site"])


def are_fractions(values: "pd.Series[float]") -> bool:
    """Whether all that is defined lies in 0..1."""
    return bool(values.dropna().between(0, 1).all())


def digits(metric: str) -> int:
    """Decimals worth showing: a tenth of a millimetre, else three."""
    return 1 if metric.endswith("_mm") else 3


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


def interval(line: Mapping[str, Any], metric: str) -> str:
    """[low, high] of the 95 % interval beside `metric` in a line of a table; empty without one."""
    low, high = (line.get(f"{metric}_{end}") for end in ("low", "high"))
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return ""
    decimals = decimals_beside([low, high], least=max(digits(metric) - 1, 1))
    return f"[{low:.{decimals}f}, {high:.{decimals}f}]"


def main_metrics(metrics: Iterable[str], *, metric: str) -> list[str]:
    """The few that the first table shows: `metric`, then an overlap and two distances."""
    kinds = ("dice", "hd95", "nsd")
    usual = [m for kind in kinds for m in sorted(metrics) if m.startswith(kind) and m != metric]
    return [metric, *usual][:3]


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
