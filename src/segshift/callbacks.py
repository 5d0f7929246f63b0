"""What is written while a run goes on: rows, slices for the report, checkpoints, lines, loggers."""

import json
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from torch.nn import functional

from segshift.module import gathered
from segshift.results import Row, append_rows, read_rows, write_rows


class WriteRows(Callback):
    """Every case's scores to `rows.csv` as soon as it is scored; sorted once all ranks are done."""

    def __init__(self, folder: Path, *, run: str, sets: Sequence[str]) -> None:
        self.folder, self.run, self.sets = folder, run, tuple(sets)
        self.rows: list[Row] = []

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Mapping[str, Any],
        batch: Mapping[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append one case."""
        who = (batch["case"], batch["patient"], batch["site"])
        new = [Row(self.run, self.sets[dataloader_idx], *who, *s) for s in outputs["scores"]]
        append_rows(self._path(trainer.global_rank), new)
        self.rows += new

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather, and let rank 0 write all rows; a case scored twice is an error there."""
        parts = gathered(self.rows)
        if trainer.is_global_zero:
            write_rows(self._path(0), [row for part in parts for row in part])
        else:
            self._path(trainer.global_rank).unlink(missing_ok=True)

    def _path(self, rank: int) -> Path:
        return self.folder / ("rows.csv" if rank == 0 else f"rows.rank{rank}.csv")


class WriteSlices(Callback):
    """One slice of every case for the report: the one that holds most of the structures."""

    def __init__(self, folder: Path, *, sets: Sequence[str]) -> None:
        self.folder, self.sets = folder, tuple(sets)

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Mapping[str, Any],
        batch: Mapping[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save image, reference and prediction of that slice (H, W) as an npz of a few kB."""
        reference, prediction = batch["label"][0].cpu().numpy(), outputs["prediction"]
        z = int(np.argmax(((reference > 0) | (prediction > 0)).sum(axis=(1, 2))))
        image = batch["image"][:1]
        plane = image[:, min(z * image.shape[1] // len(reference), image.shape[1] - 1)].float()
        plane = functional.interpolate(plane[None], size=reference.shape[1:], mode="bilinear")
        folder = self.folder / "figures" / "slices" / self.sets[dataloader_idx]
        folder.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            folder / f"{file_name(batch['case'])}.npz",
            case=batch["case"],
            image=plane[0, 0].cpu().numpy(),
            reference=reference[z].astype(np.uint8),
            prediction=prediction[z].astype(np.uint8),
            spacing_mm=np.array(batch["spacing"][1:]),
        )


class Checkpoints(ModelCheckpoint):
    """`best.ckpt` by the source validation cases alone, and `last.ckpt`, whatever ends the run.

    Both hold state dicts and a plain `description` (resolved config, plan), nothing pickled, so
    that they load with `weights_only=True` and without the YAML files.
    """

    def __init__(
        self, folder: Path, *, monitor: str, higher_is_better: bool, description: dict[str, Any]
    ) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=monitor,
            mode="max" if higher_is_better else "min",
            save_last=True,
            enable_version_counter=False,
        )
        self.folder, self.description = folder, description

    @property
    def last(self) -> Path:
        """The newest checkpoint's path."""
        return self.folder / "last.ckpt"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """There is a checkpoint from the first step on."""
        super().on_train_start(trainer, pl_module)
        trainer.save_checkpoint(self.last)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Ctrl-C keeps the weights of this moment; after any other end the last good ones stay."""
        if isinstance(exception, KeyboardInterrupt) and trainer.state.fn == "fit":
            trainer.save_checkpoint(self.last)
        if isinstance(exception, KeyboardInterrupt) and trainer.is_global_zero:
            print(f"\nstopped at step {trainer.global_step}; weights so far: {self.last}")

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what `segshift.build.load` needs."""
        checkpoint["segshift"] = self.description


class EpochLine(Callback):
    """One printed line per epoch, for logs where a progress bar is no use."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print step, loss and validation metrics."""
        if trainer.sanity_checking or not trainer.is_global_zero or trainer.state.fn != "fit":
            return
        metrics = trainer.callback_metrics
        values = "  ".join(
            f"{name} {float(metrics[name]):.4g}"
            for name in ("train/loss", *(n for n in metrics if n.startswith("val/")))
            if name in metrics
        )
        print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}  "
            f"{values}  {time.monotonic() - self.start:.0f} s",
            flush=True,
        )


class Timer(Callback):
    """Wall time of training and of evaluation, and the training steps' own rate."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = 0.0

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start the stage's clock."""
        self._start = time.monotonic()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop it."""
        name = {"fit": "train", "test": "test"}[stage]
        self.seconds[f"time/{name}_s"] = time.monotonic() - self._start


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
                if run.settings._offline
                else f"W&B:      {run.url}"
            )


def _wandb(folder: Path, run: str, project: str, config: Mapping[str, Any]) -> WandbLogger:
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


def file_name(case: str) -> str:
    """A case id as a file name: ids may hold slashes."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in case)


def peak_memory_gb(accelerator: str) -> dict[str, float]:
    """Peak memory of this process, and of the GPU where there is one."""
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes on macOS, kB on Linux
    result = {"memory/peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if accelerator == "cuda":
        result["memory/peak_gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return result
