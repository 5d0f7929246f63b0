"""From combinations to jobs: each composed, resolved, split and named before anything runs."""

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf, open_dict

from segshift import build
from segshift.cohort import Cohort
from segshift.errors import InputError
from segshift.progress import tracked
from segshift.results.names import file_name
from segshift.splits import IN_DOMAIN, Split, evaluation_sets
from segshift.study.expansion import Combination, Part, combinations
from segshift.study.identity import hashes, identity, read_all
from segshift.study.words import with_site

SOURCE = "split.source"
NAMED_SITES = 3  # more of them in a job's name would not be read


@dataclass(frozen=True, slots=True)
class Job:
    """One run of the study, frozen: the resolved `config` is all that its process needs.

    One that several parts or variants name is there for each of them, under the same `name`.
    `train` are the sites that its split trains at, sorted, also where `train_patients` or
    `selection` takes all patients of one away; `variant` what the study compares; `seed` and `fold`
    are texts, "" where there is none; `steps` are those of the training, `passes` the evaluation
    sets with their shifts. `oracle`: held-out and all patients of its one training site, (0, 0) for
    other splits.
    """

    name: str
    part: str
    train: tuple[str, ...]
    variant: str
    seed: str
    fold: str
    steps: int
    passes: int
    oracle: tuple[int, int]
    identity: str
    overrides: tuple[str, ...]
    choices: Mapping[str, str]
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Checked:
    """A combination whose options, cohort and split are sound; the split trains at `sites`."""

    combination: Combination
    choices: Mapping[str, str]
    config: Mapping[str, Any]
    cohort: Cohort
    sites: tuple[str, ...]
    split: Split
    passes: int


def jobs_of(parts: Sequence[Part], *, group: str) -> tuple[Job, ...]:
    """Every job of the study, in the order of its parts; `group` is their name in trackers.

    What two parts or variants name is one job, listed once for each. Hydra has to be initialised.
    Every cohort is read once, and so is every file, to its hash. Raises InputError, and whatever
    Hydra raises for a wrong override, with a note that names the job.
    """
    cohort_of = functools.cache(_cohort)

    def sites_of(overrides: Sequence[str]) -> tuple[str, ...]:
        try:
            return cohort_of(_data(build.resolved(_composed(overrides)[0]))).sites
        except Exception as error:
            error.add_note(f"in the study's {' '.join(overrides)}")
            raise

    planned = [one for part in parts for one in combinations(part, sites_of)]
    if not planned:
        fewest = min(part.sites_at_least for part in parts)
        raise InputError(
            f"this cohort is of fewer than {fewest} sites, and each part of the study needs more: "
            + ", ".join(f"{part.name} {part.sites_at_least}" for part in parts)
        )
    checked: list[_Checked] = []
    for one in tracked(planned, "checking jobs", total=len(planned)):
        try:
            checked.append(_checked(one, cohort_of))
        except Exception as error:
            error.add_note(f"in the job {one.part}: {' '.join(one.overrides)}")
            raise
    hash_of = hashes(Path(checked[0].config["store"]))
    splits = [each.split for each in checked]
    sides = [side for s in splits for side in (s.train, s.val, *s.tests.values())]
    read_all((case for side in sides for case in side), hash_of)
    jobs: dict[tuple[str, str, str], Job] = {}
    firsts: dict[str, Job] = {}
    for each in checked:
        digest = identity(each.config, each.cohort, each.split, hash_of)
        first = firsts.setdefault(digest, _job(each, digest, group))
        part, variant = each.combination.part, each.combination.variant
        jobs.setdefault((part, variant, digest), replace(first, part=part, variant=variant))
    _refuse_alike(jobs.values())
    return tuple(jobs.values())


def distinct(jobs: Iterable[Job]) -> tuple[Job, ...]:
    """Each job once, however many parts and variants share it."""
    return tuple({job.name: job for job in jobs}.values())


