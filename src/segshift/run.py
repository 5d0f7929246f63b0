"""One run from config to report: check, plan, store, train, test, write down.

The order is the point: options, manifest, split and headers are checked before torch is imported,
pixels before a second is trained.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from segshift import build, environment, postprocessing
from segshift.announcement import announcement
from segshift.errors import TrainingDivergedError
from segshift.launch import launch
from segshift.progress import tracked

if TYPE_CHECKING:
    import lightning as L

    from segshift.data import CohortDataModule
    from segshift.data.stored import SeenCase, StoredCase
    from segshift.module import SegmentationModule
    from segshift.splits import SetKey

    StoredSets = tuple[list[StoredCase], list[StoredCase], dict[SetKey, list[SeenCase]]]


def train(config: DictConfig, folder: Path, *, command: str, choices: Mapping[str, str]) -> None:
    """Train and test; `folder` then holds all that a run leaves behind.

    Raises InputError for wrong input and TrainingDivergedError, naming the last good checkpoint.
    """
    start = time.monotonic()
    parts = build.experiment(config)
    print(announcement(parts))
    trainer = parts.config.trainer
    environment.check_devices(trainer.accelerator, trainer.devices)
    build.check_loss(parts.config, parts.plan)
    cases = stored(parts)  # here, where a wrong pixel is found before anything is written

    from segshift.folder import describe  # with torch, which no error has to wait for

    sides = {"train": parts.split.train, "val": parts.split.val, **parts.split.tests}
    about = environment.record(parts.cohort, command=command, choices=choices)
    describe(folder, OmegaConf.to_yaml(parts.config), sides, parts.sets, parts.plan, about)
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
    from segshift.data.duplicates import learned_images
    from segshift.folder import conclude, run_name, write_json
    from segshift.report import write_network
    from segshift.results import main_measure, read_measures
    from segshift.seeds import derived_seed
    from segshift.trainer import make_trainer

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
    images = learned_images([*train_cases, *val_cases])
    checkpoints = callbacks.Checkpoints(
        folder / "checkpoints", description=build.description(parts, images)
    )
    timer = callbacks.Timer()
    loggers = _loggers(parts, folder) if environment.rank() == 0 else []
    trainer = make_trainer(
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
    if config.postprocess == "auto":
        best = torch.load(checkpoints.best_model_path, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        choice = _chosen_rules(module.to(trainer.strategy.root_device), data, trainer)
        module.rules = choice.rules
        if trainer.is_global_zero:
            print(f"post-processing: {postprocessing.told(choice)}")
            write_json(folder / postprocessing.RECORD, asdict(choice))
    trainer.test(module, datamodule=data, ckpt_path="best", verbose=False, weights_only=True)
    if trainer.is_global_zero:
        best = checkpoints.best_model_score
        chosen = {callbacks.MONITORED: float(best)} if best is not None and best.isfinite() else {}
        memory = environment.peak_memory_gb(trainer.strategy.root_device.type)
        measured = {"selection": config.selection, **chosen, **timer.seconds, **memory}
        conclude(folder, module.task, measured)
        measure = main_measure(read_measures(folder))
        tracking.upload(loggers, folder, structures=module.task.structures, measure=measure)


def _chosen_rules(
    module: "SegmentationModule", data: "CohortDataModule", trainer: "L.Trainer"
) -> postprocessing.Choice:
    """From predicted validation cases and references of training and validation.

    Every rank looks at its share of both.
    """
    import torch

    from segshift.module import gathered

    cases = data.val_dataloader()
    tables = []
    # In the trainer's own contexts, or a compiled network would be compiled once more.
    with trainer.precision_plugin.forward_context(), torch.inference_mode():
        module.eval()
        for item in tracked(cases, "post-processing", total=len(cases)):
            moved = data.transfer_batch_to_device(item, module.device, 0)
            if item["counted"]:
                tables.append(module.effects(moved))
    known = [*data.patches.cases, *data.val][trainer.global_rank :: trainer.world_size]
    bar = tracked(known, "reference components", total=len(known))
    components = [_reference_components(module, case) for case in bar]
    parts = [one for part in gathered(components) for one in part]
    return postprocessing.chosen_rules(
        [table for part in gathered(tables) for table in part],
        structures=module.task.structures,
        references=[postprocessing.merged(each) for each in zip(*parts, strict=True)],
    )


def _reference_components(
    module: "SegmentationModule", case: "StoredCase"
) -> list[postprocessing.ReferenceComponents]:
    """Of each structure of one case; of none that is not annotated."""
    known = module.task.known(case.case.annotation.annotated)
    return [
        postprocessing.reference_components(mask, case.spacing_mm())
        if annotated
        else postprocessing.ReferenceComponents()
        for mask, annotated in zip(module.task.referred(case.reference()), known, strict=True)
    ]


def _loggers(parts: build.Experiment, folder: Path) -> list[Any]:
    from segshift import tracking
    from segshift.folder import run_name

    content = OmegaConf.to_container(parts.config)
    assert isinstance(content, dict)
    return tracking.loggers(
        folder,
        run=run_name(folder),
        project=parts.config.logger.project,
        group=parts.config.logger.get("group"),
        wandb=parts.config.logger.wandb,
        config={str(key): value for key, value in content.items()},
    )


def stored(parts: build.Experiment) -> "StoredSets":
    """Every case of the run, preprocessed: train, validation, and the evaluation sets by name.

    Raises InputError for a case that cannot be read, and for an image that crosses the split.
    """
    from segshift.data.cleaning import store_size
    from segshift.data.duplicates import refuse_duplicates
    from segshift.data.store import store_cases, store_sets

    folder, quiet = Path(parts.config.store), environment.rank() > 0
    train_cases, val_cases = (
        store_cases(cases, parts.plan, folder=folder, training=training, quiet=quiet)
        for cases, training in ((parts.split.train, True), (parts.split.val, False))
    )
    tests = store_sets(parts.sets, parts.plan, folder=folder, quiet=quiet)
    sets = {key.set: cases for key, cases in tests.items()}  # the same cases under every shift
    warnings = refuse_duplicates({"train": train_cases, "val": val_cases, **sets})
    if not quiet:
        print(f"store:     {folder}, {store_size(folder)}")
        for warning in warnings:
            print(f"WARNING: {warning}")
    return train_cases, val_cases, tests
