"""The columns of a BIDS image: its participant's line and its JSON sidecars.

Sidecars are inherited as BIDS says: one higher up holds for all images below with its suffix and
its entities, and the nearer one wins. BIDS keeps times in seconds, the manifest in ms; a picture's
PixelSize (x, y) becomes `spacing_mm` (y;x).
"""

import csv
import json
from pathlib import Path
from typing import Any

from segshift.cohort.case import SPACING
from segshift.cohort.images import pictures
from segshift.cohort.importers.imported import column
from segshift.errors import InputError

COLUMNS = {
    "MagneticFieldStrength": "field_strength_t",
    "Manufacturer": "vendor",
    "ManufacturersModelName": "scanner",
    "InstitutionName": "institution",
}
MOST = 1e300  # a number of JSON may be longer than any float
SECONDS = {"RepetitionTime": "tr_ms", "EchoTime": "te_ms", "InversionTime": "ti_ms"}


def read_participants(top: Path) -> dict[str, dict[str, str]]:
    """Participant id to the other columns of participants.tsv, `n/a` as nothing."""
    path = top / "participants.tsv"
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file, delimiter="\t"))
        return {
            line["participant_id"]: {
                key: "" if value in (None, "n/a") else value
                for key, value in line.items()
                if key not in (None, "participant_id")
            }
            for line in lines
        }
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path} should be a table with tabs and a column participant_id ({error!r})"
        ) from error


def sidecar_tags(top: Path, image: Path, stem: str) -> dict[str, str]:
    """Columns from all sidecars of an image whose name without suffix is `stem`."""
    values: dict[str, Any] = {}
    for path in inherited(top, image, stem, ".json"):
        values.update(_content(path))
    tags = {}
    for key, value in values.items():
        number = isinstance(value, int | float) and abs(value) < MOST
        if key in SECONDS and number:
            tags[SECONDS[key]] = f"{1000 * value:g}"
        elif isinstance(value, str) or (number and not isinstance(value, bool)):
            text = " ".join(str(value).split())
            # JSON may hold half of a surrogate pair, which no file can.
            tags[COLUMNS.get(key, column(key))] = text.encode(errors="replace").decode()
    if "PixelSize" in values and image.name.lower().endswith(pictures.SUFFIXES):
        tags[SPACING] = _spacing(image, values["PixelSize"], values.get("PixelSizeUnits"))
    return tags


def _spacing(image: Path, sizes: Any, unit: Any) -> str:  # noqa: ANN401
    """`y;x` or `z;y;x` in mm."""
    edges = sizes if isinstance(sizes, list) else []
    numbers = all(isinstance(edge, int | float) and edge > 0 for edge in edges)
    if len(edges) not in (2, 3) or not numbers or unit not in pictures.UNITS_MM:
        raise InputError(
            f"the sidecar of {image} has PixelSize {sizes!r} and PixelSizeUnits {unit!r}; BIDS "
            "wants [x, y] or [x, y, z] in mm, um or nm"
        )
    return ";".join(f"{edge * pictures.UNITS_MM[unit]:.12g}" for edge in reversed(edges))


def inherited(top: Path, file: Path, stem: str, ending: str) -> list[Path]:
    """What is said of a file whose name is `stem` in files with `ending`, the nearest one last."""
    *entities, suffix = stem.split("_")
    found = []
    below = file.parent.relative_to(top).parts
    for depth in range(len(below) + 1):
        folder = top.joinpath(*below[:depth])
        for path in sorted(folder.glob(f"*{suffix}{ending}"), key=lambda path: len(path.name)):
            *theirs, last = path.name.removesuffix(ending).split("_")
            if last == suffix and set(theirs) <= set(entities):
                found.append(path)
    return found


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} should hold names and values, as BIDS sidecars do")
    return content
