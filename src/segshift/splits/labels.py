"""The split for another annotation rule: the same images of the same patients, another label."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from segshift.cohort import Case, Cohort
from segshift.errors import InputError
from segshift.splits.columns import cells_of
from segshift.splits.sites import random
from segshift.splits.split import IN_DOMAIN, Split, set_name

LABELS = "labels"  # what the sets of another column are called


def concept(
    cohort: Cohort,
    *,
    seed: int,
    val_fraction: float,
    test_fraction: float,
    labels: str | Sequence[str] | None = None,
    column: str | None = None,
    trained: str | None = None,
) -> Split:
    """Judge the `in_domain` images once more, by labels that nobody learned from.

    With `labels`, one or several columns of the manifest that name label files (`label_2`, or any
    other), the set `labels-<column>` has the cases of `in_domain` for which that file is there.
    With `column` and `trained`, where an image has a line for every guideline: lines with another
    value than `trained` are in no training, and those of `in_domain`'s images are the set
    `<column>-<value>`.
    """
    if (labels is None) == (column is None) or (column is None) != (trained is None):
        raise InputError(
            "split=concept takes split.labels=[label_2], columns of label files, or "
            "split.column=guideline split.trained=reference, for images with several lines; "
            f"not labels={labels} column={column} trained={trained}"
        )
    fractions = {"val_fraction": val_fraction, "test_fraction": test_fraction}
    if labels is not None:
        home = random(cohort, seed=seed, **fractions)
        columns = [labels] if isinstance(labels, str) else labels
        sets = {set_name(LABELS, c): relabelled(cohort, home.tests[IN_DOMAIN], c) for c in columns}
        return Split(home.train, home.val, {**home.tests, **sets})
    assert column is not None
    cells = cells_of(cohort, column)
    values = sorted(set(cells.values()))
    if trained not in values or len(values) == 1:
        raise InputError(
            f"split.trained={trained}: {column!r} has {values}; it takes one of them, and another "
            "one to hold against"
        )
    own = tuple(case for case in cohort.cases if cells[case.id] == trained)
    home = random(replace(cohort, cases=own), seed=seed, **fractions)
    images = {case.images for case in home.tests[IN_DOMAIN]}
    again = sorted(
        (case for case in cohort.cases if cells[case.id] != trained and case.images in images),
        key=lambda case: case.id,
    )
    if not again:
        raise InputError(
            f"split.column={column}: not an image of in_domain has lines with {trained!r} and with "
            "another value; for other images of other values take split=by_column"
        )
    others = sorted({cells[case.id] for case in again})
    sets = {
        set_name(column, other): tuple(case for case in again if cells[case.id] == other)
        for other in others
    }
    return Split(home.train, home.val, {**home.tests, **sets})


def relabelled(cohort: Cohort, cases: Sequence[Case], column: str) -> tuple[Case, ...]:
    """The cases that have a file in a column, with it as their label and no other rater's.

    Values mean what they mean in `label`; structures in files of their own stay those. Raises
    InputError for a column that names no files.
    """
    files = {case.id: _file(cohort, case, column) for case in cases}
    missing = [(name, file) for name, file in files.items() if file and not file.exists()]
    if missing or not any(files.values()):
        name, file = missing[0] if missing else (None, None)
        raters = {rater for case in cohort.cases for rater in case.annotation.rater_files}
        known = sorted(raters | {tag for case in cohort.cases for tag in case.tags})
        raise InputError(
            f"split.labels={column} names no label file"
            + (f": case {name!r} has {file}, which is not there" if missing else " of in_domain")
            + f"; the columns of {cohort.name} are {known}"
        )
    return tuple(
        replace(case, annotation=case.annotation.with_label(files[case.id]))
        for case in cases
        if files[case.id]
    )


def _file(cohort: Cohort, case: Case, column: str) -> Path | None:
    """Where a cell leads: like all paths of a manifest, from its folder; None if it is empty."""
    if column in case.annotation.rater_files:
        return case.annotation.rater_files[column]
    text = case.tags.get(column, "").strip()
    return cohort.folder / text if text else None
