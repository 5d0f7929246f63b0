"""What is to be predicted: a folder, a manifest, one file or a DICOM series, as cases to read.

Nothing but names is looked at here, and of DICOM the tags that tell series apart: what is wrong
with a case's files is found when its turn comes, so that it stops no other one.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from segshift.cohort import Annotation, Case
from segshift.cohort.checks import check_headers
from segshift.cohort.images import SUFFIXES, image_files, read_image, series
from segshift.cohort.images.header import naming
from segshift.cohort.manifest import read_sound_lines
from segshift.errors import InputError
from segshift.plan import Plan, check_channels, check_unsized, check_voxels

# Modalities of objects that exports have beside the slices; what else has no pixels is broken.
NO_IMAGES = (
    "SR", "SEG", "RTSTRUCT", "RTPLAN", "RTRECORD", "RTDOSE", "PR", "KO", "REG", "FID", "DOC", "ECG",
    "DICOMDIR",
)  # fmt: skip
DIRECTORY = "1.2.840.10008.1.3.10"  # the class of a medium's table of contents
PROBABILITIES, UNCERTAINTY = "probabilities", "uncertainty"  # where maps go, below the output
CHANNEL = re.compile(r"(.+)_(\d{4})")  # nnU-Net's: case_0000, case_0001 are one case's channels


def cases_of(source: Path, *, without: Path) -> tuple[list[Case], dict[str, str]]:
    """Cases sorted by name, and what a manifest's broken lines say, by case or line.

    Files below `without`, the output, are none. Raises InputError where nothing is to predict, and
    for two images of one name.
    """
    if source.name.lower().endswith(".csv"):
        cohort, broken = read_sound_lines(source, labels=False)
        failed = {line.case or f"line {line.number}": line.message for line in broken}
        _refuse_one_file_for_two(cohort.cases)
        return sorted(cohort.cases, key=lambda case: case.id), failed
    if source.is_file():
        return [_case(_stem(source.name), (source,))], {}
    if not source.is_dir():
        raise InputError(f"input={source}: there is no such file or folder")
    if source.resolve().is_relative_to(without.resolve()):
        raise InputError(f"output={without} is or contains input={source}; name another folder")
    named: dict[str, Case] = {}
    for case in (*_series(source, without), *_images(source, without)):
        if case.id in named:
            raise InputError(
                f"{case.images[0]} and {named[case.id].images[0]} would both be predicted as "
                f"{case.id!r}; rename one of them, or list the cases in a manifest"
            )
        named[case.id] = case
    if not named:
        raise InputError(
            f"input={source}: no image is in this folder; known are {', '.join(SUFFIXES)}"
        )
    return [named[name] for name in sorted(named)], {}


def check_apart(cases: Iterable[Case], output: Path) -> None:
    """Refuse a case with an image in one of the folders that predictions are written to.

    A mask may have the name of its image, or of another's.
    """
    top = output.resolve()
    written = {top, top / PROBABILITIES, top / UNCERTAINTY}
    for case in cases:
        for path in case.images:
            places = {path.resolve(), path.parent.resolve(), path.resolve().parent}
            if places & written:
                raise InputError(
                    f"case {case.id!r}: {path} lies in output={output}, where a mask could replace "
                    "it; name another output folder"
                )


def written_name(case: str) -> str:
    """What a case's files are called; an id may hold what a file's name cannot."""
    return case.replace("/", "-").replace("\\", "-")


def input_key(case: Case) -> str:
    """Tells a case's image files from others of its name: a hash of paths, sizes and times.

    Empty if they cannot be read.
    """
    try:
        files = [
            file
            for path in case.images
            for file in (sorted(path.iterdir()) if path.is_dir() else image_files(path))
        ]
        states = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except (InputError, OSError):
        return ""
    return hashlib.sha256(repr(states).encode()).hexdigest()[:16]


def _refuse_one_file_for_two(cases: Iterable[Case]) -> None:
    names: dict[str, str] = {}
    for case in cases:
        name = written_name(case.id)
        if (other := names.setdefault(name, case.id)) != case.id:
            raise InputError(
                f"cases {other!r} and {case.id!r} would both be written as {name!r}; rename one"
            )


def share_of(cases: list[Case], shard: str | None) -> list[Case]:
    """Every n-th case for `shard` = i/n, i from 1: together the shards have each case once.

    Raises InputError for what is no i/n.
    """
    if shard is None:
        return cases
    match = re.fullmatch(r"(\d+)/(\d+)", str(shard))
    number, of = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= number <= of:
        raise InputError(f"shard={shard}: i/n with i from 1 to n, such as 1/4")
    return cases[number - 1 :: of]


def read_case_image(case: Case, plan: Plan) -> tuple[np.ndarray, tuple[float, ...] | None]:
    """Intensities float32 (C, D, H, W) in RAS and the voxel size (z, y, x) in mm, None: unknown.

    Raises InputError naming the case for a broken file and for an image that does not go with the
    plan. A label that the manifest may name is not looked at.
    """
    case = replace(case, annotation=Annotation())
    geometry = check_headers(case)
    check_channels([case], [geometry], plan.channels)
    check_voxels([case], [geometry], plan.spacing_mm, spacing_known=plan.spacing_known)
    if plan.scale:
        check_unsized([case], [geometry])
    try:
        image = np.concatenate([read_image(path) for path in case.images])
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    if bad := int(np.count_nonzero(~np.isfinite(image))):
        raise InputError(
            f"case {case.id!r}: {bad} voxels of {case.images[0]} are NaN or infinite; mend the file"
        )
    return image, geometry.known_mm


def _images(top: Path, without: Path) -> Iterator[Case]:
    """Cases of all image files below `top`; channels that nnU-Net numbers are one case."""
    files = [
        (_stem(path.relative_to(top).as_posix()).replace("/", "-"), path)
        for path in _below(top, without)
        if path.name.lower().endswith(SUFFIXES) and not path.name.lower().endswith(series.SUFFIXES)
    ]
    numbered: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, path in files:
        if match := CHANNEL.fullmatch(stem):
            numbered[match[1]][int(match[2])] = path
    for stem, path in files:
        match = CHANNEL.fullmatch(stem)
        channels = numbered[match[1]] if match else {}
        # Years are four digits too; channels are counted from 0 without a gap.
        if match is None or sorted(channels) != list(range(len(channels))):
            yield _case(stem, (path,))
        elif int(match[2]) == 0:
            yield _case(match[1], tuple(channels[number] for number in range(len(channels))))


def _series(top: Path, without: Path) -> Iterator[Case]:
    """A case for each DICOM series below `top`, named by its folder; by its number if several."""
    others = tuple(set(SUFFIXES) - set(series.SUFFIXES))
    places: dict[Path, dict[str, Path]] = defaultdict(dict)
    left_out: dict[Path, str] = {}
    for path in _below(top, without):
        name = path.name.lower()
        # Most scanners write no suffix: the marker tells.
        if name.endswith(series.SUFFIXES) or (not name.endswith(others) and series.is_slice(path)):
            number, kind = _series_and_kind(path)
            if kind in NO_IMAGES:
                left_out[path] = kind
            else:
                places[path.parent].setdefault(number, path)
    if left_out:
        kinds = ", ".join(sorted(set(left_out.values())))
        print(f"left out:  {len(left_out)} DICOM file(s) that are no images ({kinds})")
    beside = {path.parent for path in left_out}
    for place, first in places.items():
        name = "-".join(place.resolve().relative_to(top.resolve()).parts) or top.resolve().name
        if len(first) == 1 and place not in beside:
            yield _case(name, (place,))
            continue
        for number, file in first.items():
            yield _case(f"{name}-{number.rsplit('.', 1)[-1]}" if len(first) > 1 else name, (file,))


def _series_and_kind(file: Path) -> tuple[str, str]:
    """What tells series apart, and the modality; a broken file is one of its own, which fails."""
    try:
        with naming(file):
            tags = series.read_tags(file)
            if tags.file_meta.get("MediaStorageSOPClassUID") == DIRECTORY:
                return file.stem, "DICOMDIR"
            return str(tags.get("SeriesInstanceUID")), str(tags.get("Modality"))
    except InputError:
        return file.stem, ""


def _below(top: Path, without: Path) -> Iterator[Path]:
    output = without.resolve()
    for path in sorted(top.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(top).parts)
        if path.is_file() and not hidden and not path.resolve().is_relative_to(output):
            yield path


def _stem(name: str) -> str:
    suffix = next((each for each in SUFFIXES if name.lower().endswith(each)), "")
    return name[: len(name) - len(suffix)]


def _case(name: str, images: tuple[Path, ...]) -> Case:
    return Case(name, name, "input", tuple(path.absolute() for path in images))
