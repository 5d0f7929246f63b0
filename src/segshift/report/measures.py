"""What the page, the figures and the terminal agree on about a metric."""

import pandas as pd

from segshift.results import MEAN, is_shifted


def worst_site(
    sites: pd.DataFrame, *, metric: str, higher_is_better: bool
) -> tuple[str, str] | None:
    """(set, site) with the worst mean over structures in a `site_table`; None unless two have one.

    Of equals it is the first. As in the summary, sets under a shift (`in_domain+noise3`) stay out.
    """
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
