"""Which file is the prediction of which case, by their names alone.

A prediction's name is its path below the folder. It is a case's if it is the case's id, if its end
is and all of it is no other case's id, if all of it is the end of the path of the case's label
(then: image) and of no other case's, or if it lies in a folder that is called as the id. Suffixes
and the channel of nnU-Net are no part of a name.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from segshift.cohort import Case
from segshift.cohort.images import SUFFIXES
from segshift.errors import InputError
from segshift.results.names import file_name

CHANNEL = "_0000"  # which nnU-Net puts behind the names of images, not of labels
MAPS = ("probabilities", "uncertainty")  # folders of predict.py beside its masks
TOLD = 5


def image_files(folder: Path) -> dict[str, Path]:
    """Path below `folder` without suffix to file, sorted; nothing that is hidden.

    Of a DICOM Segmentation and a mask of the same name the mask is taken, as `predict.py` writes
    both; its maps are no masks.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in below.parts)
        if hidden or below.parent.name in MAPS or not path.is_file():
            continue
        suffix = _suffix(path)
        stem = below.as_posix().removesuffix(suffix)
        if not suffix:
            continue
        if stem in files and ".dcm" not in (suffix.lower(), files[stem].suffix.lower()):
            raise InputError(f"{path} and {files[stem]} have the same name; keep one of them")
        if stem not in files or suffix.lower() != ".dcm":
            files[stem] = path
    return files


def by_case(files: Mapping[str, Path], cases: Iterable[Case]) -> tuple[dict[str, Path], list[Path]]:
    """The file of each case that has one, and the files left over.

    Raises InputError for a case with several files and for a file of several cases.
    """
    cases = list(cases)
    ids = {case.id: _called(case.id) for case in cases}
    known = {name for names in ids.values() for name in names}
    exact, ends, whole, folders = (defaultdict[str, set[Path]](set) for _ in range(4))
    for stem, path in files.items():
        names = {stem, stem.removesuffix(CHANNEL)}
        for name in names:
            whole[name].add(path)
            exact[_flat(name)].add(path)
        if known.isdisjoint(map(_flat, names)):  # a/1 is of the case a-1, not of 1
            for end in (end for name in names for end in _ends(name)):
                ends[_flat(end)].add(path)
        for end in _ends(stem.rpartition("/")[0]):
            folders[_flat(end)].add(path)
    labels = _own_ends({case.id: case.annotation.paths for case in cases})
    images = _own_ends({case.id: case.images for case in cases})
    found: dict[str, Path] = {}
    for case in cases:
        own = ids[case.id]
        labelled, imaged = (whole, labels[case.id]), (whole, images[case.id])
        tries = (exact, own), (ends, own), labelled, imaged, (folders, own)
        every = (
            {path for name in names if name in places for path in places[name]}
            for places, names in tries
        )
        paths = next(filter(None, every), set())
        if len(paths) > 1:
            raise InputError(
                f"case {case.id!r} has several predictions: {sorted(map(str, paths))[:TOLD]}"
            )
        found.update((case.id, path) for path in paths)
    shared: dict[Path, str] = {}
    for name, path in found.items():
        if path in shared:
            raise InputError(
                f"{path} would be the prediction of {shared[path]!r} and of {name!r}; name the "
                "predictions by the cases' ids"
            )
        shared[path] = name
    return found, [path for path in files.values() if path not in shared]


def _called(identity: str) -> set[str]:
    """What a file of the case may be called."""
    return {_flat(identity), _flat(identity.removesuffix(CHANNEL)), file_name(identity)}


def _own_ends(paths: Mapping[str, Iterable[Path]]) -> dict[str, set[str]]:
    """By case the ends of its files' paths that are those of no other case."""
    ends = {
        case: {end for path in own for end in _ends(_name(path))} for case, own in paths.items()
    }
    cases = Counter(end for own in ends.values() for end in own)
    return {case: {end for end in own if cases[end] == 1} for case, own in ends.items()}


def _ends(name: str) -> list[str]:
    """`a/b/c` ends in c, b/c and a/b/c; the empty name in nothing."""
    parts = [part for part in name.split("/") if part]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def _flat(name: str) -> str:
    """As `predict.py` writes an id that holds a slash, and as a reference in a folder is called."""
    return name.replace("/", "-")


def _name(path: Path) -> str:
    return path.as_posix().removesuffix(_suffix(path)).removesuffix(CHANNEL)


def _suffix(path: Path) -> str:
    """As it is written; empty for what is no image."""
    length = next((len(each) for each in SUFFIXES if path.name.lower().endswith(each)), 0)
    return path.name[len(path.name) - length :]
