"""The split that a file says: of another run, or nnU-Net's."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segshift.cohort import Case, Cohort
from segshift.errors import InputError
from segshift.splits.labels import LABELS, relabelled
from segshift.splits.split import IN_DOMAIN, Split, set_name, sorted_cases
from segshift.splits.strata import cases_of, cut, strata

SIDES = ("train", "val")


def from_file(
    cohort: Cohort, *, path: str, seed: int, val_fraction: float, fold: int | None = None
) -> Split:
    """The split in a JSON file of ids: a run's `split.json`, or nnU-Net's `splits_final.json`.

    A run's has `train`, `val` and every evaluation set by name. nnU-Net's is a list of folds with
    `train` and `val`; the `val` of `fold` is `in_domain` here, and validation patients are drawn
    from `train`. Cases that the file does not name are in no set. Raises InputError for an id that
    the cohort does not have.
    """
    content = _read(Path(path))
    if isinstance(content, list):
        if type(fold) is not int or not 0 <= fold < len(content):
            raise InputError(
                f"split.fold={fold}: {path} has the folds 0 to {len(content) - 1}; name one"
            )
        where = f"{path}, fold {fold}"
        sets = _checked(where, content[fold], cohort)
        if extra := sorted(sets.keys() - set(SIDES)):
            raise InputError(f"{where} has {extra} beside {list(SIDES)}: not as nnU-Net writes it")
        val: list[list[Case]] = []
        train: list[list[Case]] = []
        for patients in strata(sets["train"], seed).values():
            chosen, learned = cut(patients, val_fraction, option="val_fraction")
            val += chosen
            train += learned
        return Split(cases_of(train), cases_of(val), {IN_DOMAIN: sets["val"]})
    if fold is not None:
        raise InputError(f"split.fold={fold}: {path} holds one split, without folds; leave it out")
    sets = _checked(path, content, cohort)
    tests = {
        name: relabelled(cohort, cases, name.removeprefix(f"{LABELS}-"))
        if name.startswith(f"{LABELS}-")
        else cases
        for name, cases in sets.items()
        if name not in SIDES
    }
    return Split(sets["train"], sets["val"], tests)


def _read(path: Path) -> Any:  # noqa: ANN401
    if not path.is_file():
        raise InputError(f"split.path={path}: there is no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"split.path={path} is not JSON: {error}") from error


def _checked(where: str, content: Any, cohort: Cohort) -> dict[str, tuple[Case, ...]]:  # noqa: ANN401
    """The cases of every list of ids."""
    if not isinstance(content, Mapping) or not set(SIDES) <= content.keys():
        found = list(content) if isinstance(content, Mapping) else type(content).__name__
        raise InputError(
            f"{where} should map 'train', 'val' and sets to ids of cases; it is {found}"
        )
    case_of = {case.id: case for case in cohort.cases}
    sets = {}
    for name, ids in content.items():
        if name != set_name(name):
            raise InputError(
                f"{where}: the name of the set {name!r} may not hold '/', '\\', ';' or '+'; as in "
                "'in_domain+noise3' it marks a shift, and the cases are those of 'in_domain'"
            )
        if not isinstance(ids, list) or not all(isinstance(identity, str) for identity in ids):
            raise InputError(f"{where}: {name!r} should be a list of ids of cases")
        if unknown := [identity for identity in ids if identity not in case_of]:
            raise InputError(
                f"{where}: {name!r} names {len(unknown)} case(s) that {cohort.name} does not have, "
                f"such as {unknown[:5]}; its ids are like {sorted(case_of)[:3]}"
            )
        if twice := [identity for identity, count in Counter(ids).items() if count > 1]:
            raise InputError(f"{where}: {name!r} names {twice[:5]} more than once")
        sets[str(name)] = sorted_cases(case_of[identity] for identity in ids)
    return sets
