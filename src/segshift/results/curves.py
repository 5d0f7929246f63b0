"""Quality against the severity of a shift, and which shift hurts most.

Pure functions of the rows of one run, whose sets are named `<set>+<shift><severity>`; the set
without a shift is severity 0. Nothing is extrapolated: beyond the highest severity that was tested
a curve stays where it is, so a shift that was tested mildly is judged by what was seen of it.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from segshift.results.names import SIGNED
from segshift.results.rows import read_strings
from segshift.results.tables import MEAN, check_one_run, estimates

SEVERITIES = 5
SHIFTED = re.compile(r"(?P<set>.+)\+(?P<shift>[^+]+)(?P<severity>[1-5])")
KEYS = ["set", "shift", "metric", "structure"]
CURVE = ["set", "shift", "severity", "metric", "structure", "mean", "low", "high", "n"]
AREA = [*KEYS, "area", "loss", "start", "end", "severity"]


def shift_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per set, shift, severity, metric and structure, and `mean` over the structures.

    `mean`, `low`, `high` and `n` are those of the site table: means over cases with their 95 %
    intervals over patients. `set` is the name without the shift. Empty without a shifted set.
    """
    check_one_run(rows)
    names = pd.Series(rows["set"].unique(), dtype="str", name="name")
    tested = names.str.extract(SHIFTED.pattern).assign(name=names)
    tested = tested[names.map(lambda name: SHIFTED.fullmatch(name) is not None).astype(bool)]
    plain = tested.assign(severity="0", name=tested["set"]).drop_duplicates()
    tested = pd.concat([plain, tested]).astype({"severity": int})
    lines = estimates(rows[rows["set"].isin(tested["name"])], ["set"])
    curves = tested.merge(lines.rename(columns={"set": "name"}), on="name").astype({"n": int})
    order = ["set", "shift", "metric", "is_mean", "structure", "severity"]
    return curves.sort_values(order, ignore_index=True)[CURVE]


def shift_areas(curves: pd.DataFrame, higher_is_better: Mapping[str, bool]) -> pd.DataFrame:
    """One line per set, shift, metric and structure; of each set what hurts most comes first.

    `area` is the mean of the curve over severities 0 to 5, with lines between those tested; `loss`
    how much worse it is than `start`, the value without a shift; `end` is the value at `severity`,
    the highest tested. Signed metrics, of which neither end is the good one, have no line.
    """
    lines = []
    for key, curve in _judged(curves, higher_is_better).dropna(subset=["mean"]).groupby(KEYS):
        curve = curve.sort_values("severity")
        severities, means = (curve[column].to_numpy(np.float64) for column in ("severity", "mean"))
        if severities[0] > 0 or len(severities) < 2:
            continue
        steps = np.arange(SEVERITIES + 1)  # every severity is one of them
        area = float(np.trapezoid(np.interp(steps, severities, means), steps) / SEVERITIES)
        sign = 1 if higher_is_better[str(key[2])] else -1
        loss = sign * (means[0] - area)
        lines.append((*key, area, loss, means[0], means[-1], int(severities[-1])))
    areas = pd.DataFrame(lines, columns=AREA)
    order = ["set", "metric", "structure", "loss", "shift"]
    ascending = [column != "loss" for column in order]
    return areas.sort_values(order, ascending=ascending, ignore_index=True)


def summarise_shifts(
    curves: pd.DataFrame, higher_is_better: Mapping[str, bool]
) -> dict[str, float]:
    """Flat summary of what the shifts cost; positive is worse, for every metric.

    | key                           | value                                                        |
    |-------------------------------|--------------------------------------------------------------|
    | `test/shift/<shift>/<metric>` | mean loss against severity 0 of the mean of structure means, |
    |                               | over sets and the severities that were tested                |
    | `test/worst_shift/<metric>`   | the largest of these                                         |
    """
    keys = ["set", "shift", "metric"]
    means = _judged(curves[curves["structure"] == MEAN], higher_is_better)
    plain = means[means["severity"] == 0].set_index(keys)["mean"].rename("start")
    shifted = means[means["severity"] > 0].join(plain, on=keys)
    sign = np.array([1.0 if higher_is_better[metric] else -1.0 for metric in shifted["metric"]])
    lost = shifted.assign(loss=sign * (shifted["start"] - shifted["mean"]))
    losses = lost.groupby(["metric", "shift"])["loss"].mean().reset_index()
    summary = {
        f"test/shift/{line['shift']}/{line['metric']}": float(line["loss"])
        for line in losses.to_dict("records")
    }
    worst = losses.groupby("metric")["loss"].max()
    summary |= {f"test/worst_shift/{metric}": float(loss) for metric, loss in worst.items()}
    return {key: value for key, value in sorted(summary.items()) if not math.isnan(value)}


def write_curves(path: Path, curves: pd.DataFrame) -> None:
    """Write `shift_curves` as CSV."""
    path.write_text(curves.to_csv(index=False, lineterminator="\n"), encoding="utf-8")


def read_curves(path: Path) -> pd.DataFrame:
    """What `write_curves` wrote; a set called 007 is not 7. Raises InputError for another table."""
    curves = read_strings(path, columns=CURVE, what="curves")
    numbers = curves[["mean", "low", "high"]].apply(pd.to_numeric)
    return curves.assign(**numbers).astype({"severity": int, "n": int})[CURVE]


def _judged(curves: pd.DataFrame, higher_is_better: Mapping[str, bool]) -> pd.DataFrame:
    judged = [metric for metric in higher_is_better if not SIGNED.fullmatch(metric)]
    return curves[curves["metric"].isin(judged)]
