"""The split that a file says: of another run, or nnU-Net's."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from segshift.cohort import Case, Cohort
from segshift.errors import InputError
from segshift.splits.labels import LABELS, relabelled
from segshift.splits.selection import SOURCE_VAL
from segshift.splits.split import IN_DOMAIN, Split, sorted_cases
from segshift.splits.strata import cases_of, everyone, parted, share, strata

SIDES = ("train", "val")


def from_file(
    cohort: Cohort, *, path: str, seed: int, val_fraction: float, fold: int | None = None
) -> Split:
    """The split in a JSON file of ids: a run's `split.json`, or nnU-Net's `splits_final.json`.

    A run's has `train`, `val` and every evaluation set by name. nnU-Net's is a list of folds with
    `train` and `val`; the `val` of `fold` is `in_domain` here, and validation patients are drawn
    from `train`. Cases that the file does not name are in no set. Where the run's config lies
    beside its file, the split knows whether `selection` has drawn `val`. Raises InputError for an
    id that the cohort does not have.
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
        sites = strata(sets["train"], seed)
        choosing = share(len(everyone(sites)), val_fraction, option="val_fraction")
        val, learned = parted(sites, choosing, seed)
        tests = {IN_DOMAIN: sets["val"]}
        return Split(cases_of(everyone(learned)), cases_of(val), tests)
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
    try:
        return Split(sets["train"], sets["val"], tests, _selection(Path(path)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _selection(path: Path) -> str | None:
    """The rule by which a run drew `val` anew, as the config beside its split.json says."""
    config = path.with_name("config.yaml")
    if path.name != "split.json" or not config.is_file():
        return None
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return None  # of something else than a run
    rule = content.get("selection") if isinstance(content, Mapping) else None
    return None if rule == SOURCE_VAL else rule


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
