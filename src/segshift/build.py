"""Config to objects: the only room that knows Hydra and OmegaConf, and the way back from a file.

A part is chosen by `_target_`. What a part must know of the plan it leaves open as `???` in its
YAML (`spacing_mm: ???`); the field of that name is filled in here, unless the user gave a value.
torch and Lightning are imported only where a network is built: errors come before them, at once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate as hydra_instantiate
from omegaconf import DictConfig, OmegaConf

from segshift.cohort import Cohort
from segshift.cohort.checks import check_headers
from segshift.cohort.images import Geometry
from segshift.data.boxes import stored_box
from segshift.data.duplicates import LearnedImage
from segshift.errors import InputError
from segshift.options import check_options, scale_of
from segshift.plan import Plan, check_cases, make_plan, plan_from_dict, sizes_told
from segshift.shifts import Shift, distinct, expanded
from segshift.splits import EvaluationSet, Split, evaluation_sets, limited, selected, site_set
from segshift.terms import with_terms

if TYPE_CHECKING:
    from segshift.module import SegmentationModule


@dataclass(frozen=True, slots=True)
class Experiment:
    """What a run will do, known before torch is imported."""

    config: DictConfig
    cohort: Cohort
    split: Split
    sets: tuple[EvaluationSet, ...]
    plan: Plan
    headers: Mapping[str, Geometry]  # by case


def conf_folder() -> Path:
    """The YAML files: beside the package in an installed wheel, at the project's top otherwise."""
    packaged = Path(__file__).parent / "conf"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "conf"


def experiment(config: DictConfig, *, plan: Plan | None = None) -> Experiment:
    """Read the cohort, split it, check all headers, plan from the training cases.

    With `plan`, the processes of a distributed run share the one that the first process made.
    Raises InputError.
    """
    config = checked(config)
    cohort = cohort_of(config)
    split = split_of(config, cohort)
    learned = () if plan else split.train
    headers = {case.id: check_headers(case, raters=True) for case in learned}
    plan = plan or make_plan(
        split.train,
        headers=[*headers.values()],
        structures=cohort.structures,
        dimensions=config.view.dimensions,
        context=config.view.context,
        channel_names=cohort.channels,
        on_gpu=config.trainer.accelerator in ("auto", "gpu", "cuda"),
        box_of=partial(stored_box, store=Path(config.store)),
        scale=scale_of(config, cohort.structures),
        **{str(key): value for key, value in config.plan.items()},
    )
    judged = (*split.val, *(c for cases in split.tests.values() for c in cases))
    headers |= check_cases(judged, plan)
    sets = evaluation_sets(split.tests, shifts_of(config))
    return Experiment(config, cohort, split, sets, plan, headers)


def checked(config: DictConfig) -> DictConfig:
    """A resolved copy whose options were looked at. Raises InputError."""
    config = resolved(config)
    config.loss = with_terms(config.loss, [conf_folder() / "loss", Path("loss")])
    check_options(config)
    return config


def split_of(config: DictConfig, cohort: Cohort) -> Split:
    """What `split` makes of the cohort, then `narrowed`. Raises InputError."""
    return narrowed(config, instantiate(config.split)(cohort))


def narrowed(config: DictConfig, made: Split) -> Split:
    """What `selection`, then `train_patients` leave of a split. Raises InputError."""
    seed = config.split.get("seed") or 0  # not the run's: runs of one split are judged alike
    split = selected(made, rule=config.selection, seed=seed, site=config.selection_site)
    return limited(split, patients=config.train_patients, seed=seed)


def cohort_of(config: DictConfig) -> Cohort:
    """The cohort that `data` describes."""
    cohort: Cohort = instantiate(config.data.cohort)
    return cohort


def unseen_sets(config: DictConfig, cohort: Cohort, run: "LoadedRun") -> tuple[EvaluationSet, ...]:
    """Evaluation sets `site-<name>` of cases whose patients the run has not learned from."""
    cases = cohort.with_structures(run.plan.structures).cases
    unseen = [case for case in cases if case.patient not in run.patients]
    if not unseen:
        raise InputError(
            f"all {len(cases)} cases are of patients that this model was trained or chosen on"
        )
    headers = check_cases(unseen, run.plan)
    if len(unseen) < len(cases):
        print(f"left out {len(cases) - len(unseen)} cases of patients that the model has seen")
    sites = sorted({case.site for case in unseen})
    tests = {site_set(s): tuple(case for case in unseen if case.site == s) for s in sites}
    for line in sizes_told(tests, headers, run.plan):
        print(f"sizes:     {line}")
    return evaluation_sets(tests, shifts_of(config))


def resolved(config: DictConfig) -> DictConfig:
    """A copy without interpolations. Raises InputError for what only the user can give."""
    for key in _missing(OmegaConf.to_container(config)):
        group = key.split(".")[0]
        if group in ("data", "split", "checkpoint") or key in ("loss.terms", "task.regions"):
            raise InputError(f"{key} is required: add {key}=... to the command")
    copy = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(copy, DictConfig)
    return copy


def module_of(config: DictConfig, plan: Plan, *, precision: str) -> "SegmentationModule":
    """Network, task, loss, augmentation and optimiser in one LightningModule."""
    import torch

    from segshift.inference import PredictionOptions, changed
    from segshift.module import SegmentationModule
    from segshift.networks import exact_on_small_maps
    from segshift.seeds import derived_seed

    given = config.get("prediction", {})  # not in checkpoints before there were any
    task = instantiate(_filled(config, "task", plan))
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(config.seed, "weights"))
        network = instantiate(_filled(config, "model", plan, out_channels=task.channels))
    return SegmentationModule(
        network=exact_on_small_maps(network),
        task=task,
        loss=instantiate(_filled(config, "loss", plan)),
        augment=instantiate(_filled(config, "augment", plan)),
        optimizer=instantiate(config.optim.optimizer),
        schedule=instantiate(config.optim.schedule),
        schedule_interval=config.optim.interval,
        view=plan.view,
        prediction=changed(PredictionOptions(), given),
        precision=precision,
    )


