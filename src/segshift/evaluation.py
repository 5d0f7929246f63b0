"""An existing model on other cases: from a checkpoint and a cohort to rows and a report."""

from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from segshift import build, environment


def evaluate(config: DictConfig, folder: Path, *, command: str, choices: Mapping[str, str]) -> None:
    """Test an existing model on the cases of another cohort that it has not seen."""
    config = build.resolved(config)
    environment.check_precision(config.trainer.precision)
    environment.check_accelerator(config.trainer.accelerator)
    checkpoint = build.checkpoint_file(config.checkpoint)
    cohort = build.cohort_of(config)

    from segshift import callbacks
    from segshift.data import CohortDataModule
    from segshift.data.store import store_sets
    from segshift.folder import conclude, describe, run_name
    from segshift.trainer import make_trainer

    environment.check_devices(config.trainer.accelerator, 1)
    precision = environment.precision(config.trainer.precision, config.trainer.accelerator)
    run = build.load(checkpoint, precision=precision)
    sets = build.unseen_sets(config, cohort, run)
    tests = store_sets(sets, run.plan, folder=Path(config.store))
    environment.keep_freed_memory()
    about = environment.record(cohort, command=command, choices=choices)
    describe(
        folder, OmegaConf.to_yaml(config), {s.name: s.cases for s in sets}, sets, run.plan, about
    )
    timer = callbacks.Timer()
    writer = callbacks.WriteCases(
        folder, run=run_name(folder), sets=list(tests), task=run.module.task
    )
    trainer = make_trainer(
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
    conclude(folder, run.module.task, {**timer.seconds, **memory})
