"""What the values of a BIDS label mean: `dseg.tsv` beside it or above it.

Such a table has the columns `index` and `name`; the one nearest to the label holds alone. See
https://bids-specification.readthedocs.io/en/stable/derivatives/imaging.html
"""

import csv
import re
from pathlib import Path

from segshift.cohort.images import SUFFIXES
from segshift.cohort.importers.bids_tags import inherited
from segshift.cohort.importers.imported import word
from segshift.errors import InputError


def stem_of(file: Path) -> str:
    """The file's name without the suffix of its format."""
    longest = max((s for s in SUFFIXES if file.name.lower().endswith(s)), key=len)
    return file.name[: -len(longest)]


def table_of(top: Path, label: Path) -> Path | None:
    """The table that holds for a label named `*_dseg`, or none."""
    stem = stem_of(label)
    if not stem.endswith("_dseg"):
        return None
    return next(iter(reversed(inherited(top, label, stem, ".tsv"))), None)


def read_values(table: Path) -> dict[str, int]:
    """Structure to value, in the table's order and without the background, 0.

    Raises InputError for a line without whole number or name, and for one that repeats another.
    """
    values: dict[str, int] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            lines = [(x["index"], x["name"]) for x in csv.DictReader(file, delimiter="\t")]
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{table} should be a table with tabs and the columns index and name ({error!r})"
        ) from error
    for number, (index, name) in enumerate(lines, start=2):
        if not re.fullmatch(r"\s*[0-9]{1,9}\s*", index or "") or name in (None, "", "n/a"):
            raise InputError(
                f"{table}, line {number}: index {index!r} and name {name!r} should be a whole "
                "number and what it means"
            )
        structure, value = word(name), int(index)
        if value and (structure in values or value in values.values()):
            raise InputError(
                f"{table}, line {number}: {index} {name!r} repeats {values}; every structure needs "
                "a name (in letters and digits) and an index of its own, or --structures"
            )
        if value:
            values[structure] = value
    if not values:
        raise InputError(f"{table} names no structure; mend it, or add --structures 'liver=1'")
    return values
