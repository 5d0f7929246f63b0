"""Where a run is logged: learning curves on disk, and Weights & Biases, online or offline."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from segshift.results import read_rows

ONLINE_WITHIN_S = 30.0  # then a run does not wait for the network any longer


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
            hint = "" if os.environ.get("WANDB_API_KEY") else "set WANDB_API_KEY to log online; "
            sync = f"offline; {hint}upload with: wandb sync {place}"
            print(f"W&B:         {sync if run.offline else run.url}")


def _wandb(folder: Path, run: str, project: str, config: Mapping[str, Any]) -> WandbLogger:
    import wandb  # half a second, so only if it is used

    def started(mode: Literal["online", "offline"]) -> WandbLogger:
        # Not through WandbLogger, whose arguments make wandb warn at every start.
        experiment = wandb.init(
            project=project,
            name=run,
            dir=folder,
            config=dict(config),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off", init_timeout=ONLINE_WITHIN_S),
        )
        return WandbLogger(experiment=experiment)

    if not os.environ.get("WANDB_API_KEY"):
        return started("offline")
    try:
        return started("online")
    except wandb.Error as error:
        reason = str(error).splitlines()[0]
        print(f"W&B:       no connection or login ({reason}), so this run is logged offline")
        return started("offline")
