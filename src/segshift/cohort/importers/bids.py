"""BIDS folders with labels in derivatives, without pybids: what is needed of it is three globs.

A label's name begins as its image's does and says what it shows: `_label-lesion_mask`,
`_seg-axon-manual`. A label that says nothing (`_dseg`) holds several structures by value, which a
`dseg.tsv` beside it or above it names.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from segshift.cohort.annotation import Annotation
from segshift.cohort.case import Case
from segshift.cohort.images import SUFFIXES
from segshift.cohort.importers.bids_tables import read_values, stem_of, table_of
from segshift.cohort.importers.bids_tags import read_participants, sidecar_tags
from segshift.cohort.importers.imported import Imported, Tell, column, word
from segshift.cohort.labelling import Values
from segshift.errors import InputError

# Words in a label's name that say who drew it or how, and nothing about what it shows.
SILENT = {"seg", "dseg", "probseg", "mask", "label", "labels", "manual", "desc", "space", "orig"}


@dataclass(frozen=True, slots=True)
class _Image:
    """A file, its path below the data set, and its name as entities and suffix."""

    file: Path
    folder: str
    entities: str
    suffix: str


def import_bids(
    folder: str | Path,
    *,
    tell: Tell,
    site: str | None = None,
    structures: Mapping[str, Values] | None = None,
    suffixes: tuple[str, ...] = (),
) -> Imported:
    """Cases of a BIDS data set; its tables' and sidecars' values become tags.

    `suffixes` (T1w, FLAIR, ...) are the channels; needed where a data set has several.
    `structures` (name to value) says what a label of several structures means, `dseg.tsv` where it
    is not given. The site is `site`, the column `site` of participants.tsv, or the folder's name.
    """
    top = Path(folder).absolute()
    chosen, whole = _grouped(top, suffixes, tell)
    labels = {name: _labels(top, group) for name, group in whole.items()}
    own = [] if structures else _own_files(labels, tell)
    tables = {} if own or structures else _tables(top, labels)
    names = own or list(structures or dict.fromkeys(n for table in tables.values() for n in table))
    participants = read_participants(top)
    absent = sorted(set(participants) - {name.split("_")[0] for name in whole})
    if absent:
        tell(f"{len(absent)} participants without images: {', '.join(absent)}")
    cases = []
    for name, group in sorted(whole.items()):
        patient = name.split("_")[0]
        person = participants.get(patient, {})
        tags = {column(key): value for key, value in person.items() if key != "site"}
        for image in group:
            tags |= sidecar_tags(top, image.file, f"{image.entities}_{image.suffix}")
        files = tuple(labels[name].get(each) for each in own)
        meaning: Mapping[str, Values] = structures or tables.get(name, {})
        values = tuple(meaning.get(each) for each in names)
        if own:
            values = tuple(() if file else None for file in files)
        cases.append(
            Case(
                id=name,
                patient=patient,
                site=site or word(person.get("site") or top.name),
                images=tuple(image.file for image in group),
                annotation=Annotation(
                    label=None if own else _only(name, labels[name]), values=values, files=files
                ),
                tags=tags,
            )
        )
    channels = ("image",) if len(chosen) == 1 else tuple(word(each) for each in chosen)
    return Imported(tuple(cases), channels, tuple(names))


def _grouped(
    top: Path, suffixes: tuple[str, ...], tell: Tell
) -> tuple[tuple[str, ...], dict[str, list[_Image]]]:
    """The suffixes, and for each case its images in their order."""
    images = [_image(top, file) for file in _files(top)]
    counts = Counter(image.suffix for image in images)
    if not counts:
        raise InputError(f"{top} holds no image as sub-*/[ses-*/]MODALITY/sub-*_SUFFIX.nii.gz")
    chosen = suffixes or tuple(counts)
    if (not suffixes and len(counts) > 1) or not set(chosen) <= set(counts):
        known = ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))
        raise InputError(
            f"{top} has images of the kinds {known}; choose with --suffix T1w, or several as the "
            "channels of one case with --suffix T1w,FLAIR"
        )
    groups: dict[str, dict[str, _Image]] = {}
    for image in images:
        if image.suffix in chosen:
            groups.setdefault(image.entities, {})[image.suffix] = image
    lacking = sorted(name for name, group in groups.items() if set(chosen) - set(group))
    if lacking:
        tell(f"{len(lacking)} without one of {', '.join(chosen)}, left out: {', '.join(lacking)}")
    if len(lacking) == len(groups):
        raise InputError(f"{top}: no case has all of {', '.join(chosen)}")
    return chosen, {
        name: [group[each] for each in chosen]
        for name, group in groups.items()
        if name not in lacking
    }


def _own_files(labels: Mapping[str, Mapping[str, Path]], tell: Tell) -> list[str]:
    """The structures that have a file of their own; one that is several at once is left out."""
    drawn = sorted({each for found in labels.values() for each in found if each})
    unnamed = sorted(str(found[""]) for found in labels.values() if drawn and "" in found)
    if unnamed:
        tell(f"left out, beside labels that name their structure: {', '.join(unnamed)}")
    combined = [name for name in drawn if _is_combination(name, drawn)]
    if combined:
        tell(f"left out, being several structures at once: {', '.join(combined)}")
    return [name for name in drawn if name not in combined]


def _tables(top: Path, labels: Mapping[str, Mapping[str, Path]]) -> dict[str, dict[str, int]]:
    """For each case with a label of several structures, what its values mean."""
    found = {}
    for name, label in ((name, each[""]) for name, each in labels.items() if "" in each):
        table = table_of(top, label)
        if table is None:
            raise InputError(
                f"{label}: nothing says what its values mean; add --structures 'liver=1 kidney=2' "
                "or, in derivatives, a dseg.tsv with the columns index and name"
            )
        found[name] = read_values(table)
    return found


def _files(top: Path) -> Iterator[Path]:
    """Images of all subjects and sessions, sorted."""
    for pattern in ("sub-*/*/sub-*", "sub-*/ses-*/*/sub-*"):
        for file in sorted(top.glob(pattern)):
            if file.is_file() and file.name.lower().endswith(SUFFIXES):
                yield file


def _image(top: Path, file: Path) -> _Image:
    entities, _, suffix = stem_of(file).rpartition("_")
    return _Image(file, file.parent.relative_to(top).as_posix(), entities, suffix)


def _labels(top: Path, group: list[_Image]) -> dict[str, Path]:
    """What a label shows (nothing if it does not say) to its file, of all derivatives."""
    found: dict[str, Path] = {}
    for image in group:
        for file in sorted(top.glob(f"derivatives/*/{image.folder}/{image.entities}_*")):
            if not file.name.lower().endswith(SUFFIXES):
                continue
            rest = stem_of(file).removeprefix(f"{image.entities}_")
            rest = rest.removeprefix(f"{image.suffix}_")
            entity = re.search(r"(?:^|_)label-([A-Za-z0-9]+)", rest)
            words = [entity[1]] if entity else re.split(r"[-_]", rest)
            name = word("_".join(w for w in words if w.lower() not in SILENT) or "_")
            # Beside a table, `seg-tissues` names a set of structures and not what is drawn.
            several = not entity and table_of(top, file) is not None
            name = "" if several or name == "unnamed" else name
            if found.setdefault(name, file) != file:
                raise InputError(
                    f"{found[name]} and {file} show the same of {image.file}; keep one of them "
                    "in derivatives, or write the manifest with the columns label and label_2"
                )
    return found


def _only(name: str, found: Mapping[str, Path]) -> Path | None:
    if len(found) > 1 and "" not in found:
        raise InputError(
            f"{name} has several labels: {', '.join(map(str, found.values()))}; --structures is "
            "for one label of several values; leave it away to have one structure for each file"
        )
    return found.get("") or next(iter(found.values()), None)


def _is_combination(name: str, others: list[str]) -> bool:
    """Whether a name is two or more of the others written together, as axonmyelin is."""
    parts = "|".join(re.escape(other) for other in others if other != name)
    return bool(parts) and re.fullmatch(f"(?:{parts})(?:_?(?:{parts}))+", name) is not None
