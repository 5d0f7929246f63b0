"""rows.csv: one measured number per line, the only truth about the quality of a run."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from segshift.errors import InputError
from segshift.results.drafts import write_whole


@dataclass(frozen=True, slots=True)
class Row:
    """One measured number; NaN means that the metric is not of this case.

    `corruption` and its `severity` are "" and 0 for images as they were acquired. `rater` is "" for
    the network, else who drew the mask that is held against the reference in its place.
    `postprocessed` says whether the mask was. `reference_empty`: nobody drew the structure here.
    """

    run: str
    set: str
    corruption: str
    severity: int
    case: str
    patient: str
    site: str
    rater: str
    postprocessed: bool
    structure: str
    reference_empty: bool
    metric: str
    value: float


COLUMNS = tuple(field.name for field in fields(Row))
FLAGS = ("postprocessed", "reference_empty")
WRITTEN = {False: "false", True: "true"}
KEY = [
    "set", "corruption", "severity", "case", "structure", "metric", "rater", "postprocessed", "run",
]  # fmt: skip


def rows_of(
    who: Mapping[str, Any],
    scores: Iterable[tuple[str, bool, str, float]],
    *,
    rater: str = "",
    postprocessed: bool = False,
) -> list[Row]:
    """Rows of one case: `who` has the columns up to the site, a score the last four."""
    return [
        Row(
            **who, rater=rater, postprocessed=postprocessed, structure=structure,
            reference_empty=empty, metric=metric, value=value,
        )
        for structure, empty, metric, value in scores
    ]  # fmt: skip


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add rows at the end, with a header if the file is new; they are flushed on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        # One write per call, so that an interrupted run keeps whole lines.
        file.write(_to_csv(rows, header=file.tell() == 0))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Replace the file at once, sorted by set, corruption, case, structure and metric.

    Raises:
        InputError: two rows have the same key; padding by a distributed sampler does that.
    """
    ordered = sorted(rows, key=_key)
    repeated = [key for key, times in Counter(map(_key, ordered)).items() if times > 1]
    if repeated:
        raise InputError(
            f"{path}: {len(repeated)} numbers measured more than once, the first one is "
            f"({', '.join(KEY)}) = {repeated[0]}"
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
            "values), which has no mean; write the diagonal of the image in mm (of one without a "
            "physical size in pixels) for a distance from a structure that was missed, NaN for "
            "what is undefined"
        )
    for flag in FLAGS:
        # In any case of letters: pandas and spreadsheets write True and TRUE.
        read = table[flag].str.lower().map({text: value for value, text in WRITTEN.items()})
        if read.isna().any():
            found = table.loc[read.isna(), flag].iloc[0]
            raise InputError(f"{path}: column {flag}: {found!r}; it is true or false")
        table[flag] = read.astype(bool)
    if not table["severity"].str.fullmatch(r"\d+").all():
        raise InputError(f"{path}: column severity: whole numbers wanted, 0 without a corruption")
    table["severity"] = table["severity"].astype(int)
    return table[list(COLUMNS)]


def no_rows() -> pd.DataFrame:
    """The table of `read_rows` without a line, with the types of its columns."""
    types = {field.name: field.type for field in fields(Row)}
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})


def acquired(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of images as they were acquired, without a corruption."""
    return rows[rows["corruption"] == ""]


def of_network(rows: pd.DataFrame, *, postprocessed: bool = False) -> pd.DataFrame:
    """The rows of the network's own masks, without post-processing unless it is asked for.

    With it, what was not post-processed stands for itself: where a run chose no rule the masks are
    the same, and probabilities have none.
    """
    own = rows[rows["rater"] == ""]
    if not postprocessed:
        return own[~own["postprocessed"]]
    same = [name for name in KEY if name != "postprocessed"]
    return own.sort_values("postprocessed", kind="stable").drop_duplicates(same, keep="last")


def of_raters(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of other people's masks of the same images: how well people agree."""
    return rows[rows["rater"] != ""]


def _key(row: Row) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in KEY)


def _to_csv(rows: Iterable[Row], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(COLUMNS)
    writer.writerows(_cells(row) for row in rows)
    return text.getvalue()


def _cells(row: Row) -> Sequence[str]:
    # repr of a Python float reads back to the same bits; that of a NumPy float is not a number.
    *cells, value = astuple(row)
    texts = [WRITTEN[cell] if isinstance(cell, bool) else str(cell) for cell in cells]
    return [*texts, repr(float(value))]
