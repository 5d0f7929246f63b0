"""cases.csv: who was evaluated, a line per set and case with the manifest's columns that are tags.

Rows join it by `set` and `case`, so that they can be grouped by anything without the manifest.
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.plan import Scaled
from segshift.results.drafts import drafted, write_whole
from segshift.results.rows import read_strings

COLUMNS = ("set", "case", "patient", "site")
SCALE = ("scale", "scale_from")  # after them, where pictures were brought to one


def write_cases(path: Path, sets: Mapping[str, Iterable[Case]]) -> None:
    """Write the cases of all evaluation sets, sorted; the file appears whole or not at all.

    Tags that are named as one of `COLUMNS` become `original_<tag>`.
    """
    lines: list[dict[str, str]] = []
    for name, cases in sets.items():
        for case in cases:
            tags = {f"original_{t}" if t in COLUMNS else t: v for t, v in case.tags.items()}
            values = (name, case.id, case.patient, case.site)
            lines.append({**tags, **dict(zip(COLUMNS, values, strict=True))})
    lines.sort(key=lambda line: (line["set"], line["case"]))
    columns = dict.fromkeys([*COLUMNS, *(c for line in lines for c in line)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with drafted(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(columns), restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def add_scales(path: Path, scales: Mapping[tuple[str, str], Scaled]) -> None:
    """Add the columns SCALE, by set and case; tags that are named so become `original_<tag>`."""
    table = read_cases(path).rename(columns={name: f"original_{name}" for name in SCALE})
    known = {key: scaled.written() for key, scaled in scales.items()}
    lines = [known.get(key, ("", "")) for key in zip(table["set"], table["case"], strict=True)]
    for place, (name, *values) in enumerate(zip(SCALE, *lines, strict=True), start=len(COLUMNS)):
        table.insert(place, name, values)
    write_whole(path, table.to_csv(index=False, lineterminator="\n"))


def read_cases(path: Path) -> pd.DataFrame:
    """The table of `write_cases`, all strings. Raises InputError for a broken file."""
    table = read_strings(path, columns=COLUMNS, what="cases")
    twice = table[table.duplicated(["set", "case"])]
    if len(twice):
        named = twice[["set", "case"]].head(5).to_dict("records")
        raise InputError(f"{path}: there are several lines of {named}")
    return table
