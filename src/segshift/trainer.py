"""Lightning's Trainer from our options, without what it says about our own deliberate choices."""

import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from segshift.progress import is_watched


def make_trainer(
    config: Any,  # noqa: ANN401
    folder: Path,
    *,
    precision: str,
    callbacks: list[Any],
    loggers: list[Any],
) -> L.Trainer:
    """Lightning's trainer as `conf/trainer` describes it; `folder` is the run's."""
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
