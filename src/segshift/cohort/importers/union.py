"""Several manifests as one: columns united, paths rewritten, ids kept where they do not clash."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segshift.cohort.importers.imported import Tell
from segshift.cohort.manifest import read_table
from segshift.errors import InputError

FIRST = ("id", "patient", "site")


def concatenate(paths: Sequence[Path], output: Path, *, tell: Tell) -> int:
    """Write the cases of all manifests `paths` to `output` and return their number.

    An id that occurs in several gets its cohort's name in front. A patient who does stays one
    person, so that no split can part them; a line says so. Raises InputError naming the file.
    """
    paths, output = [Path(path) for path in paths], Path(output)
    if len(set(map(_place, paths))) < len(paths):
        raise InputError(f"a manifest is named twice: {', '.join(map(str, paths))}")
    tables = [_read(path) for path in paths]
    if output.is_dir():
        raise InputError(f"{output} is a folder; name the CSV file to write")
    images = [[c for c in columns if _is_image(c)] for columns, _ in tables]
    for path, names in zip(paths, images, strict=True):
        if set(names) != set(images[0]):
            raise InputError(f"{path} has the image columns {names}, {paths[0]} has {images[0]}")
    columns = list(dict.fromkeys([*FIRST, *(c for names, _ in tables for c in names)]))
    uses = Counter(line["id"] for _, lines in tables for line in lines)
    rows = []
    for path, cohort, (_, lines) in zip(paths, _names(paths), tables, strict=True):
        for line in lines:
            row = {key: _moved(key, value, path, output) for key, value in line.items()}
            row["id"] = f"{cohort}-{line['id']}" if uses[line["id"]] > 1 else line["id"]
            rows.append(row)
    still = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if still:
        raise InputError(f"the ids {still[:5]} occur twice in one manifest; rename them there")
    patients = [{line["patient"] for line in lines} for _, lines in tables]
    shared = sorted(name for name, n in Counter(p for s in patients for p in s).items() if n > 1)
    if shared:
        tell(
            f"{len(shared)} patients occur in several manifests and stay one person each: "
            f"{', '.join(shared[:10])}; rename them in the manifests if they are not"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.{os.getpid()}")
    with draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    draft.replace(output)
    return len(rows)


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    columns, lines = read_table(path)
    missing = [name for name in FIRST if name not in columns]
    if missing or not any(map(_is_image, columns)):
        raise InputError(f"{path} lacks the column(s) {missing or ['image']}; it has {columns}")
    for number, line in lines:
        if None in line or None in line.values():
            raise InputError(
                f"{path}, line {number}: the number of values differs from the "
                f"{len(columns)} columns"
            )
    return columns, [line for _, line in lines]


def _is_image(column: str) -> bool:
    return column == "image" or column.startswith("image_")


def _names(paths: Sequence[Path]) -> list[str]:
    """The cohorts' names: the files', or, where these are equal, their folders' too."""
    stems = [path.stem for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    folders = [_place(path).parent.name for path in paths]
    if len(set(folders)) == len(folders):
        return folders
    return [f"{stem}-{number}" for number, stem in enumerate(stems, start=1)]


def _moved(column: str, value: str, source: Path, output: Path) -> str:
    """A cell of `source` in `output`: paths stay those of the same file, other values as is."""
    path = _place(source.parent / value) if value else None
    known = _is_image(column) or column == "label" or column.startswith("label_")
    if path is None or not (known or (path.suffix and path.is_file())):
        return value
    folder = _place(output.parent)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _place(path: Path) -> Path:
    return Path(os.path.abspath(path))
