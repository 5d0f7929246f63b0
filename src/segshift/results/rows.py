"""rows.csv: one measured number per line, the only truth about the quality of a run."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from segshift.errors import InputError
from segshift.results.drafts import write_whole


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number; NaN means that the metric is not defined for this case."""

    run: str
    set: str
    case: str
    patient: str
    site: str
    structure: str
    metric: str
    value: float


COLUMNS = tuple(field.name for field in fields(Row))


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows at the end, with a header if the file is new; they are flushed on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        # One write per call, so that an interrupted run keeps whole lines.
        file.write(_to_csv(rows, header=file.tell() == 0))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace the file at once, sorted by set, case, structure and metric.

    Raises:
        InputError: two rows have the same key; padding by a distributed sampler does that.
    """
    ordered = sorted(rows, key=_key)
    repeated = [key for key, times in Counter(map(_key, ordered)).items() if times > 1]
    if repeated:
        raise InputError(
            f"{path}: {len(repeated)} numbers measured more than once, the first one is "
            f"(set, case, structure, metric, run) = {repeated[0]}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, _to_csv(ordered, header=True))


def read_strings(path: Path, *, columns: Sequence[str], what: str) -> pd.DataFrame:
    """A CSV whose cells are all strings. Raises InputError if it is none or lacks a column."""
    try:
        # A site called "NA" is a site, and a case called 007 is not case 7.
        table = pd.read_csv(path, dtype="str", keep_default_na=False)
    except ValueError as error:  # pandas raises it for an empty or torn file
        raise InputError(f"{path}: not a table of {what}: {error}") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise InputError(f"{path}: columns missing: {', '.join(missing)}")
    return table


def read_rows(path: Path) -> pd.DataFrame:
    """Table with the columns of `Row`; names stay strings even if they look like numbers.

    Raises InputError for a file that is no such table, and for an infinite value.
    """
    table = read_strings(path, columns=COLUMNS, what="rows")
    try:
        # Python's float, unlike pandas' own parser, gives back the bits that repr wrote.
        table["value"] = table["value"].map(float).astype("float64")
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: column value: {error}") from error
    infinite = table[np.isinf(table["value"])]
    if len(infinite):
        metric, structure, case, value = infinite.iloc[0][["metric", "structure", "case", "value"]]
        raise InputError(
            f"{path}: {metric} of {structure} of case {case!r} is {value} ({len(infinite)} such "
            "values), which has no mean; write the diagonal of the image in mm for a distance from "
            "a structure that was missed, NaN for what is undefined"
        )
    return table[list(COLUMNS)]


def _key(row: Row) -> tuple[str, ...]:
    return row.set, row.case, row.structure, row.metric, row.run


def _to_csv(rows: Iterable[Row], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows(_cells(row) for row in rows)
    return text.getvalue()


def _cells(row: Row) -> Sequence[str]:
    # repr of a Python float reads back to the same bits; that of a NumPy float is not a number.
    *names, value = astuple(row)
    return [*names, repr(float(value))]
