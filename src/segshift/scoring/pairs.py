"""Predictions and references paired by name, with every header checked, before a voxel is read.

References are a folder of label files or a manifest. A reference without a prediction is a pair
all the same: a miss, which is scored as empty. Needs no torch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort import Case, Cohort, read_manifest
from segshift.cohort.checks import check_headers
from segshift.cohort.images import SUFFIXES, read_label
from segshift.cohort.labelling import Values, label_map, numbers_of
from segshift.errors import InputError
from segshift.results import is_shifted, read_cases
from segshift.results.names import file_name
from segshift.scoring.description import described

CHANNEL = "_0000"  # which nnU-Net puts behind the names of images, not of labels
TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A reference, its prediction as a case of its own (None: a miss), and the voxel size."""

    case: Case
    prediction: Case | None
    spacing_mm: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """All pairs by evaluation set, the cohort of the references, and predictions of none."""

    cohort: Cohort
    sets: Mapping[str, tuple[Pair, ...]]
    extra: tuple[Path, ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """The cases without a prediction."""
        pairs = {pair.case.id: pair for members in self.sets.values() for pair in members}
        return tuple(name for name, pair in sorted(pairs.items()) if pair.prediction is None)


def pair_files(
    predictions: Path,
    *,
    references: Path,
    structures: Mapping[str, Any] | None = None,
    sites: Sequence[str] | None = None,
    rater: int | str = 1,
    cases: Path | None = None,
) -> Pairs:
    """Pair the files of a folder with those of another, or with the lines of a manifest.

    `structures` says what values mean (see `cohort.labelling`). `sites` and `rater` are those of
    `read_manifest`. `cases` is a run's cases.csv: only its cases are scored, in its sets. Without
    it every site is a set. Raises InputError naming the case, for a geometry that differs too.
    """
    if not predictions.is_dir():
        raise InputError(f"predictions={predictions} is no folder")
    if references.is_dir():
        cohort = _cohort(references, predictions, structures)
    else:
        cohort = read_manifest(references, structures=structures, sites=sites, rater=rater)
    chosen = [case for case in cohort.cases if case.label_paths]
    sets = {f"site-{s}": [c for c in chosen if c.site == s] for s in cohort.sites}
    if cases is not None:
        sets = _listed(cases, chosen)
    chosen = list({case.id: case for members in sets.values() for case in members}.values())
    if not chosen:
        raise InputError(f"references={references} has no case with a label")
    found, extra = _by_case(_files(predictions), chosen)
    if not found:
        raise InputError(
            f"no file in {predictions} is named as a case of {references}: "
            f"{[path.name for path in extra[:TOLD]]} against {[case.id for case in chosen[:TOLD]]}"
        )
    rules = described([predictions])
    pairs = {case.id: _pair(case, found.get(case.id), cohort, rules) for case in chosen}
    by_set = {name: tuple(pairs[c.id] for c in members) for name, members in sets.items()}
    return Pairs(cohort=cohort, sets={n: m for n, m in by_set.items() if m}, extra=tuple(extra))


def _cohort(references: Path, predictions: Path, structures: Mapping[str, Any] | None) -> Cohort:
    """Every label file of a folder as a case that is its own image."""
    files, site = _files(references), references.resolve().name
    if not files:
        raise InputError(f"references={references} holds no image; known are {', '.join(SUFFIXES)}")
    folders = (references, references.parent, predictions)
    rules = structures if structures is not None else described(folders)
    if rules is None:
        first = next(iter(files.values()))
        raise InputError(
            f"nothing says what the values in {references} mean: {first.name} holds "
            f"{np.unique(read_label(first)).tolist()[:10]}; add structures='{{liver: 1}}', or "
            "nnU-Net's dataset.json to the folder"
        )
    means = label_map("structures", rules, site=site, sites=[site])
    cases = tuple(
        Case(
            name,
            name,
            site,
            (path,),
            path,
            tuple(means.structures.values()),
            ignore_values=means.ignore,
            background_values=means.background,
        )
        for name, path in ((stem.replace("/", "-"), path) for stem, path in files.items())
    )
    return Cohort(site, ("label",), tuple(means.structures), cases)


def _listed(table: Path, cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The sets of a cases.csv, without those under a shift: there is one prediction of a case."""
    if not table.is_file():
        raise InputError(f"cases={table} is no file; a run has a cases.csv in its folder")
    by_id, sets = {case.id: case for case in cases}, dict[str, list[Case]]()
    for line in read_cases(table).to_dict("records"):
        for name in str(line["sets"]).split(";"):
            if is_shifted(name):
                continue
            if line["case"] not in by_id:
                raise InputError(f"{table}: case {line['case']!r} is not among the references")
            sets.setdefault(name, []).append(by_id[line["case"]])
    return sets


def _files(folder: Path) -> dict[str, Path]:
    """Path below `folder` without suffix to file, sorted.

    Of a DICOM Segmentation and a mask of the same name the mask is taken, as `predict.py` writes
    both.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        suffix = next((each for each in SUFFIXES if path.name.lower().endswith(each)), None)
        if suffix is None or path.name.startswith(".") or not path.is_file():
            continue
        stem = path.relative_to(folder).as_posix()[: -len(suffix)]
        if stem in files and ".dcm" not in (suffix, files[stem].suffix):
            raise InputError(f"{path} and {files[stem]} have the same name; keep one of them")
        if stem not in files or suffix != ".dcm":
            files[stem] = path
    return files


def _by_case(
    files: Mapping[str, Path], cases: Iterable[Case]
) -> tuple[dict[str, Path], list[Path]]:
    """Each case's file, by the first of its names that is one file's, and the files left over."""
    places: dict[str, set[Path]] = {}
    for stem, path in files.items():
        plain = stem.removesuffix(CHANNEL)
        for name in {stem, plain, plain.replace("/", "-"), plain.rsplit("/", 1)[-1]}:
            places.setdefault(name, set()).add(path)
    found: dict[str, Path] = {}
    for case in cases:
        own = [_stem(path).removesuffix(CHANNEL) for path in (*case.label_paths, *case.images)]
        for name in (case.id, case.id.removesuffix(CHANNEL), file_name(case.id), *own):
            paths = places.get(name, set())
            if len(paths) > 1:
                raise InputError(
                    f"case {case.id!r} has several predictions: {sorted(map(str, paths))[:TOLD]}"
                )
            if paths:
                (found[case.id],) = paths
                break
    shared: dict[Path, str] = {}
    for name, path in found.items():
        if path in shared:
            raise InputError(
                f"{path} would be the prediction of {shared[path]!r} and of {name!r}; name the "
                "predictions by the cases' ids"
            )
        shared[path] = name
    return found, [path for path in files.values() if path not in shared]


def _stem(path: Path) -> str:
    suffix = next((each for each in SUFFIXES if path.name.lower().endswith(each)), "")
    return path.name[: len(path.name) - len(suffix)]


def _pair(case: Case, path: Path | None, cohort: Cohort, rules: Mapping[str, Any] | None) -> Pair:
    if path is None:
        return Pair(case=case, prediction=None, spacing_mm=check_headers(case).spacing_mm)
    values, background = _usual_values(case, cohort), case.background_values
    own_files = [file for file in case.label_files if file]
    if rules is not None:
        means = label_map(f"{path.parent}", rules, site=case.site, sites=cohort.sites)
        lacking = [name for name in cohort.structures if name not in means.structures]
        if lacking:
            raise InputError(
                f"{path.parent} describes the structures {list(means.structures)}, the references "
                f"have {lacking} besides; give both the same names"
            )
        values = tuple(means.structures[name] for name in cohort.structures)
        others = [v for name, v in means.structures.items() if name not in cohort.structures]
        background = (*means.background, *(n for rule in others for n in numbers_of(rule)))
    elif own_files:  # whose values say nothing of a map of all structures
        values, background = tuple(range(1, len(cohort.structures) + 1)), ()
    prediction = replace(
        case,
        label=path,
        label_values=values,
        label_files=(),
        raters=(),
        consensus="",
        background_values=background,
    )
    spacing_mm = check_headers(replace(case, raters=(*case.raters, path))).spacing_mm
    return Pair(case=case, prediction=prediction, spacing_mm=spacing_mm)


def _usual_values(case: Case, cohort: Cohort) -> tuple[Values, ...]:
    """The case's values; of a structure that is not annotated in it those of another case.

    A prediction may well hold it, though it is not scored here.
    """
    used = {number for rule in case.label_values for number in numbers_of(rule)}
    values = list(case.label_values)
    for place, rule in enumerate(values):
        others = (other.label_values[place] for other in cohort.cases if rule is None)
        numbers = next((numbers_of(each) for each in others if each), ())
        if numbers and not used & set(numbers):
            values[place] = numbers
            used |= set(numbers)
    return tuple(values)
