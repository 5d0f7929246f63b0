"""The manifest: one CSV that describes a cohort.

Columns `id, patient, site`, `image` (one channel) or `image_<channel>` (several), and `label`;
`label_2`, `label_3` are further raters', `label_<structure>` holds one structure alone. Paths are
relative to the manifest's folder. `structures` says what the label's values mean, as `liver=1
kidney=2` (see `labelling`); a site may number them in its own way. Other columns are kept as tags.
"""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from segshift.cohort.case import Case, Cohort
from segshift.cohort.labelling import NONZERO, LabelMap, label_map, parsed_rules, written_rules
from segshift.errors import InputError
from segshift.seeds import generator

REQUIRED = ("id", "patient", "site", "label")


def read_manifest(
    path: str | Path,
    *,
    structures: Mapping[str, Any] | None = None,
    sites: Sequence[str] | None = None,
    rater: int | str = 1,
    name: str | None = None,
) -> Cohort:
    """Read a cohort from its CSV, or its cases at `sites` alone.

    `structures` (name to rule, see `labelling`) overrides the column of that name. `rater` is a
    number, or `random` (one for each case), `majority` or `staple` of all that drew the case.
    Raises InputError that names the line, for a missing file, column, value, an id used twice or a
    site without cases.
    """
    path = Path(path)
    columns, lines = _table(path)
    known = sorted({line.get("site") or "" for line in lines})
    sites = [str(site) for site in sites] if isinstance(sites, list | tuple) else sites
    chosen = sites is None or (
        not isinstance(sites, str) and len(sites) > 0 and set(sites) <= set(known)
    )
    if not chosen:
        raise InputError(f"data.sites={sites!r}: a list of the sites of {path}, which are {known}")
    check_rater(rater)
    kept = [(n, x) for n, x in enumerate(lines, start=2) if sites is None or x["site"] in sites]
    reader = _Reader(path, columns, structures, rater, known)
    cases = [reader.case(f"{path}, line {number}", number, line) for number, line in kept]
    unknown = (None,) * len(reader.structures)  # of images alone
    cases = [case if case.label_values else replace(case, label_values=unknown) for case in cases]
    labelled = [case for case in cases if case.label_paths]
    for place, structure in enumerate(reader.structures if labelled else ()):
        if not any(case.annotated[place] for case in labelled):
            raise InputError(
                f"{path}: structure {structure!r} is annotated in not one of the {len(cases)} "
                "cases; take it out of data.structures, or give it a value at one site"
            )
    return Cohort(name or path.stem, reader.channels, reader.structures, tuple(cases))


