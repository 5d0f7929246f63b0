"""The manifest: one CSV that describes a cohort.

Columns `id, patient, site, label`, and `image` (one channel) or `image_<channel>` (several). Paths
are relative to the manifest's folder. `structures` says what the label's values mean, as
`liver=1 kidney=2`; a site may number them in its own way. Every other column is kept as a tag.
"""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from segshift.cohort.case import Case, Cohort
from segshift.errors import InputError

REQUIRED = ("id", "patient", "site", "label")


def read_manifest(
    path: str | Path,
    *,
    structures: Mapping[str, int] | None = None,
    sites: Sequence[str] | None = None,
    name: str | None = None,
) -> Cohort:
    """Read a cohort from its CSV, or its cases at `sites` alone.

    `structures` (name to label value) overrides the column of that name. Raises InputError that
    names the line, for a missing file, column, value, an id used twice or a site without cases.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no manifest at {path}; make one with `segshift cohort import`")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV file: {error}") from error
    image_columns = _check_columns(path, columns)
    if not lines:
        raise InputError(f"{path} has a header but no cases")
    given = _checked_structures("data.structures", structures) if structures else None
    names: tuple[str, ...] | None = tuple(given) if given else None
    known = sorted({line.get("site") or "" for line in lines})
    if sites is not None and (isinstance(sites, str) or not sites or not set(sites) <= set(known)):
        raise InputError(f"data.sites={sites!r}: a list of the sites of {path}, which are {known}")
    cases: list[Case] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        if sites is not None and line["site"] not in sites:
            continue
        where = f"{path}, line {number}"
        _check_line(where, line, columns, image_columns)
        if line["id"] in seen:
            raise InputError(
                f"{where}: id {line['id']!r} was used before, on line {seen[line['id']]}"
            )
        seen[line["id"]] = number
        values = given or _parse_structures(where, line.get("structures") or "")
        if names is None:
            names = tuple(values)
        if set(values) != set(names):
            raise InputError(
                f"{where}: case {line['id']!r} has the structures {sorted(values)}, "
                f"the cases before it {sorted(names)}; all cases of a cohort need the same"
            )
        cases.append(_case(path.parent, line, image_columns, tuple(values[n] for n in names)))
    channels = tuple(column.removeprefix("image_") for column in image_columns)
    return Cohort(name or path.stem, channels, names or (), tuple(cases))


def write_manifest(
    path: str | Path, cases: Iterable[Case], *, channels: Sequence[str], structures: Sequence[str]
) -> None:
    """Write `cases` as `read_manifest` reads them; the file appears whole or not at all."""
    path = Path(path)
    cases = list(cases)
    images = ["image"] if len(channels) == 1 else [f"image_{channel}" for channel in channels]
    tags = sorted({tag for case in cases for tag in case.tags})
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*REQUIRED[:3], *images, "label", "structures", *tags])
        for case in cases:
            pairs = zip(structures, case.label_values, strict=True)
            writer.writerow(
                [case.id, case.patient, case.site]
                + [_written(image, path.parent) for image in case.images]
                + [_written(case.label, path.parent) if case.label else ""]
                + [" ".join(f"{name}={value}" for name, value in pairs)]
                + [case.tags.get(tag, "") for tag in tags]
            )
    draft.replace(path)


def _check_columns(path: Path, columns: list[str]) -> list[str]:
    images = [c for c in columns if c == "image"] or [c for c in columns if c.startswith("image_")]
    missing = [c for c in REQUIRED if c not in columns] + ([] if images else ["image"])
    if missing:
        raise InputError(f"{path} lacks the column(s) {missing}; it has {columns}")
    return images


def _check_line(
    where: str, line: dict[str, str], columns: list[str], image_columns: list[str]
) -> None:
    if None in line or any(value is None for value in line.values()):
        raise InputError(f"{where}: the number of values differs from the {len(columns)} columns")
    for column in (*REQUIRED[:3], *image_columns):
        if not line[column].strip():
            raise InputError(f"{where}: column {column!r} is empty")
    if not re.fullmatch(r"[^/\\+.\s][^/\\+]*", line["site"]):
        raise InputError(
            f"{where}: site {line['site']!r} becomes part of names, so it may not hold '/', "
            "'\\' or '+' (which marks a shift) nor begin with '.' or a space"
        )


def _parse_structures(where: str, text: str) -> dict[str, int]:
    try:
        values = {name: int(value) for name, value in (p.split("=") for p in text.split())}
    except ValueError as error:
        raise InputError(
            f"{where}: structures {text!r} should read like 'liver=1 kidney=2'"
        ) from error
    if not values:
        raise InputError(
            f"{where}: nothing says what the label's values mean; add a column `structures` "
            "('liver=1 kidney=2') or set data.structures='{liver: 1, kidney: 2}'"
        )
    return _checked_structures(where, values)


def _checked_structures(where: str, values: Mapping[str, int]) -> dict[str, int]:
    """Refuse what would make a structure silently empty: 0, and one value for two of them."""
    if not isinstance(values, Mapping) or not all(type(v) is int for v in values.values()):
        raise InputError(
            f"{where} is {values!r}; it should map names to whole numbers: {{liver: 1}}"
        )
    wrong = [n for n in values if not re.fullmatch(r"[^\W_][\w.-]*", str(n)) or n == "mean"]
    if wrong:
        raise InputError(
            f"{where} has the structure name(s) {wrong}; a name has letters, digits, '_', '-' and "
            "'.', begins with a letter or digit and is not 'mean', which tables use"
        )
    if min(values.values()) < 1 or len(set(values.values())) < len(values):
        raise InputError(
            f"{where} has the values {dict(values)}; each structure needs its own, from 1 upwards "
            "(0 is the background)"
        )
    return dict(values)


def _case(
    folder: Path, line: dict[str, str], image_columns: list[str], values: tuple[int, ...]
) -> Case:
    private = {*REQUIRED, *image_columns, "structures"}
    return Case(
        id=line["id"],
        patient=line["patient"],
        site=line["site"],
        images=tuple(folder / line[column] for column in image_columns),
        label=folder / line["label"] if line["label"] else None,
        label_values=values,
        tags={key: value for key, value in line.items() if key not in private},
    )


def _written(path: Path, folder: Path) -> str:
    """Relative to the manifest where the file lies below it, so that the folder can move."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
