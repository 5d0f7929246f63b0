"""Where a run is logged: learning curves on disk, and Weights & Biases, online or offline."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from segshift.results import read_rows


def loggers(
    folder: Path, *, run: str, project: str, wandb: bool, config: Mapping[str, Any]
) -> list[Logger]:
    """Learning curves as `metrics.csv`, and Weights & Biases if wanted."""
    curves = CSVLogger(folder, name="", version="", flush_logs_every_n_steps=50)
    return [curves, _wandb(folder, run, project, config)] if wandb else [curves]


def upload(loggers: Sequence[Logger], folder: Path) -> None:
    """Log rows, summary and pictures to Weights & Biases, end its run and say where it is."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            import wandb

            run = logger.experiment
            rows, summary = folder / "rows.csv", folder / "summary.json"
            run.log({"rows": wandb.Table(dataframe=read_rows(rows))})
            run.log(
                {p.stem: wandb.Image(str(p)) for p in sorted((folder / "figures").glob("*.png"))}
            )
            run.summary.update(json.loads(summary.read_text()))
            place = Path(run.dir).parent
            run.finish()
            print(
                f"W&B:      offline, because WANDB_API_KEY is not set; upload: wandb sync {place}"
                if run.offline
                else f"W&B:      {run.url}"
            )


def _wandb(folder: Path, run: str, project: str, config: Mapping[str, Any]) -> WandbLogger:
    os.environ.setdefault("WANDB_SILENT", "true")  # our one line at the end says it all
    import wandb  # half a second, so only if it is used

    def started(*, offline: bool) -> WandbLogger:
        logger = WandbLogger(
            name=run,
            project=project,
            save_dir=folder,
            offline=offline,
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off"),
        )
        _ = logger.experiment  # connects now, where a failure costs no trained step
        return logger

    if "WANDB_API_KEY" not in os.environ:
        return started(offline=True)
    try:
        return started(offline=False)
    except wandb.Error as error:
        print(f"W&B:      not reachable ({error}), so this run is logged offline")
        return started(offline=True)
