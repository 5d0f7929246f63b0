"""cases.csv: who was evaluated, a line per case with all columns of the manifest that are tags.

Rows join it by `case`, so that they can be grouped by anything without the manifest.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.results.drafts import drafted
from segshift.results.rows import read_strings

COLUMNS = ("case", "sets", "patient", "site")


def write_cases(path: Path, sets: Mapping[str, Iterable[Case]]) -> None:
    """Write the cases of all evaluation sets, sorted by id; the file appears whole or not at all.

    `sets` holds a case's sets, joined by `;`. Tags that are named as one of `COLUMNS` become
    `original_<tag>`.
    """
    lines: dict[str, dict[str, str]] = {}
    for name, cases in sets.items():
        for case in cases:
            known = lines.get(case.id)
            if known:
                known["sets"] += f";{name}"
                continue
            tags = {f"original_{t}" if t in COLUMNS else t: v for t, v in case.tags.items()}
            values = (case.id, name, case.patient, case.site)
            lines[case.id] = {**tags, **dict(zip(COLUMNS, values, strict=True))}
    columns = dict.fromkeys([*COLUMNS, *(c for line in lines.values() for c in line)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with drafted(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines[case] for case in sorted(lines))


def read_cases(path: Path) -> pd.DataFrame:
    """The table of `write_cases`, all strings. Raises InputError for a broken file."""
    table = read_strings(path, columns=COLUMNS, what="cases")
    twice = sorted(set(table["case"][table["case"].duplicated()]))
    if twice:
        raise InputError(f"{path}: the case(s) {twice[:5]} have several lines")
    return table
