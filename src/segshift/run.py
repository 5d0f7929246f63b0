"""One run from config to report: check, plan, store, train, test, write down.

`train` and `evaluate` are what the root scripts call. The order is the point: options, manifest,
split and headers are checked before torch is imported, pixels before a second is trained.
"""

import json
import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from segshift import build, environment
from segshift.cohort import Case
from segshift.errors import InputError, TrainingDivergedError
from segshift.launch import launch
from segshift.plan import Plan
from segshift.progress import is_watched
from segshift.splits import EvaluationSet

if TYPE_CHECKING:
    import lightning as L

    from segshift.data.store import StoredCase
    from segshift.module import SegmentationModule

    StoredSets = tuple[list[StoredCase], list[StoredCase], dict[str, list[StoredCase]]]


def train(config: DictConfig, folder: Path, *, command: str, choices: Mapping[str, str]) -> None:
    """Train and test; `folder` then holds all that a run leaves behind.

    Raises InputError for wrong input and TrainingDivergedError, naming the last good checkpoint.
    """
    start = time.monotonic()
    parts = build.experiment(config)
    print(build.announcement(parts))
    trainer = parts.config.trainer
    environment.check_devices(trainer.accelerator, trainer.devices)
    build.check_loss(parts.config, parts.plan)
    cases = stored(parts)  # here, where a wrong pixel is found before anything is written
    sides = {"train": parts.split.train, "val": parts.split.val, **parts.split.tests}
    about = environment.record(parts.cohort, command=command, choices=choices)
    _describe(folder, parts.config, sides, parts.sets, parts.plan, about)
    if trainer.devices > 1:
        launch(folder, processes=trainer.devices)
    else:
        fit_and_test(parts, cases, folder)
    print(f"all in {time.monotonic() - start:.0f} s")


def fit_and_test(parts: build.Experiment, cases: "StoredSets", folder: Path) -> None:
    """The part that every process of a distributed run does; rank 0 writes."""
    import torch

    from segshift import callbacks, tracking
    from segshift.data import CohortDataModule
    from segshift.report import write_network
    from segshift.seeds import derived_seed

    config, plan = parts.config, parts.plan
    train_cases, val_cases, tests = cases
    environment.keep_freed_memory()
    precision = environment.precision(config.trainer.precision, config.trainer.accelerator)
    module = build.module_of(config, plan, precision=precision)
    if environment.rank() == 0:
        write_network(folder, module, plan, precision=precision)
    if config.trainer.compile:
        module.network.compile()
    data = CohortDataModule(
        train=train_cases,
        val=val_cases,
        tests=tests,
        view=plan.view,
        batch=plan.batch,
        steps_per_epoch=config.trainer.steps_per_epoch,
        foreground_share=config.foreground_share,
        balance=config.sampling.balance,
        workers=config.trainer.workers,
        seed=config.seed,
    )
    monitor = f"val/{module.selection}"
    checkpoints = callbacks.Checkpoints(
        folder / "checkpoints",
        monitor=monitor,
        higher_is_better=module.task.directions[module.selection],
        description=build.description(parts),
    )
    timer = callbacks.Timer()
    loggers = _loggers(parts, folder) if environment.rank() == 0 else []
    trainer = _trainer(
        config.trainer,
        folder,
        precision=precision,
        callbacks=[
            checkpoints,
            timer,
            callbacks.EpochLine(),
            callbacks.WriteCases(folder, run=run_name(folder), sets=list(tests), task=module.task),
        ],
        loggers=loggers,
    )
    # Dropout is the only thing that still draws from torch's global stream.
    torch.manual_seed(derived_seed(config.seed, "dropout", environment.rank()))
    try:
        trainer.fit(module, datamodule=data)
    except TrainingDivergedError as error:
        raise TrainingDivergedError(f"{error}. Last good checkpoint: {checkpoints.last}") from error
    trainer.test(module, datamodule=data, ckpt_path="best", verbose=False, weights_only=True)
    if trainer.is_global_zero:
        best = checkpoints.best_model_score
        chosen = {monitor: float(best)} if best is not None and best.isfinite() else {}
        memory = environment.peak_memory_gb(trainer.strategy.root_device.type)
        measured = {"selection": "source_val", **chosen, **timer.seconds, **memory}
        _conclude(folder, module, measured)
        tracking.upload(loggers, folder)


def evaluate(config: DictConfig, folder: Path, *, command: str, choices: Mapping[str, str]) -> None:
    """Test an existing model on the cases of another cohort that it has not seen."""
    config = build.resolved(config)
    environment.check_precision(config.trainer.precision)
    environment.check_accelerator(config.trainer.accelerator)
    checkpoint = build.checkpoint_file(config.checkpoint)
    cohort = build.cohort_of(config)

    from segshift import callbacks
    from segshift.data import CohortDataModule

    environment.check_devices(config.trainer.accelerator, 1)
    precision = environment.precision(config.trainer.precision, config.trainer.accelerator)
    run = build.load(checkpoint, precision=precision)
    sets = build.unseen_sets(config, cohort, run)
    tests = _tests(sets, run.plan, Path(config.store))
    environment.keep_freed_memory()
    about = environment.record(cohort, command=command, choices=choices)
    _describe(folder, config, {s.name: s.cases for s in sets}, sets, run.plan, about)
    timer = callbacks.Timer()
    writer = callbacks.WriteCases(
        folder, run=run_name(folder), sets=list(tests), task=run.module.task
    )
    trainer = _trainer(
        OmegaConf.merge(run.config.trainer, config.trainer, {"devices": 1, "strategy": "auto"}),
        folder,
        precision=precision,
        callbacks=[timer, writer],
        loggers=[],
    )
    data = CohortDataModule(
        train=[], val=[], tests=tests, view=run.plan.view, batch=1, steps_per_epoch=1,
        foreground_share=0, workers=0, seed=0,
    )  # fmt: skip
    trainer.test(run.module, datamodule=data, verbose=False)
    memory = environment.peak_memory_gb(trainer.strategy.root_device.type)
    _conclude(folder, run.module, {**timer.seconds, **memory})


