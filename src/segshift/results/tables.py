"""Means of the rows of one run: per site, and the flat summary.

The mean over structures is the mean of the structure means: a structure that is present in few
cases weighs as much as one that is present in all. A NaN is in no mean and in no count; the
policy in `metrics/empty.py` makes sure that a missed structure is not NaN.
"""

import math
from collections.abc import Mapping

import pandas as pd

from segshift.errors import InputError

IN_DOMAIN = "in_domain"
MEAN = "mean"


def site_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per (set, site, structure), then a line `mean` for each (set, site).

    For each metric there are two columns: `<metric>`, the mean over cases, and `<metric>_n`, the
    cases in which it is defined. On the line `mean` these are the mean of the structure means
    and the cases in which at least one structure is defined.
    """
    _check_one_run(rows)
    keys = ["set", "site", "structure"]
    structures = rows.groupby([*keys, "metric"])["value"].agg(["mean", "count"])
    by_site = structures["mean"].groupby(["set", "site", "metric"])
    measured = rows.assign(case=rows["case"].where(rows["value"].notna()))
    overall = pd.DataFrame(
        {
            "mean": by_site.mean(),
            "count": measured.groupby(["set", "site", "metric"])["case"].nunique(),
        }
    )
    lines = pd.concat([structures.reset_index(), overall.reset_index().assign(structure=MEAN)])
    lines["is_mean"] = lines["structure"] == MEAN
    wide = lines.pivot(index=["set", "site", "is_mean", "structure"], columns="metric")
    table = pd.DataFrame(index=wide.index)
    for metric in sorted(rows["metric"].unique()):
        table[metric] = wide["mean", metric]
        table[f"{metric}_n"] = wide["count", metric].fillna(0).astype(int)
    return table.sort_index().reset_index().drop(columns="is_mean")


def is_shifted(set_: str) -> bool:
    """Whether an evaluation set shows its cases under a shift, as `in_domain+noise3` does."""
    return "+" in set_


def summarise(rows: pd.DataFrame, higher_is_better: Mapping[str, bool]) -> dict[str, float]:
    """Flat summary of the evaluation sets; what is undefined (NaN) has no key.

    | key                              | value                                                     |
    |----------------------------------|-----------------------------------------------------------|
    | `test/<set>/<structure>/<metric>`| mean over the cases of the set                            |
    | `test/<set>/<metric>`            | mean of the structure means                               |
    | `test/worst_site/<metric>`       | worst site of any set, by its mean of the structure means |
    | `test/gap/<metric>`              | how much worse the mean of the other sets is than         |
    |                                  | `in_domain`, over structures that both have; positive is  |
    |                                  | worse for every metric; no key without such sets          |

    Sets under a shift (`in_domain+noise3`) count neither for the worst site nor for the gap.
    """
    _check_one_run(rows)
    unknown = sorted(set(rows["metric"]) - set(higher_is_better))
    if unknown:
        raise InputError(f"is higher better? not said for: {', '.join(unknown)}")
    summary: dict[str, float] = {}
    sites = site_table(rows)
    acquired = ~sites["set"].map(is_shifted)
    for metric, of_metric in rows.groupby("metric"):
        cells = of_metric.groupby(["set", "structure"])["value"].mean()
        sets = cells.groupby("set").mean()
        site_means = sites.loc[(sites["structure"] == MEAN) & acquired, str(metric)]
        worst = site_means.min() if higher_is_better[str(metric)] else site_means.max()
        for name, value in pd.concat([cells.set_axis(cells.index.map("/".join)), sets]).items():
            summary[f"test/{name}/{metric}"] = value
        summary[f"test/worst_site/{metric}"] = worst
        lost = _lost_outside(cells)
        summary[f"test/gap/{metric}"] = lost if higher_is_better[str(metric)] else -lost
    return {key: float(value) for key, value in sorted(summary.items()) if not math.isnan(value)}


def _lost_outside(cells: "pd.Series[float]") -> float:
    """`in_domain` minus the mean of the other acquired sets; `cells` is by (set, structure)."""
    by_set = cells.unstack("structure")
    if IN_DOMAIN not in by_set.index:
        return math.nan
    outside = by_set[[set_ != IN_DOMAIN and not is_shifted(set_) for set_ in by_set.index]]
    # A structure that one side lacks would turn another case mix into a gap.
    return float((by_set.loc[IN_DOMAIN] - outside).mean(axis=1).mean())


def _check_one_run(rows: pd.DataFrame) -> None:
    runs = sorted(rows["run"].unique())
    if len(runs) > 1:
        raise InputError(f"rows of one run wanted, got those of {', '.join(runs)}")
