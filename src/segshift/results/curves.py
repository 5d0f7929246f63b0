"""Quality against the severity of a corruption, and which corruption hurts most.

Pure functions of the rows of one run; images as they were acquired are severity 0. Nothing is
extrapolated: beyond the highest severity that was tested a curve stays where it is, so a corruption
that was tested mildly is judged by what was seen of it. Only corruptions that are calibrated, whose
severities are the same steps of the same measure, are ranked.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from segshift.errors import InputError
from segshift.results.drafts import write_whole
from segshift.results.failures import COUNTS, failed_patients
from segshift.results.intervals import MEAN
from segshift.results.measures import Measures
from segshift.results.rows import acquired, read_strings
from segshift.results.tables import check_one_run, estimates

SEVERITIES = 5
RECORD = "corruptions.json"
POINT = ["set", "corruption", "severity"]
KEYS = ["set", "corruption", "metric", "structure"]
CURVE = [
    *POINT, "calibrated", "metric", "structure", "mean", "low", "high", "n", "patients", *COUNTS
]  # fmt: skip
AREA = ["area", "loss", "start", "end", "severity"]


def write_corruptions(folder: Path, calibrated: Mapping[str, bool]) -> None:
    """Write corruptions.json, by name whether it is calibrated, into the folder of a run."""
    write_whole(folder / RECORD, json.dumps(calibrated, indent=1) + "\n")


def read_corruptions(folders: Iterable[Path]) -> dict[str, bool]:
    """By name whether a corruption is calibrated in all of these runs that say something of it.

    A run without a corruption has no such file. Raises InputError for one that is broken.
    """
    said: dict[str, bool] = {}
    for path in (folder / RECORD for folder in folders):
        try:
            told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            for name, calibrated in told.items():
                said[name] = said.get(name, True) and calibrated is True
        except (ValueError, AttributeError) as error:
            raise InputError(f"{path} is no mapping of names to true or false: {error}") from error
    return said


def shift_curves(rows: pd.DataFrame, *, calibrated: Mapping[str, bool]) -> pd.DataFrame:
    """One line per set, corruption, severity, metric and structure, and `mean` over the structures.

    `calibrated` says of a corruption whether it is, which becomes a column; one it lacks is not.
    `mean`, `low`, `high` and `n` are those of the site table: means over patients with their 95 %
    intervals; beside Dice are the patients that failed. Empty without a corruption. The line `mean`
    is over the same structures at every severity: those that have a value at severity 0 and at each
    that was tested. Without any there is no such line.
    """
    check_one_run(rows)
    corrupted = rows[rows["corruption"] != ""]
    tested = corrupted[["set", "corruption"]].drop_duplicates()
    plain = acquired(rows).drop(columns="corruption").merge(tested, on="set")
    shown = pd.concat([plain, corrupted], ignore_index=True)
    shown = shown.assign(whole=_is_whole(shown))
    lines = estimates(shown, [*POINT, "whole"]).astype({"severity": int, "whole": bool})
    failed = failed_patients(shown, by=[*POINT, "whole", "metric"])
    on = [*POINT, "whole", "metric", "structure"]
    lines = lines.merge(failed[[*on, *COUNTS]], on=on, how="left")
    curves = lines[lines["whole"] | ~lines["is_mean"].astype(bool)]
    curves = curves.astype(dict.fromkeys(("n", "patients"), int))
    ranked = [name for name, whether in calibrated.items() if whether]
    curves = curves.assign(calibrated=curves["corruption"].isin(ranked))
    order = ["set", "corruption", "metric", "is_mean", "structure", "severity"]
    return curves.sort_values(order, ignore_index=True)[CURVE]


def shift_areas(
    curves: pd.DataFrame, measures: Measures, *, by: Sequence[str] = ()
) -> pd.DataFrame:
    """One line per set, corruption, metric and structure; of each set what hurts most comes first.

    `by` names further columns that tell curves apart. `start` is the value without a corruption,
    `end` that at `severity`, the highest tested. Of a corruption that is calibrated `area` is the
    mean of the curve over severities 0 to 5, with lines between those tested, and `loss` how much
    worse that is than `start`. Of another a mean over severities means nothing: `area` is NaN,
    `loss` how much worse `end` is, and they come behind, by name. Signed metrics, of which neither
    end is the good one, have no line.
    """
    keys = [*by, *KEYS, "calibrated"]
    judged = _judged(curves, measures).dropna(subset=["mean"])
    steps = np.arange(SEVERITIES + 1)  # every severity is one of them
    wide = judged.pivot(index=keys, columns="severity", values="mean").reindex(columns=steps)
    wide = wide[wide[0].notna() & wide[steps[1:]].notna().any(axis=1)].astype(np.float64)
    tested = wide.notna().to_numpy()
    drawn = wide.interpolate(axis=1, limit_area="inside").ffill(axis=1).to_numpy()
    areas = wide.index.to_frame(index=False)
    sign = areas["metric"].map(lambda metric: -measures[metric].badness(1.0))
    areas["start"], areas["end"] = drawn[:, 0], drawn[:, -1]
    areas["area"] = np.trapezoid(drawn, steps, axis=1) / SEVERITIES
    areas["area"] = areas["area"].where(areas["calibrated"])
    reached = areas["area"].fillna(areas["end"])
    areas["loss"] = sign.astype(float) * (areas["start"] - reached)
    areas["severity"] = (tested * steps).max(axis=1)
    return _worst_first(areas, by=[*by, "set", "metric", "structure"])[[*keys, *AREA]]


def shift_losses(areas: pd.DataFrame, *, by: Sequence[str] = ()) -> pd.DataFrame:
    """One line per metric and corruption, that which hurts most first: means of `AREA`.

    They are means over all other keys of `shift_areas`, of the mean of the structures' means. This
    order is the only one by which a corruption is said to hurt most; behind it, by name, come those
    that are not calibrated, which are in no order.
    """
    keys = [*by, "metric", "corruption", "calibrated"]
    means = areas[areas["structure"] == MEAN].groupby(keys)[AREA].mean().reset_index()
    return _worst_first(means, by=[*by, "metric"])


def summarise_shifts(curves: pd.DataFrame, measures: Measures) -> dict[str, float]:
    """Flat summary of what the corruptions cost; positive is worse, for every metric.

    | key                               | value                                                    |
    |-----------------------------------|----------------------------------------------------------|
    | `test/shift/<corruption>/<metric>`| mean `loss` of `shift_areas` over sets, of the mean of   |
    |                                   | the structures' means                                    |
    | `test/worst_shift/<metric>`       | the largest of these that is of a calibrated corruption  |
    """
    losses = shift_losses(shift_areas(curves, measures))
    summary = {
        f"test/shift/{line['corruption']}/{line['metric']}": float(line["loss"])
        for line in losses.to_dict("records")
    }
    worst = losses[losses["calibrated"]].groupby("metric")["loss"].max()
    summary |= {f"test/worst_shift/{metric}": float(loss) for metric, loss in worst.items()}
    return dict(sorted(summary.items()))


def write_curves(path: Path, curves: pd.DataFrame) -> None:
    """Write `shift_curves` as CSV."""
    path.write_text(curves.to_csv(index=False, lineterminator="\n"), encoding="utf-8")


def read_curves(path: Path) -> pd.DataFrame:
    """What `write_curves` wrote; a set called 007 is not 7. Raises InputError for another table."""
    curves = read_strings(path, columns=CURVE, what="curves")
    numbers = curves[["mean", "low", "high", *COUNTS]].apply(pd.to_numeric)
    counts = dict.fromkeys(("severity", "n", "patients"), int)
    calibrated = curves["calibrated"] == "True"
    return curves.assign(**numbers, calibrated=calibrated).astype(counts)[CURVE]


def _worst_first(losses: pd.DataFrame, *, by: Sequence[str]) -> pd.DataFrame:
    """Sorted by these columns, then by the loss of what is calibrated, then by name."""
    ranked = losses.assign(ranked=losses["loss"].where(losses["calibrated"].astype(bool), -np.inf))
    order = [*by, "ranked", "corruption"]
    ascending = [column != "ranked" for column in order]
    return ranked.sort_values(order, ascending=ascending, ignore_index=True)[list(losses)]


def _is_whole(shown: pd.DataFrame) -> "pd.Series[bool]":
    """Whether the structure of each row has a value at every severity of its set and corruption."""
    severities = shown["severity"].where(shown["value"].notna())
    measured = severities.groupby([shown[key] for key in KEYS]).transform("nunique")
    return measured == shown.groupby(["set", "corruption"])["severity"].transform("nunique")


def _judged(curves: pd.DataFrame, measures: Measures) -> pd.DataFrame:
    judged = [name for name, measure in measures.items() if not measure.signed]
    return curves[curves["metric"].isin(judged)]