def check_loss(config: DictConfig, plan: Plan) -> None:
    """Raises InputError for a loss that refuses its options or this number of structures.

    It is tried on a toy patch, before hours of preprocessing; what else may fail there (a loss of
    another package that wants larger patches) says nothing.
    """
    import torch

    task, loss = (
        instantiate(_filled(config, "task", plan)),
        instantiate(_filled(config, "loss", plan)),
    )
    edges = (8,) * plan.view.dimensions
    label = torch.zeros(2, 1, *edges, dtype=torch.int64)
    try:
        task.loss(loss, torch.zeros(2, task.channels, *edges), {"label": label})
    except InputError:
        raise
    except Exception:
        return


def description(parts: Experiment, images: Mapping[str, LearnedImage]) -> dict[str, Any]:
    """All that `load` needs, as plain values that `torch.load(weights_only=True)` accepts.

    `images` are those that are learned from, by the hash of their voxels.
    """
    sides = {"train": parts.split.train, "val": parts.split.val}
    return {
        "config": OmegaConf.to_container(parts.config),
        "plan": asdict(parts.plan),
        "patients": {name: sorted({c.patient for c in cases}) for name, cases in sides.items()},
        "images": {voxels: image._asdict() for voxels, image in images.items()},
    }


@dataclass(frozen=True, slots=True)
class LoadedRun:
    """A trained network with what is needed to use it, from a checkpoint alone."""

    config: DictConfig
    plan: Plan
    module: "SegmentationModule"
    patients: frozenset[str]  # trained or chosen on: never to be judged on
    images: Mapping[str, LearnedImage]  # likewise, by the hash of their voxels


def checkpoint_file(checkpoint: str | Path) -> Path:
    """The file that a run's folder (its best checkpoint) or a path to a `.ckpt` means."""
    path = Path(checkpoint)
    if path.is_dir():
        path = path / "checkpoints" / "best.ckpt"
        last = path.with_name("last.ckpt")
        if not path.is_file() and last.is_file():
            raise InputError(f"{checkpoint} was stopped before its first validation; take {last}")
    if not path.is_file():
        raise InputError(f"there is no checkpoint at {path}")
    return path.resolve()  # its run's folder is known by where it lies


def load(checkpoint: str | Path, *, precision: str = "32-true") -> LoadedRun:
    """Load a run's folder or a `.ckpt`; needs none of the YAML files."""
    import torch

    path = checkpoint_file(checkpoint)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        described = content["segshift"]
        images = {voxels: LearnedImage(**one) for voxels, one in described["images"].items()}
    except Exception as error:  # torch raises a dozen kinds for a broken or foreign file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not a checkpoint of segshift: {reason}") from error
    config, plan = OmegaConf.create(described["config"]), plan_from_dict(described["plan"])
    module = module_of(config, plan, precision=precision)
    module.load_state_dict(content["state_dict"])
    patients = frozenset(p for side in described["patients"].values() for p in side)
    return LoadedRun(config, plan, module, patients, images)


def instantiate(node: DictConfig) -> Any:  # noqa: ANN401
    """Make what `_target_` names, of plain lists, dicts and objects instead of config nodes.

    Raises InputError for what the part itself refuses, and for options that it does not have.
    """
    try:
        return hydra_instantiate(node, _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from None
        if isinstance(missing := getattr(cause, "__cause__", None), ModuleNotFoundError):
            owner, _, part = str(missing.name).rpartition(".")  # Hydra says it in three lines
            cause = ImportError(f"{owner} has no {part}" if owner else f"there is no {part}")
        if isinstance(cause, TypeError | ValueError | AttributeError | ImportError):
            raise InputError(f"{node.get('_target_')}: {cause}") from error
        raise


def network_definition(run: LoadedRun) -> dict[str, Any]:
    """The network's `_target_` and options, all filled in, as plain values."""
    node = _filled(run.config, "model", run.plan, out_channels=run.module.task.channels)
    definition = OmegaConf.to_container(node)
    assert isinstance(definition, dict)
    return {str(key): value for key, value in definition.items()}


def _missing(node: Any, key: str = "") -> Iterator[str]:  # noqa: ANN401
    """Keys that are `???`; OmegaConf's own search trips over interpolations to them."""
    if node == "???":
        yield key
    children = node.items() if isinstance(node, dict) else ()
    for name, child in children:
        yield from _missing(child, f"{key}.{name}" if key else str(name))


def shifts_of(config: DictConfig) -> list[Shift]:
    """The shifts that `shift` names, each severity by itself."""
    entries = expanded(**OmegaConf.to_container(config.shift))  # type: ignore[arg-type]
    return distinct([instantiate(OmegaConf.create(entry)) for entry in entries])


def _filled(config: DictConfig, group: str, plan: Plan, **more: int) -> DictConfig:
    """The group's config with every `???` taken from the plan's field of that name."""
    facts: Mapping[str, Any] = {**asdict(plan), "in_channels": plan.in_channels, **more}
    node = OmegaConf.create({group: config[group]})
    for key in OmegaConf.missing_keys(node):
        name = key.split(".")[-1]
        if name not in facts:
            raise InputError(f"{key} is required: add {key}=... to the command")
        OmegaConf.update(node, key, facts[name])
    return node[group]  # type: ignore[no-any-return]
