"""What post-processing was chosen for, and what it changed: a section of a run's page."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segshift.metrics import Measure
from segshift.postprocessing import MINIMUM, RECORD
from segshift.report.measures import decimals_beside, digits, heading, written
from segshift.report.slices import sets_of

RULES = {
    "largest_component": "only the largest component is kept",
    "fill_holes": "holes are filled",
} | {rule: f"components below {{value:g}} {unit} are removed" for unit, rule in MINIMUM.items()}


@dataclass(frozen=True, slots=True)
class Change:
    """A mean of a set without post-processing and with it, written."""

    set: str
    metric: str
    without: str
    after: str
    difference: str


@dataclass(frozen=True, slots=True)
class PostprocessingSection:
    """What was chosen, why nothing was, and by set what it changed."""

    chosen: tuple[str, ...]
    reasons: tuple[str, ...]
    changes: tuple[Change, ...]


def postprocessing_section(
    folder: Path,
    rows: pd.DataFrame,
    summary: Mapping[str, Any],
    measures: Iterable[Measure],
) -> PostprocessingSection | None:
    """Of every row of the run; None where nothing was chosen and nobody tried to."""
    path = folder / RECORD
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    changed = rows[rows["postprocessed"] & (rows["corruption"] == "")]
    chosen = [
        f"{structure}: {_rule(rule)}"
        for structure, rules in record.get("rules", {}).items()
        for rule in rules
    ]
    reasons = [f"{name}: {reason}" for name, reason in record.get("reasons", {}).items()]
    if changed.empty and not chosen and not reasons:
        return None
    changes = [
        change
        for set_ in sets_of(changed)
        for measure in measures
        if (change := _change(summary, set_, measure))
    ]
    return PostprocessingSection(tuple(chosen), tuple(reasons), tuple(changes))


def _rule(rule: Mapping[str, Any]) -> str:
    """In words, with what it gained: holes are filled; validation score 0.812 to 0.830, ..."""
    words = RULES.get(rule["rule"], rule["rule"]).format(value=rule["value"])
    before, after = (written(rule[f"score_{when}"], 3) for when in ("before", "after"))
    patients = rule["patients"]
    who = f"{patients} patient{'' if patients == 1 else 's'}"
    return f"{words}; validation score {before} to {after}, of {who}"


def _change(summary: Mapping[str, Any], set_: str, measure: Measure) -> Change | None:
    before, after = (
        summary.get(f"{scope}/{set_}/{measure.name}") for scope in ("test", "postprocessed")
    )
    if before is None or after is None:
        return None
    apart = after - before
    decimals = decimals_beside([apart], least=digits(measure))
    return Change(
        set=set_,
        metric=heading(measure),
        without=written(before, digits(measure)),
        after=written(after, digits(measure)),
        difference=f"{apart:+.{decimals}f}",
    )
