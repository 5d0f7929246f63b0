"""Quality against the severity of a shift, and which shift hurts most.

Pure functions of the rows of one run, whose sets are named `<set>+<shift><severity>`; the set
without a shift is severity 0. Nothing is extrapolated: beyond the highest severity that was tested
a curve stays where it is, so a shift that was tested mildly is judged by what was seen of it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from segshift.metrics import SIGNED
from segshift.results.rows import read_strings
from segshift.results.tables import MEAN, check_one_run, estimates

SEVERITIES = 5
SHIFTED = re.compile(r"(?P<set>.+)\+(?P<shift>[^+]+)(?P<severity>[1-5])")
POINT = ["set", "shift", "severity"]
KEYS = ["set", "shift", "metric", "structure"]
CURVE = ["set", "shift", "severity", "metric", "structure", "mean", "low", "high", "n", "patients"]
AREA = ["area", "loss", "start", "end", "severity"]


def shift_curves(rows: pd.DataFrame) -> pd.DataFrame:
    """One line per set, shift, severity, metric and structure, and `mean` over the structures.

    `mean`, `low`, `high` and `n` are those of the site table: means over cases with their 95 %
    intervals over `patients`. `set` is the name without the shift. Empty without a shifted set.
    The line `mean` is over the same structures at every severity of a shift: those that have a
    value at severity 0 and at each that was tested. Without any there is no such line.
    """
    check_one_run(rows)
    names = pd.Series(rows["set"].unique(), dtype="str", name="name")
    tested = names.str.extract(SHIFTED.pattern).assign(name=names)
    tested = tested[names.map(lambda name: SHIFTED.fullmatch(name) is not None).astype(bool)]
    plain = tested.assign(severity="0", name=tested["set"]).drop_duplicates()
    tested = pd.concat([plain, tested]).astype({"severity": int})
    shown = tested.merge(rows.rename(columns={"set": "name"}), on="name")
    lines = estimates(shown.assign(whole=_is_whole(shown)), [*POINT, "whole"])
    curves = lines[lines["whole"].astype(bool) | ~lines["is_mean"].astype(bool)]
    curves = curves.astype(dict.fromkeys(("severity", "n", "patients"), int))
    order = ["set", "shift", "metric", "is_mean", "structure", "severity"]
    return curves.sort_values(order, ignore_index=True)[CURVE]


def shift_areas(
    curves: pd.DataFrame, higher_is_better: Mapping[str, bool], *, by: Sequence[str] = ()
) -> pd.DataFrame:
    """One line per set, shift, metric and structure; of each set what hurts most comes first.

    `by` names further columns that tell curves apart. `area` is the mean of the curve over
    severities 0 to 5, with lines between those tested; `loss` how much worse it is than `start`,
    the value without a shift; `end` is the value at `severity`, the highest tested. Signed metrics,
    of which neither end is the good one, have no line.
    """
    keys = [*by, *KEYS]
    judged = _judged(curves, higher_is_better).dropna(subset=["mean"])
    steps = np.arange(SEVERITIES + 1)  # every severity is one of them
    wide = judged.pivot(index=keys, columns="severity", values="mean").reindex(columns=steps)
    wide = wide[wide[0].notna() & wide[steps[1:]].notna().any(axis=1)].astype(np.float64)
    tested = wide.notna().to_numpy()
    drawn = wide.interpolate(axis=1, limit_area="inside").ffill(axis=1).to_numpy()
    areas = wide.index.to_frame(index=False)
    sign = areas["metric"].map(lambda metric: 1.0 if higher_is_better[metric] else -1.0)
    areas["area"] = np.trapezoid(drawn, steps, axis=1) / SEVERITIES
    areas["start"], areas["end"] = drawn[:, 0], drawn[:, -1]
    areas["loss"] = sign.astype(float) * (areas["start"] - areas["area"])
    areas["severity"] = (tested * steps).max(axis=1)
    order = [*by, "set", "metric", "structure", "loss", "shift"]
    ascending = [column != "loss" for column in order]
    return areas.sort_values(order, ascending=ascending, ignore_index=True)[[*keys, *AREA]]


def shift_losses(areas: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """One line per metric and shift, the one that hurts most first: means of the numbers of `AREA`.

    They are means over all other keys of `shift_areas`, of the mean of the structures' means. This
    order is the only one by which a shift is said to hurt most.
    """
    keys = [*by, "metric", "shift"]
    means = areas[areas["structure"] == MEAN].groupby(keys)[AREA].mean().reset_index()
    order = [*by, "metric", "loss", "shift"]
    ascending = [column != "loss" for column in order]
    return means.sort_values(order, ascending=ascending, ignore_index=True)


def summarise_shifts(
    curves: pd.DataFrame, higher_is_better: Mapping[str, bool]
) -> dict[str, float]:
    """Flat summary of what the shifts cost; positive is worse, for every metric.

    | key                           | value                                                        |
    |-------------------------------|--------------------------------------------------------------|
    | `test/shift/<shift>/<metric>` | mean `loss` of `shift_areas` over sets, of the mean of the   |
    |                               | structures' means                                            |
    | `test/worst_shift/<metric>`   | the largest of these                                         |
    """
    losses = shift_losses(shift_areas(curves, higher_is_better))
    summary = {
        f"test/shift/{line['shift']}/{line['metric']}": float(line["loss"])
        for line in losses.to_dict("records")
    }
    worst = losses.groupby("metric")["loss"].max()
    summary |= {f"test/worst_shift/{metric}": float(loss) for metric, loss in worst.items()}
    return dict(sorted(summary.items()))


def write_curves(path: Path, curves: pd.DataFrame) -> None:
    """Write `shift_curves` as CSV."""
    path.write_text(curves.to_csv(index=False, lineterminator="\n"), encoding="utf-8")


def read_curves(path: Path) -> pd.DataFrame:
    """What `write_curves` wrote; a set called 007 is not 7. Raises InputError for another table."""
    curves = read_strings(path, columns=CURVE, what="curves")
    numbers = curves[["mean", "low", "high"]].apply(pd.to_numeric)
    counts = dict.fromkeys(("severity", "n", "patients"), int)
    return curves.assign(**numbers).astype(counts)[CURVE]


def _is_whole(shown: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the structure of each row has a value wherever its set was shown under its shift."""
    severities = shown["severity"].where(shown["value"].notna())
    measured = severities.groupby([shown[key] for key in KEYS]).transform("nunique")
    return measured == shown.groupby(["set", "shift"])["severity"].transform("nunique")


def _judged(curves: pd.DataFrame, higher_is_better: Mapping[str, bool]) -> pd.DataFrame:
    judged = [metric for metric in higher_is_better if not SIGNED.fullmatch(metric)]
    return curves[curves["metric"].isin(judged)]
