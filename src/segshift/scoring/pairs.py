"""Predictions and references paired by name, with every header checked, before a voxel is read.

References are a folder of label files or a manifest. A reference without a prediction is a pair
all the same: a miss, which is scored as empty. Needs no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort import Annotation, Case, Cohort, read_manifest
from segshift.cohort.checks import check_headers
from segshift.cohort.images import SUFFIXES, read_label
from segshift.cohort.labelling import Values, label_map, numbers_of
from segshift.errors import InputError
from segshift.results import read_cases
from segshift.scoring.description import described
from segshift.scoring.names import TOLD, by_case, image_files
from segshift.splits.split import MARKS, set_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A reference, its prediction as a case of its own (None: a miss), and the voxel size in mm.

    The size is None where nobody stated it.
    """

    case: Case
    prediction: Case | None
    spacing_mm: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """All pairs by evaluation set, the cohort of the references, and predictions of none.

    `broken` says of each case that cannot be compared why; it is in no set.
    """

    cohort: Cohort
    sets: Mapping[str, tuple[Pair, ...]]
    extra: tuple[Path, ...]
    broken: Mapping[str, str]

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
    `read_manifest`. `cases` is a run's cases.csv: only its cases are scored, in its sets, of its
    patients and sites. Without it every site is a set. Raises InputError for what concerns all
    cases; one that is unreadable or has another geometry than its prediction is `broken`.
    """
    if not predictions.is_dir():
        raise InputError(f"predictions={predictions} is no folder")
    if references.is_dir():
        cohort = _cohort(references, predictions, structures)
    else:
        cohort = read_manifest(references, structures=structures, sites=sites, rater=rater)
    chosen = [case for case in cohort.cases if case.annotation.paths]
    sets = {set_name("site", s): [c for c in chosen if c.site == s] for s in cohort.sites}
    if cases is not None:
        sets = _listed(cases, chosen)
    chosen = list({case.id: case for members in sets.values() for case in members}.values())
    if not chosen:
        raise InputError(f"references={references} has no case with a label")
    rules = described([predictions])
    found, extra = by_case(image_files(predictions), chosen)
    if not found:
        raise InputError(
            f"no file in {predictions} is named as a case of {references}: "
            f"{[str(path.relative_to(predictions)) for path in extra[:TOLD]]} against "
            f"{[case.id for case in chosen[:TOLD]]}"
        )
    pairs, broken = dict[str, Pair](), dict[str, str]()
    for case in chosen:
        path = found.get(case.id)
        prediction = None if path is None else _prediction(case, path, cohort, rules)
        try:
            both = case if path is None else _beside(case, path)
            spacing_mm = check_headers(both).known_mm
        except InputError as error:
            broken[case.id] = str(error)
            continue
        pairs[case.id] = Pair(case=case, prediction=prediction, spacing_mm=spacing_mm)
    by_set = {n: tuple(pairs[c.id] for c in own if c.id in pairs) for n, own in sets.items()}
    sets_of_pairs = {name: own for name, own in by_set.items() if own}
    return Pairs(cohort=cohort, sets=sets_of_pairs, extra=tuple(extra), broken=broken)


def _cohort(references: Path, predictions: Path, structures: Mapping[str, Any] | None) -> Cohort:
    """Every label file of a folder as a case that is its own image."""
    files, site = image_files(references), references.resolve().name.translate(MARKS) or "all"
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
    named = {stem.replace("/", "-"): path for stem, path in files.items()}
    if len(named) < len(files):
        twice = next(s for s, path in files.items() if named[s.replace("/", "-")] != path)
        raise InputError(f"{references} holds {twice!r} also with - in place of /; rename one")
    cases = tuple(
        Case(
            name,
            name,
            site,
            (path,),
            Annotation(
                path,
                tuple(means.structures.values()),
                ignore_values=means.ignore,
                background_values=means.background,
            ),
        )
        for name, path in named.items()
    )
    return Cohort(site, ("label",), tuple(means.structures), cases)


def _listed(table: Path, cases: Sequence[Case]) -> dict[str, list[Case]]:
    """The cases of each set of a cases.csv."""
    if not table.is_file():
        raise InputError(f"cases={table} is no file; a run has a cases.csv in its folder")
    by_id, sets = {case.id: case for case in cases}, dict[str, list[Case]]()
    for line in read_cases(table).to_dict("records"):
        if line["case"] not in by_id:
            raise InputError(f"{table}: case {line['case']!r} is not among the references")
        case = replace(by_id[line["case"]], patient=line["patient"], site=line["site"])
        sets.setdefault(str(line["set"]), []).append(case)
    return sets


def _beside(case: Case, path: Path) -> Case:
    """The case as if the prediction were one more rater's, to hold its header against the image."""
    raters = (*case.annotation.raters, path)
    return replace(case, annotation=replace(case.annotation, raters=raters))


def _prediction(case: Case, path: Path, cohort: Cohort, rules: Mapping[str, Any] | None) -> Case:
    """The case with the file as its label; `rules` are those of the predictions' own folder."""
    reference = case.annotation
    values, background = _usual_values(case, cohort), reference.background_values
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
    elif any(reference.files):  # whose values say nothing of a map of all structures
        values, background = tuple(range(1, len(cohort.structures) + 1)), ()
    drawn = Annotation(
        path, values, ignore_values=reference.ignore_values, background_values=background
    )
    return replace(case, annotation=drawn)


def _usual_values(case: Case, cohort: Cohort) -> tuple[Values, ...]:
    """The case's values; of a structure that is not annotated in it those of another case.

    A prediction may well hold it, though it is not scored here.
    """
    used = {number for rule in case.annotation.values for number in numbers_of(rule)}
    values = list(case.annotation.values)
    for place, rule in enumerate(values):
        others = (other.annotation.values[place] for other in cohort.cases if rule is None)
        numbers = next((numbers_of(each) for each in others if each), ())
        if numbers and not used & set(numbers):
            values[place] = numbers
            used |= set(numbers)
    return tuple(values)
