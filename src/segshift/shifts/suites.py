"""A suite is a list of shifts and of severities; here it becomes one shift for each pair."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segshift.errors import InputError
from segshift.shifts.shift import SEVEREST, Shift, check_severity


def expanded(suite: Sequence[Mapping[str, Any]], severities: Sequence[int]) -> list[dict[str, Any]]:
    """The entries of a suite, each at all severities unless it has one of its own.

    Raises InputError for a severity that is no whole number from 0 to 5, and for a suite none of
    whose shifts has one above 0.
    """
    if not isinstance(severities, list | tuple):
        raise InputError(f"shift.severities={severities!r}: a list of whole numbers, such as [1,3]")
    for severity in severities:
        check_severity(severity, "shift.severities")
    made = [
        {**entry, "severity": severity}
        for entry in suite
        for severity in ([entry["severity"]] if "severity" in entry else severities)
    ]
    if suite and all(entry["severity"] == 0 for entry in made):
        raise InputError(
            f"shift.severities={severities!r} leaves no shift of the suite a severity above 0; "
            f"give some of 1 to {SEVEREST}, such as shift.severities=[1,3], or take shift=none"
        )
    return made


def distinct(shifts: Iterable[Shift]) -> list[Shift]:
    """The shifts that change something, by name and severity.

    Raises InputError for two of the same name and severity, and for a name that is no word.
    """
    kept = list(shifts)
    for shift in kept:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", shift.name):
            raise InputError(
                f"a shift is called {shift.name!r}; names have letters, digits, '-' and '_'"
            )
        check_severity(shift.severity, shift.name)
    kept = [shift for shift in kept if shift.severity]
    times = Counter(f"{shift.name}{shift.severity}" for shift in kept)
    if twice := [name for name, count in times.items() if count > 1]:
        raise InputError(f"the suite has {twice} more than once; shift.suite and shift.severities")
    return kept
