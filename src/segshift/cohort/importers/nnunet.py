"""nnU-Net raw data sets, v2 and v1: one file per channel, `case_0000.nii.gz`, `case_0001...`.

A folder of several data sets is a study of several sites, named by their folders.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segshift.cohort.annotation import Annotation
from segshift.cohort.case import Case
from segshift.cohort.importers.imported import Imported, Tell, word
from segshift.cohort.labelling import Values
from segshift.errors import InputError


@dataclass(frozen=True, slots=True)
class _Description:
    """dataset.json: names of the channels, name to value of the structures, files' ending."""

    channels: tuple[str, ...]
    structures: Mapping[str, Values]
    ending: str
    ignore: int | None


def import_nnunet(
    folder: str | Path,
    *,
    tell: Tell,
    site: str | None = None,
    structures: Mapping[str, Values] | None = None,
) -> Imported:
    """Cases of one data set, or of all below `folder`, each a site by its folder's name.

    `structures` (name to value) wins over dataset.json. Raises InputError naming the file.
    """
    folder = Path(folder)
    sets = [folder] if (folder / "dataset.json").is_file() else []
    sets = sets or sorted(path.parent for path in folder.glob("*/dataset.json"))
    if not sets:
        raise InputError(
            f"{folder} has no dataset.json, nor has a folder in it; nnU-Net keeps raw data in "
            "DatasetXXX_NAME with dataset.json, imagesTr and labelsTr"
        )
    described = [(each, _described(each / "dataset.json", structures)) for each in sets]
    first_set, first = described[0]
    for each, other in described[1:]:
        if other.channels != first.channels or set(other.structures) != set(first.structures):
            raise InputError(
                f"{each} has channels {other.channels} and structures {sorted(other.structures)}, "
                f"{first_set} has {first.channels} and {sorted(first.structures)}; data sets "
                "of one study need the same (values may differ); import them apart otherwise"
            )
    cases = [
        case
        for each, description in described
        for case in _cases(each, description, site or each.name, tuple(first.structures))
    ]
    uses = Counter(case.id for case in cases)
    unique = tuple(
        replace(case, id=f"{case.site}-{case.id}", patient=f"{case.site}-{case.patient}")
        if uses[case.id] > 1
        else case
        for case in cases
    )
    for each, description in described:
        if description.ignore is not None:
            tell(f"{each}: {description.ignore} is its ignore label; say so in data.structures")
    return Imported(unique, first.channels, tuple(first.structures))


def _described(path: Path, given: Mapping[str, Values] | None) -> _Description:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        named = content.get("channel_names") or content["modality"]
        channels = tuple(word(str(named[key])) for key in sorted(named, key=int))
        labels: dict[str, Any] = content["labels"]
        if all(re.fullmatch(r"\d+", key) for key in labels):  # v1 lists value to name
            labels = {str(name): int(value) for value, name in labels.items()}
        ending = str(content.get("file_ending", ".nii.gz"))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{path} is not an nnU-Net description: {error!r}") from error
    ignore = labels.pop("ignore", None)
    wanted = {word(name): value for name, value in labels.items() if value not in (0, "0", [0])}
    regions = {name: value for name, value in wanted.items() if isinstance(value, list)}
    if regions and not given:
        raise InputError(
            f"{path}: {regions} are regions of several values; name the single values with "
            "--structures 'edema=1 core=2' and merge them in data.structures"
        )
    try:
        values: Mapping[str, Values] = given or {name: int(value) for name, value in wanted.items()}
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: label values should be whole numbers: {wanted}") from error
    if not channels or len(set(channels)) < len(channels):
        raise InputError(f"{path}: the channels {channels} need names that differ")
    return _Description(channels, values, ending, ignore if isinstance(ignore, int) else None)


def _cases(
    folder: Path, description: _Description, site: str, names: tuple[str, ...]
) -> list[Case]:
    ending, count = description.ending, len(description.channels)
    labels = sorted((folder / "labelsTr").glob(f"*{ending}"))
    if not labels:
        raise InputError(f"{folder / 'labelsTr'} holds no file ending in {ending}")
    cases = []
    for label in labels:
        name = label.name.removesuffix(ending)
        files = [folder / "imagesTr" / f"{name}_{i:04d}{ending}" for i in range(count)]
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise InputError(
                f"{label} has no image {', '.join(missing)} in {folder / 'imagesTr'}; dataset.json "
                f"declares {count} channel(s), ending {ending}"
            )
        images = tuple(file.resolve() for file in files)
        values = tuple(description.structures[each] for each in names)
        cases.append(Case(name, name, site, images, Annotation(label.resolve(), values)))
    return cases
