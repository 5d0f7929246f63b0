"""Rows as runs write them, with every column that a test says nothing of."""

import math
from typing import Any

from segshift.metrics import (
    Dice,
    HausdorffDistance95,
    Measure,
    RelativeVolumeDifference,
    measure_of,
)
from segshift.results import Row

DICE, HD95 = measure_of(Dice()), measure_of(HausdorffDistance95())
SIGNED = measure_of(RelativeVolumeDifference())
FALSE_ALARM = Measure("false_alarm", "", "lower")
MEASURES = {measure.name: measure for measure in (DICE, HD95, SIGNED, FALSE_ALARM)}


def row(run: str, set_: str, case: str, site: str, value: float, **other: Any) -> Row:
    """Of the liver's Dice, of a patient with one case, unless told otherwise.

    A NaN is one because the reference has no such structure.
    """
    names: dict[str, Any] = {
        "corruption": "", "severity": 0, "patient": case, "rater": "", "postprocessed": False,
        "structure": "liver", "reference_empty": math.isnan(value), "metric": "dice",
    }  # fmt: skip
    unknown = set(other) - set(names)
    assert not unknown, unknown
    return Row(run=run, set=set_, case=case, site=site, value=value, **{**names, **other})