def _composed(overrides: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """The config of train.py under these overrides, and the choices of its groups."""
    config = compose("train", overrides=list(overrides), return_hydra_config=True)
    choices = {
        str(group): str(choice)
        for group, choice in config.hydra.runtime.choices.items()
        if choice and not str(group).startswith("hydra/")
    }
    with open_dict(config):
        del config["hydra"]
    _drop_foreign(config, choices, overrides)
    return config, choices


def _drop_foreign(config: DictConfig, choices: Mapping[str, str], words: Sequence[str]) -> None:
    """Forget what an experiment says about another split than the one that the words choose.

    An experiment with `split: {folds: 4}` means the split that it was written for; the part of a
    study that takes another split would hand it an option that it does not have.
    """
    named = {word.lstrip("+").partition("=")[0] for word in words}
    if "split" not in named or "experiments" not in choices:
        return
    own = split_options(choices["split"])
    with open_dict(config):
        for key in [k for k in config.split if k not in own and f"split.{k}" not in named]:
            del config.split[key]


def split_options(choice: str) -> frozenset[str]:
    """The options of `split=choice`. Hydra has to be initialised."""
    return frozenset(map(str, compose("train", overrides=[f"split={choice}"]).split))


def _data(config: DictConfig) -> str:
    return json.dumps(OmegaConf.to_container(config.data), sort_keys=True)


def _cohort(data: str) -> Cohort:
    return build.cohort_of(OmegaConf.create({"data": json.loads(data)}))


def _checked(one: Combination, cohort_of: Any) -> _Checked:  # noqa: ANN401
    composed, choices = _composed(one.overrides)
    config = build.checked(composed)
    cohort: Cohort = cohort_of(_data(config))
    content = OmegaConf.to_container(config)
    assert isinstance(content, dict)
    plain = {str(key): value for key, value in content.items()}
    try:
        whole: Split = build.instantiate(config.split)(cohort)
    except InputError as error:
        _hint(error, one, config.split.get("source"), cohort.sites)
        raise
    split = build.narrowed(config, whole)
    _check_labelled(split)
    sites = tuple(sorted({case.site for case in whole.train}))
    passes = len(evaluation_sets(split.tests, build.shifts_of(config)))
    return _Checked(one, choices, plain, cohort, sites, split, passes)


def _hint(error: InputError, one: Combination, own: object, sites: Sequence[str]) -> None:
    """How a matrix goes on without the row of a site that is too small to be trained at."""
    if SOURCE in one.in_turn:
        others = [with_site(SOURCE, site).partition("=")[2] for site in sites if site != own]
        words = f"{SOURCE}={','.join(others)}"
        error.add_note(f"{words} trains at the other sites and still tests at {own}")


def _check_labelled(split: Split) -> None:
    """A run would say so as well, but each of them only after it has started."""
    for name, cases in {"train": split.train, "val": split.val, **split.tests}.items():
        if unlabelled := [case.id for case in cases if not case.annotation.paths]:
            raise InputError(
                f"{len(unlabelled)} case(s) of {name!r} have no label, such as {unlabelled[:5]}, "
                "and can be neither trained on nor scored; label them or take their lines out of "
                "the manifest"
            )


def _refuse_alike(jobs: Iterable[Job]) -> None:
    """Raises InputError for two networks that the tables would take for one."""
    firsts: dict[tuple[object, ...], Job] = {}
    for job in jobs:
        key = job.part, job.variant, job.train, job.seed, job.fold
        first = firsts.setdefault(key, job)
        if first is not job:
            apart = sorted({*first.overrides} ^ {*job.overrides})
            raise InputError(
                f"{first.name} and {job.name} differ in {' and '.join(apart)} alone, which the "
                f"tables of a part do not tell apart (both are trained at {', '.join(job.train)}); "
                "leave one out, or give it a part of its own"
            )


def _oracle(one: _Checked) -> tuple[int, int]:
    if not str(one.config["split"]["_target_"]).endswith(".single_source"):
        return 0, 0
    (site,) = one.sites
    every = {case.patient for case in one.cohort.cases if case.site == site}
    return len({case.patient for case in one.split.tests[IN_DOMAIN]}), len(every)


def _job(one: _Checked, digest: str, group: str) -> Job:
    config, trainer = one.config, one.config["trainer"]
    fold = one.config["split"].get("fold")
    seed, fold = str(config["seed"]), "" if fold is None else str(fold)
    label = "-".join([
        _sites_label(one.sites, one.cohort.sites),
        *(one.choices.get(group, "") for group in ("split", "model", "loss")),
        f"seed{seed}",
        *([f"fold{fold}"] if fold else []),
    ])  # fmt: skip
    return Job(
        name=f"{file_name(label)}-{digest[:8]}",
        part=one.combination.part,
        train=one.sites,
        variant=one.combination.variant,
        seed=seed,
        fold=fold,
        steps=trainer["epochs"] * trainer["steps_per_epoch"],
        passes=one.passes,
        oracle=_oracle(one),
        identity=digest,
        overrides=one.combination.overrides,
        choices=one.choices,
        config={**config, "logger": {**config["logger"], "group": group}},
    )


def _sites_label(sites: Sequence[str], known: Iterable[str]) -> str:
    """The training sites in a file's name; of many, those that are left out."""
    if len(sites) <= NAMED_SITES:
        return "+".join(sites)
    out = sorted(set(known) - set(sites))
    return "without_" + "+".join(out) if 0 < len(out) <= NAMED_SITES else f"{len(sites)}_sites"
