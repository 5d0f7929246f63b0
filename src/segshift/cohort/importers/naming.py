"""Where a case's site or patient comes from: a folder, a column or part of the id.

A rule reads `level:1` (the first folder below the imported one), `column:vendor` or
`regex:^([a-z]+)-` (the first group, found in the id).
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from segshift.cohort.case import Case
from segshift.cohort.importers.imported import Imported
from segshift.errors import InputError

Rule = Callable[[Case], str]


def renamed(
    imported: Imported, top: Path, *, site_from: str | None, patient_from: str | None
) -> Imported:
    """The cases with site and patient by rule. Raises InputError naming the case without one."""
    cases = imported.cases
    if site_from:
        rule = _rule("--site-from", site_from, top)
        cases = tuple(replace(case, site=rule(case)) for case in cases)
    if patient_from:
        rule = _rule("--patient-from", patient_from, top)
        cases = tuple(replace(case, patient=rule(case)) for case in cases)
    return imported._replace(cases=cases)


def _rule(option: str, text: str, top: Path) -> Rule:
    kind, _, rest = text.partition(":")
    makers = {"level": _by_level, "column": _by_column, "regex": _by_expression}
    if kind not in makers or not rest:
        raise InputError(
            f"{option} {text!r} should be level:NUMBER, column:NAME or regex:EXPRESSION"
        )
    rule = makers[kind](f"{option} {text}", rest, top)

    def checked(case: Case) -> str:
        found = rule(case).strip()
        if not found:
            raise InputError(f"{option} {text}: case {case.id!r} has nothing there")
        return found

    return checked


def _by_level(where: str, text: str, top: Path) -> Rule:
    if not re.fullmatch(r"[1-9]\d*", text):
        raise InputError(f"{where}: a level is a whole number from 1, the first folder below {top}")

    def folder(case: Case) -> str:
        image = case.images[0]
        below = image.resolve().relative_to(top.resolve())
        parts = below.parts if image.is_dir() else below.parent.parts
        if len(parts) < int(text):
            raise InputError(
                f"{where}: case {case.id!r} lies in {len(parts)} folder(s) below {top}: {below}"
            )
        return parts[int(text) - 1]

    return folder


def _by_column(where: str, text: str, top: Path) -> Rule:
    def value(case: Case) -> str:
        if text not in case.tags:
            known = ", ".join(sorted(case.tags)) or "none"
            raise InputError(f"{where}: case {case.id!r} has no such column; there are: {known}")
        return case.tags[text].replace("/", "_").replace("\\", "_").replace("+", "_")

    return value


def _by_expression(where: str, text: str, top: Path) -> Rule:
    try:
        expression = re.compile(text)
    except re.error as error:
        raise InputError(f"{where}: not a regular expression ({error})") from error

    def part(case: Case) -> str:
        match = expression.search(case.id)
        if match is None:
            raise InputError(f"{where}: does not match the case {case.id!r}")
        return (match[1] or "") if expression.groups else match[0]

    return part
