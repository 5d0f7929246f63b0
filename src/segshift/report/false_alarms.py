"""False alarms, which no overlap counts: a structure is predicted in cases that do not have it."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from segshift.metrics import FalseAlarm, FalseAlarmVolume, measure_of, measured_by
from segshift.report.measures import digits, lines_of, records
from segshift.report.study_words import train_label
from segshift.results import place_name

ANSWERED = 3  # pairs; the table of the page has all


def false_alarm_sentence(rows: pd.DataFrame, *, structures: Sequence[str]) -> str:
    """By structure, in how many of the cases without it it is predicted; "" where all have all."""
    known = _known(rows)
    told = [
        f"{name} in {int(own.sum())} of {len(own)}"
        for name in structures
        if len(own := known.loc[known["structure"] == name, "value"])
    ]
    return f"False alarms: {', '.join(told)} cases without it." if told else ""


def false_alarm_lines(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The false alarms of a run, the largest first, each with `size`, its `unit` and `decimals`.

    Those of one unit stand together.
    """
    keys = ["set", "site", "case", "structure"]
    known, measures = _known(rows), measured_by([FalseAlarmVolume()])
    sizes = rows[rows["metric"].isin(measures)].dropna(subset=["value"]).set_index(keys)
    about = [measures[name] for name in sizes["metric"]]
    units, decimals = [one.unit for one in about], [digits(one) for one in about]
    sizes = sizes.rename(columns={"value": "size"}).assign(unit=units, decimals=decimals)
    alarms = known[known["value"] > 0][keys].join(sizes[["size", "unit", "decimals"]], on=keys)
    order = ["unit", "size", *keys]
    return records(alarms.sort_values(order, ascending=[True, False, *(True for _ in keys)]))


def false_alarm_answers(gaps: pd.DataFrame, *, sites: Sequence[str]) -> list[str]:
    """What the gap table says of them: a sentence for each of the pairs with the largest gaps.

    One sentence where no network had any at a test site; none where no case lacks a structure.
    """
    pairs = lines_of(gaps, measure_of(FalseAlarm())).dropna(subset=["gap"])
    alarmed = pairs[pairs["out"] > 0]
    if len(pairs) and alarmed.empty:
        return ["False alarms: none at any test site."]
    order = alarmed.sort_values(["gap", "train", "site"], ascending=[False, True, True])
    several = pairs["variant"].nunique() > 1
    told = []
    for line in records(order.head(ANSWERED)):
        variant = f"{line['variant']}: " if several else ""
        told.append(
            f"False alarms: {variant}a network trained at {train_label(line['train'], sites)} "
            f"predicts a structure in {line['out']:.2f} of the cases at "
            f"{place_name(line['set'], line['site'])} that do not have it, against "
            f"{line['in_domain']:.2f} at home."
        )
    return told


def _known(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["metric"] == FalseAlarm.name].dropna(subset=["value"])