def run_name(folder: Path) -> str:
    """What rows and trackers call the run: its last two folders."""
    return "/".join(folder.resolve().parts[-2:])


def _describe(
    folder: Path,
    config: DictConfig,
    sides: Mapping[str, Sequence[Case]],
    sets: Sequence[EvaluationSet],
    plan: Plan,
    about: Mapping[str, Any],
) -> None:
    """Write what is needed to repeat the run and to join its rows, into a folder of its own."""
    from segshift.results import write_cases

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / "config.yaml").open("x") as file:
            file.write(OmegaConf.to_yaml(config))
    except FileExistsError as error:
        raise InputError(
            f"{folder} holds another run; set name=... or hydra.run.dir=..."
        ) from error
    _write_json(folder / "split.json", {n: [c.id for c in cases] for n, cases in sides.items()})
    write_cases(folder / "cases.csv", {s.name: s.cases for s in sets})
    _write_json(folder / "plan.json", asdict(plan))
    _write_json(folder / "environment.json", about)


def _conclude(folder: Path, module: "SegmentationModule", measured: Mapping[str, Any]) -> None:
    """From rows to summary, pictures, page and table."""
    from segshift.report import print_group_tables, print_site_table, write_report
    from segshift.results import read_cases, read_rows, summarise, summarise_groups

    directions, metric = module.task.directions, module.selection
    higher, structures = directions[metric], module.task.structures
    rows, cases = read_rows(folder / "rows.csv"), read_cases(folder / "cases.csv")
    means = {**summarise(rows, directions), **summarise_groups(rows, cases)}
    _write_json(folder / "summary.json", {**measured, **means})
    write_report(folder, structures=structures, metric=metric, higher_is_better=higher)
    print_site_table(rows, metric=metric, higher_is_better=higher)
    print_group_tables(rows, cases, metric=metric)
    for name in ("rows.csv", "report.html", "figures"):
        print(f"{name:<12} {folder / name}")


def _loggers(parts: build.Experiment, folder: Path) -> list[Any]:
    from segshift import tracking

    content = OmegaConf.to_container(parts.config)
    assert isinstance(content, dict)
    return tracking.loggers(
        folder,
        run=run_name(folder),
        project=parts.config.logger.project,
        wandb=parts.config.logger.wandb,
        config={str(key): value for key, value in content.items()},
    )


def stored(parts: build.Experiment) -> "StoredSets":
    """Every case of the run, preprocessed: train, validation, and the evaluation sets by name."""
    from segshift.data.cleaning import store_size
    from segshift.data.store import store_cases
    from segshift.shifts import Identity

    folder, quiet = Path(parts.config.store), environment.rank() > 0
    train_cases, val_cases = (
        store_cases(cases, parts.plan, Identity(), folder=folder, quiet=quiet)
        for cases in (parts.split.train, parts.split.val)
    )
    tests = _tests(parts.sets, parts.plan, folder)
    if not quiet:
        print(f"store:     {folder}, {store_size(folder)}")
    return train_cases, val_cases, tests


def _tests(
    sets: Sequence[EvaluationSet], plan: Plan, folder: Path
) -> dict[str, list["StoredCase"]]:
    from segshift.data.store import store_cases

    quiet = environment.rank() > 0
    return {s.name: store_cases(s.cases, plan, s.shift, folder=folder, quiet=quiet) for s in sets}


def _quieten() -> None:
    """Silence what these libraries say about our own deliberate choices at every start."""
    for line in (
        ".*exists and is not empty. Previous log files.*",  # the run's folder is ours
        ".*smaller than the logging interval.*",  # short epochs are fine
        ".*isinstance.treespec, LeafSpec.*",  # Lightning 2.6 on torch 2.13
        ".*does not have many workers.*",  # memory-mapped patches need none on a CPU
        ".*`weights_only` was not set.*",
        ".*recommended to use .*sync_dist=True.*",  # the module gathers all ranks' cases itself
    ):
        warnings.filterwarnings("ignore", message=line)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def _trainer(
    config: Any,  # noqa: ANN401
    folder: Path,
    *,
    precision: str,
    callbacks: list[Any],
    loggers: list[Any],
) -> "L.Trainer":
    import lightning as L
    from lightning.pytorch.callbacks import RichProgressBar

    _quieten()
    return L.Trainer(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy=config.strategy,
        precision=precision,  # type: ignore[arg-type]  # checked against PRECISIONS
        max_epochs=config.epochs,
        gradient_clip_val=config.gradient_clip,
        callbacks=[*callbacks, *([RichProgressBar(leave=False)] if is_watched() else [])],
        enable_progress_bar=is_watched(),
        logger=loggers,
        default_root_dir=folder,
        use_distributed_sampler=False,  # it would count padding cases twice
        num_sanity_val_steps=0,
        log_every_n_steps=5,
        enable_model_summary=False,
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
