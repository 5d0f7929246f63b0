"""The manifest: one CSV that describes a cohort.

Columns `id, patient, site`, `image` (one channel) or `image_<channel>` (several), and `label`;
`label_2`, `label_3` are further raters', `label_<structure>` holds one structure alone, `maps`
proton density, T1 and T2. Paths are relative to the manifest's folder. `structures` says what the
label's values mean, as `liver=1 kidney=2` (see `labelling`); a site may number them in its own way.
Other columns are kept as tags.
"""

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segshift.cohort.annotation import Annotation
from segshift.cohort.case import Case, Cohort
from segshift.cohort.labelling import written_rules
from segshift.cohort.lines import REQUIRED, LineReader, check_rater
from segshift.errors import InputError

FAULTS_TOLD = 3  # in one message; the linter has a finding for each


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenLine:
    """A line of the manifest that is no case, and why; `case` and `site` as far as they are told.

    `number` counts from 1, the header, as editors do.
    """

    number: int
    message: str
    case: str
    site: str


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
    Raises InputError that names the first broken lines and counts the others, and for a missing
    file or column or a site without cases.
    """
    cohort, broken = read_sound_lines(
        path, structures=structures, sites=sites, rater=rater, name=name
    )
    if not broken and (faults := unannotated(cohort)):
        raise InputError(f"{path}: {faults[0]}")
    if broken:
        more = len(broken) - FAULTS_TOLD
        told = "\n".join(one.message for one in broken[:FAULTS_TOLD])
        raise InputError(
            told
            + (f"\nand {more} more broken line(s)" if more > 0 else "")
            + ("; `segshift cohort check` names every one" if len(broken) > 1 else "")
        )
    return cohort


def read_sound_lines(
    path: str | Path,
    *,
    structures: Mapping[str, Any] | None = None,
    sites: Sequence[str] | None = None,
    rater: int | str = 1,
    name: str | None = None,
    labels: bool = True,
) -> tuple[Cohort, tuple[BrokenLine, ...]]:
    """As `read_manifest`, but lines that are no case are returned beside the cohort of the others.

    Without `labels` the cases are images alone, whatever the manifest says of labels. Raises
    InputError only for what is wrong with the file as a whole or with the options.
    """
    path = Path(path)
    columns, lines = read_table(path)
    if not labels:
        lines = [(number, _without_labels(line)) for number, line in lines]
    known = sorted({line.get("site") or "" for _, line in lines})
    reader = LineReader(path, columns, structures, rater, known)
    sites = [str(site) for site in sites] if isinstance(sites, list | tuple) else sites
    chosen = sites is None or (
        not isinstance(sites, str) and len(sites) > 0 and set(sites) <= set(known)
    )
    if not chosen:
        raise InputError(f"data.sites={sites!r}: a list of the sites of {path}, which are {known}")
    check_rater(rater)
    # A line too short to have a site is broken, wherever it was meant to be.
    kept = [(n, x) for n, x in lines if sites is None or x["site"] is None or x["site"] in sites]
    reader.prepare([line for _, line in kept])
    cases, broken = [], []
    for number, line in kept:
        try:
            cases.append(reader.case(f"{path}, line {number}", number, line))
        except InputError as error:
            named = {key: (line.get(key) or "").strip() for key in ("id", "site")}
            broken.append(
                BrokenLine(number=number, message=str(error), case=named["id"], site=named["site"])
            )
    bare = Annotation(values=(None,) * len(reader.structures))  # of images alone
    cases = [case if case.annotation.values else replace(case, annotation=bare) for case in cases]
    cohort = Cohort(
        name or path.stem, reader.channels, reader.structures, tuple(cases), path.parent
    )
    return cohort, tuple(broken)


def unannotated(cohort: Cohort) -> list[str]:
    """A message for each structure that not one case annotates; none for images alone."""
    labelled = [case for case in cohort.cases if case.annotation.paths]
    return [
        f"structure {structure!r} is annotated in not one of the {len(cohort.cases)} cases; take "
        "it out of data.structures or the column `structures`, or give it a value at one site"
        for place, structure in enumerate(cohort.structures if labelled else ())
        if not any(case.annotation.annotated[place] for case in labelled)
    ]


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Columns of a manifest, and its lines with their numbers; line breaks in cells are spaces.

    Raises InputError for a file that is no table or has a column twice.
    """
    if not path.is_file():
        raise InputError(f"there is no manifest at {path}; make one with `segshift cohort import`")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or ())
            lines = [(reader.line_num, _one_line(line)) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a readable CSV file: {error}") from error
    # Spreadsheets write nameless columns at the end; they hold nothing that is asked for.
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        raise InputError(f"{path} has the column(s) {twice} more than once; rename or remove one")
    if not lines:
        raise InputError(f"{path} has a header but no cases")
    return columns, lines


def _one_line(line: dict[str, str]) -> dict[str, str]:
    # csv writes a lone CR bare, and pandas ends the line there.
    return {k: re.sub(r"[\r\n]+", " ", v) if isinstance(v, str) else v for k, v in line.items()}


def _without_labels(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line with every cell about labels empty; one that is too short stays so."""
    return {
        column: "" if value and str(column).startswith(("structures", "label")) else value
        for column, value in line.items()
    }


def write_manifest(
    path: str | Path, cases: Iterable[Case], *, channels: Sequence[str], structures: Sequence[str]
) -> None:
    """Write `cases` as `read_manifest` reads them; the file appears whole or not at all."""
    path = Path(path)
    cases = list(cases)
    images = ["image"] if len(channels) == 1 else [f"image_{channel}" for channel in channels]
    raters = [
        f"label_{n}" for n in range(2, 2 + max(len(case.annotation.raters) for case in cases))
    ]
    own = [
        name
        for place, name in enumerate(structures)
        if any(case.annotation.files and case.annotation.files[place] for case in cases)
    ]
    tags = sorted({tag for case in cases for tag in case.tags})
    columns = [*REQUIRED[:3], *images, "label", *raters, *(f"label_{name}" for name in own)]
    columns += ["maps"] if any(case.maps for case in cases) else []
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
            drawn = case.annotation
            files: dict[str, Path | None] = dict(zip(images, case.images, strict=True))
            files["label"] = drawn.label
            files |= dict(zip(raters, drawn.raters, strict=False))
            named = zip(structures, drawn.files, strict=False)
            files |= {f"label_{name}": file for name, file in named if file}
            files["maps"] = case.maps
            row = {c: _written(file, path.parent) for c, file in files.items() if file}
            rules = written_rules(
                structures, drawn.values, drawn.ignore_values, drawn.background_values
            )
            names = {"id": case.id, "patient": case.patient, "site": case.site}
            writer.writerow({**case.tags, **names, **row, "structures": rules})
    draft.replace(path)


def _written(path: Path, folder: Path) -> str:
    """Relative to the manifest where the file lies below it, so that the folder can move."""
    path, folder = path.resolve(), folder.resolve()
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
