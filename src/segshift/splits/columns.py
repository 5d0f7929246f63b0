"""The split by a column of the manifest: another vendor, another field strength, a range of TR."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from segshift.cohort import Case, Cohort
from segshift.errors import InputError
from segshift.splits.sites import random
from segshift.splits.split import Split, set_name, with_outside

Value = str | float | bool


def by_column(
    cohort: Cohort,
    *,
    seed: int,
    column: str,
    val_fraction: float,
    test_fraction: float,
    values: Value | Sequence[Value] | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Split:
    """Train without the cases that have `values` of a column, or numbers from `low` to `high`.

    Each value becomes the set `<column>-<value>`, a range `<column>-<low>..<high>`; both ends
    belong to it, and without one it is open. The other cases are split as `random` does it.
    Raises InputError for a column or a value that no case has, and for cells that are empty.
    """
    cells = cells_of(cohort, column)
    if (values is None) == (low is None and high is None):
        raise InputError(
            "split=by_column takes split.values=[...], or split.low=... and split.high=... for "
            f"numbers; {column!r} has {_some(cells.values())}"
        )
    if values is None:
        held = {_range_name(column, low, high): _in_range(cells, column, low, high)}
    else:
        texts = _found(cells, column, values)
        held = {
            set_name(column, min(found)): [i for i, cell in cells.items() if cell in found]
            for found in texts
        }
        if len(held) < len(texts):
            raise InputError(f"split.values={values}: two of them are the same set; {list(held)}")
    out = {identity for ids in held.values() for identity in ids}
    if len(out) == len(cells):
        raise InputError(
            f"split=by_column holds out all {len(cells)} cases: no value of {column!r} is left to "
            "train on"
        )
    case_of = {case.id: case for case in cohort.cases}
    home = random(
        replace(cohort, cases=tuple(case for case in cohort.cases if case.id not in out)),
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    outside = {name: [case_of[identity] for identity in ids] for name, ids in held.items()}
    return with_outside(home, f"the other values of {column!r}", outside)


def cells_of(cohort: Cohort, column: str) -> dict[str, str]:
    """By case the text in a column. Raises InputError for one that is not there or has gaps."""
    known = sorted({"site", *(tag for case in cohort.cases for tag in case.tags)})
    if column not in known:
        raise InputError(f"split.column={column}: the columns of {cohort.name} are {known}")
    cells = {case.id: _cell(case, column) for case in cohort.cases}
    if empty := sorted(identity for identity, cell in cells.items() if not cell):
        raise InputError(
            f"split.column={column} is empty in {len(empty)} case(s), {empty[:5]}: on which side "
            "they belong is not known. Fill it, or take them out of the manifest"
        )
    return cells


def _cell(case: Case, column: str) -> str:
    return case.site if column == "site" else case.tags.get(column, "").strip()


def _found(cells: Mapping[str, str], column: str, values: Any) -> list[set[str]]:  # noqa: ANN401
    """For every value the texts that mean it: 3 is also written 3.0."""
    wanted = list(values) if isinstance(values, list | tuple) else [values]
    texts = [{cell for cell in cells.values() if _means(cell, value)} for value in wanted]
    unknown = [value for value, found in zip(wanted, texts, strict=True) if not found]
    if unknown or not wanted:
        raise InputError(
            f"split.values={wanted}: not a case has {unknown} in the column {column!r}, "
            f"which has {_some(cells.values())}"
        )
    return texts


def _means(cell: str, value: Value) -> bool:
    if isinstance(value, bool):  # what the command line makes of true and false
        return cell.lower() == str(value).lower()
    return cell == value if isinstance(value, str) else _number(cell) == value


def _in_range(
    cells: Mapping[str, str], column: str, low: float | None, high: float | None
) -> list[str]:
    numbers = {identity: _number(cell) for identity, cell in cells.items()}
    if wrong := sorted(identity for identity, number in numbers.items() if math.isnan(number)):
        raise InputError(
            f"split.column={column}: no number in {len(wrong)} case(s), such as {wrong[0]!r} with "
            f"{cells[wrong[0]]!r}; name texts with split.values, or correct the manifest"
        )
    for option, bound in (("low", low), ("high", high)):
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float)):
            raise InputError(f"split.{option}={bound!r}: a number, or null")
    bottom, top = (-math.inf if low is None else low), (math.inf if high is None else high)
    held = [identity for identity, number in numbers.items() if bottom <= number <= top]
    if not held:
        raise InputError(
            f"split.low={low} split.high={high}: not a case lies there; {column!r} goes from "
            f"{min(numbers.values()):.12g} to {max(numbers.values()):.12g}"
        )
    return held


def _range_name(column: str, low: float | None, high: float | None) -> str:
    ends = ("" if bound is None else f"{bound}" for bound in (low, high))
    return set_name(column, "..".join(ends))


def _number(cell: str) -> float:
    """NaN for what is none."""
    try:
        number = float(cell)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _some(cells: Any) -> list[str]:  # noqa: ANN401
    """The values that occur, the first of many."""
    values = sorted(set(cells))
    return values if len(values) <= 20 else [*values[:20], "..."]