class _Reader:
    """Turns lines into cases, and holds them against those before."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        rules: Mapping[str, Any] | None,
        rater: int | str,
        sites: Sequence[str],
    ) -> None:
        self.sites = sites
        self.folder, self.columns, self.rules, self.rater = path.parent, columns, rules, rater
        self.images = [c for c in columns if c == "image"] or [
            c for c in columns if c.startswith("image_")
        ]
        self.channels = tuple(column.removeprefix("image_") for column in self.images)
        labels = [c.removeprefix("label_") for c in columns if c.startswith("label_")]
        self.raters = ["label", *(f"label_{n}" for n in labels if n.isdigit())]
        self.own = [n for n in labels if not n.isdigit() and (rules is None or n in rules)]
        self.private = {*REQUIRED, *self.images, "structures", *self.raters}
        self.private |= {f"label_{name}" for name in self.own}
        self.structures: tuple[str, ...] = ()
        self._line_of: dict[str, int] = {}
        self._maps: dict[tuple[str, str], LabelMap] = {}
        missing = [c for c in REQUIRED if c not in columns and not (c == "label" and self.own)]
        missing += [] if self.images else ["image"]
        if missing:
            raise InputError(f"{path} lacks the column(s) {missing}; it has {list(columns)}")

    def case(self, where: str, number: int, line: Mapping[str, str]) -> Case:
        """The case of one line."""
        _check_line(where, line, self.columns, self.images)
        if line["id"] in self._line_of:
            raise InputError(
                f"{where}: id {line['id']!r} was used before, on line {self._line_of[line['id']]}"
            )
        self._line_of[line["id"]] = number
        meaning = self._map(where, line)
        names = tuple(meaning.structures)
        self.structures = self.structures or names
        if names and set(names) != set(self.structures):
            raise InputError(
                f"{where}: case {line['id']!r} has the structures {sorted(names)}, the cases "
                f"before it {sorted(self.structures)}; all cases of a cohort need the same, with "
                "`none` where one is not annotated"
            )
        own = {name: line[f"label_{name}"] for name in self.own if line[f"label_{name}"]}
        drawn = [line[column] for column in self.raters if line.get(column)]
        first, others = self._chosen(where, line, drawn)
        return Case(
            id=line["id"],
            patient=line["patient"],
            site=line["site"],
            images=tuple(self.folder / line[column] for column in self.images),
            label=self.folder / first if first else None,
            label_values=tuple(
                meaning.structures[name] if (name in own if name in self.own else first) else None
                for name in names and self.structures
            ),
            tags={key: value for key, value in line.items() if key not in self.private},
            label_files=tuple(
                self.folder / own[name] if name in own else None for name in self.structures
            )
            if own
            else (),
            ignore_values=meaning.ignore,
            background_values=meaning.background,
            raters=tuple(self.folder / other for other in others),
            consensus=str(self.rater) if others else "",
        )

    def _map(self, where: str, line: Mapping[str, str]) -> LabelMap:
        text = "" if self.rules is not None else line.get("structures") or ""
        key = (line["site"], text)
        if key not in self._maps:
            rules = self.rules if self.rules is not None else parsed_rules(where, text)
            source = where if self.rules is None else "data.structures"
            if self.rules is None:
                rules = {**rules, **{name: NONZERO for name in self.own if name not in rules}}
            if not rules and not any(line.get(column) for column in self.raters):
                return LabelMap({})  # images alone: to look at, to check, to predict
            if not rules:
                raise InputError(
                    f"{where}: nothing says what the label's values mean; add a column "
                    "`structures` ('liver=1 kidney=2') or set "
                    "data.structures='{liver: 1, kidney: 2}'"
                )
            self._maps[key] = label_map(
                source, rules, site=line["site"], sites=self.sites, own_files=self.own
            )
        return self._maps[key]

    def _chosen(
        self, where: str, line: Mapping[str, str], drawn: Sequence[str]
    ) -> tuple[str | None, Sequence[str]]:
        """The label to take, and those to combine with it."""
        if not drawn:
            return None, ()
        if self.rater == "random":
            return generator(0, "rater", line["id"]).choice(drawn), ()
        if not isinstance(self.rater, int):
            return drawn[0], drawn[1:]
        column = "label" if self.rater == 1 else f"label_{self.rater}"
        if not line.get(column):
            raise InputError(
                f"{where}: case {line['id']!r} has no label in the column {column!r} of "
                f"data.rater={self.rater}; it has {[c for c in self.raters if line.get(c)]}"
            )
        return line[column], ()


def check_rater(rater: int | str) -> None:
    """Raises InputError that lists the known ones."""
    if rater not in ("random", "majority", "staple") and not (type(rater) is int and rater >= 1):
        raise InputError(f"data.rater={rater}: a number from 1, random, majority or staple")


def _table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and lines of the CSV."""
    if not path.is_file():
        raise InputError(f"there is no manifest at {path}; make one with `segshift cohort import`")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV file: {error}") from error
    if not lines:
        raise InputError(f"{path} has a header but no cases")
    return columns, lines


def write_manifest(
    path: str | Path, cases: Iterable[Case], *, channels: Sequence[str], structures: Sequence[str]
) -> None:
    """Write `cases` as `read_manifest` reads them; the file appears whole or not at all."""
    path = Path(path)
    cases = list(cases)
    images = ["image"] if len(channels) == 1 else [f"image_{channel}" for channel in channels]
    raters = [f"label_{n}" for n in range(2, 2 + max(len(case.raters) for case in cases))]
    own = [
        name
        for place, name in enumerate(structures)
        if any(case.label_files and case.label_files[place] for case in cases)
    ]
    tags = sorted({tag for case in cases for tag in case.tags})
    columns = [*REQUIRED[:3], *images, "label", *raters, *(f"label_{name}" for name in own)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the CSV file to write")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, [*columns, "structures", *tags], restval="", lineterminator="\n"
        )
        writer.writeheader()
        for case in cases:
            files: dict[str, Path | None] = dict(zip(images, case.images, strict=True))
            files["label"] = case.label
            files |= dict(zip(raters, case.raters, strict=False))
            named = zip(structures, case.label_files, strict=False)
            files |= {f"label_{name}": file for name, file in named if file}
            row = {c: _written(file, path.parent) for c, file in files.items() if file}
            rules = written_rules(
                structures, case.label_values, case.ignore_values, case.background_values
            )
            names = {"id": case.id, "patient": case.patient, "site": case.site}
            writer.writerow({**case.tags, **names, **row, "structures": rules})
    draft.replace(path)


def _check_line(
    where: str, line: Mapping[str, str], columns: Sequence[str], image_columns: Sequence[str]
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


def _written(path: Path, folder: Path) -> str:
    """Relative to the manifest where the file lies below it, so that the folder can move."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
