"""What is written while a run goes on: rows, reliability, slices, checkpoints, lines."""

import csv
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.nn import functional

from segshift.losses import IGNORE
from segshift.metrics import SelectionScore
from segshift.metrics.reliability import Reliability, ReliabilityBin
from segshift.module import gathered
from segshift.plan import UNSCALED, Scaled, box_shape, box_slices
from segshift.results import Row, add_scales, append_rows, rows_of, write_rows
from segshift.results.names import file_name, slice_folder
from segshift.splits import SetKey
from segshift.tasks import Task
from segshift.units import Grid

Place = tuple[SetKey, str, str]  # set, site, structure
SHIFTED_SLICES = 1  # of each set under a shift, of which there may be fifty
MONITORED = f"val/{SelectionScore.name}"
SHOWN = 2  # metrics in an epoch's line, the one that chooses first; metrics.csv has all


class WriteCases(Callback):
    """Every tested case as soon as it is scored: its rows, and one slice for the report.

    Once all ranks are done rank 0 sorts `rows.csv`, writes `reliability.csv`, adds found scales.
    """

    def __init__(self, folder: Path, *, run: str, sets: Sequence[SetKey], task: Task) -> None:
        self.folder, self.run, self.sets, self.task = folder, run, tuple(sets), task
        self.rows: list[Row] = []
        self.reliability: dict[Place, Reliability] = {}
        self.scales: dict[tuple[str, str], Scaled] = {}  # of images as they were acquired

    def on_test_batch_end(  # type: ignore[override]
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Mapping[str, Any] | None,
        batch: Mapping[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append one case; a rank without cases of its own has none."""
        if outputs is None:
            return
        key = self.sets[dataloader_idx]
        names = {name: batch[name] for name in ("case", "patient", "site")}
        who = {"run": self.run, **key._asdict(), **names}
        new = rows_of(who, outputs["scores"])
        new += rows_of(who, outputs["postprocessed"], postprocessed=True)
        for rater, scores in outputs["raters"].items():
            new += rows_of(who, scores, rater=rater)
        append_rows(self._path(trainer.global_rank), new)
        self.rows += new
        of_case = {
            (key, batch["site"], name): tally.reliability
            for name, tally in outputs["tallies"].items()
        }
        self.reliability = merged([self.reliability, of_case])
        if not key.corruption:
            self.scales[key.set, batch["case"]] = outputs["scaled"]
        if key.corruption and batch_idx >= SHIFTED_SLICES:
            return
        path = slice_folder(self.folder, *key) / f"{file_name(batch['case'])}.npz"
        write_slice(path, batch, outputs["prediction"], task=self.task)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Gather, and let rank 0 write all rows; a case scored twice is an error there."""
        parts = gathered((self.rows, self.reliability, self.scales))
        if trainer.is_global_zero:
            write_rows(self._path(0), [row for rows, *_ in parts for row in rows])
            tallies = merged(reliability for _, reliability, _ in parts)
            write_reliability(self.folder / "reliability.csv", tallies)
            scales = {key: scaled for *_, own in parts for key, scaled in own.items()}
            if any(scaled != UNSCALED for scaled in scales.values()):
                add_scales(self.folder / "cases.csv", scales)
        else:
            self._path(trainer.global_rank).unlink(missing_ok=True)

    def _path(self, rank: int) -> Path:
        return self.folder / ("rows.csv" if rank == 0 else f"rows.rank{rank}.csv")


def merged(parts: Iterable[Mapping[Place, Reliability]]) -> dict[Place, Reliability]:
    """The tallies of all parts, place by place."""
    whole: dict[Place, Reliability] = {}
    for part in parts:
        for place, tally in part.items():
            whole[place] = whole[place].merged(tally) if place in whole else tally
    return whole


def write_reliability(path: Path, tallies: Mapping[Place, Reliability]) -> None:
    """A line per set, site, structure and bin; `nan` is the confidence of a bin without voxels."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*SetKey._fields, "site", "structure", *ReliabilityBin._fields])
        for (key, site, structure), tally in sorted(tallies.items()):
            writer.writerows([*key, site, structure, *line] for line in tally.table())


def write_slice(path: Path, item: Mapping[str, Any], prediction: np.ndarray, *, task: Task) -> None:
    """Image (H, W), masks of reference and prediction (structures, H, W) of a telling slice.

    If most is wrong in another slice, that one too, under names that begin with `wrong_`.
    """
    reference = item["label"][0].cpu().numpy()
    telling = _telling_slice(task, reference, prediction)
    known = task.known(item["annotated"])
    slices = {"": telling}
    wrong = _most_wrong_slice(task, reference, prediction, known=known)
    if wrong is not None and wrong != telling:
        slices["wrong_"] = wrong
    image = item["image"][:1].float()
    # Rows of a volume run towards the patient's front, which belongs at the top of a picture.
    up = slice(None, None, -1) if len(reference) > 1 else slice(None)
    edges = Grid(reference.shape, item["spacing"]).edges[1:]
    arrays: dict[str, Any] = {"case": item["case"], "spacing_mm": np.array(edges)}
    for prefix, z in slices.items():
        plane = _plane(image, item["box"], z, reference.shape[1:])
        arrays[f"{prefix}image"] = plane.cpu().numpy()[up]
        arrays[f"{prefix}reference"] = np.stack([*task.referred(reference[z][up])])
        arrays[f"{prefix}prediction"] = np.stack([*task.predicted(prediction[z][up])])
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **arrays)


def _telling_slice(task: Task, reference: np.ndarray, prediction: np.ndarray) -> int:
    """Where most of the reference is, a small structure counting as much as a large one.

    Not where most was predicted: there a missed lesion would be on no picture.
    """
    for masks in (task.referred(reference), task.predicted(prediction)):
        areas = [mask.sum(axis=(1, 2)) for mask in masks]
        shares = [area / area.sum() for area in areas if area.any()]
        if shares:
            return int(np.argmax(np.sum(shares, axis=0)))
    return len(reference) // 2


def _most_wrong_slice(
    task: Task, reference: np.ndarray, prediction: np.ndarray, *, known: Sequence[bool]
) -> int | None:
    """Where most of what is wrong is, of each known structure as a share of all that it has."""
    shares = np.zeros(len(reference))
    decided = reference != IGNORE
    masks = zip(task.referred(reference), task.predicted(prediction), known, strict=True)
    for referred, predicted, is_known in masks:
        if is_known:
            wrong = (referred ^ predicted) & decided
            shares += wrong.sum(axis=(1, 2)) / max(referred.sum() + predicted.sum(), 1)
    return int(np.argmax(shares)) if shares.any() else None


def _plane(
    image: torch.Tensor, box: Sequence[Sequence[int]], z: int, size: Sequence[int]
) -> torch.Tensor:
    """(H, W) of `size` at slice z of the case's own grid; dark where the case was cropped off."""
    (low, high), *inside = box
    plane = torch.full(tuple(size), float(image.min()), device=image.device)
    if low <= z < high:
        depth = image.shape[1]
        seen = image[:, min((z - low) * depth // (high - low), depth - 1)]
        seen = functional.interpolate(seen[None], size=box_shape(inside), mode="bilinear")
        plane[box_slices(inside)] = seen[0, 0]
    return plane


class Checkpoints(ModelCheckpoint):
    """`best.ckpt` by the selection score of the source validation cases alone, and `last.ckpt`.

    The newest is there whatever ends the run.

    Both hold state dicts and a plain `description` (resolved config, plan), nothing pickled, so
    that they load with `weights_only=True` and without the YAML files.
    """

    def __init__(self, folder: Path, *, description: dict[str, Any]) -> None:
        super().__init__(
            dirpath=folder,
            filename="best",
            monitor=MONITORED,
            mode="max",
            save_last=False,  # Lightning's `last` is the last *improvement*; see below
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

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The newest epoch, whether it was better or not."""
        super().on_train_epoch_end(trainer, pl_module)
        trainer.save_checkpoint(self.last)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Ctrl-C keeps the weights of this moment; after any other end the last good ones stay."""
        if not isinstance(exception, KeyboardInterrupt):
            return
        good = all(bool(p.isfinite().all()) for p in pl_module.parameters())
        if trainer.state.fn == "fit" and good:
            # Not trainer.save_checkpoint: its barrier would wait for ranks stopped elsewhere.
            content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
            trainer.strategy.save_checkpoint(content, self.last)
        if trainer.is_global_zero:
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
            for name in ("train/loss", *[n for n in metrics if n.startswith("val/")][:SHOWN])
            if name in metrics
        )
        print(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {trainer.global_step}  "
            f"{values}  {time.monotonic() - self.start:.0f} s",
            flush=True,
        )


class Timer(Callback):
    """Seconds of training, of testing, and of a training step (median over epochs)."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = self._epoch_start = 0.0
        self._steps: list[float] = []  # of each epoch, the mean

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Start the stage's clock."""
        self._start = time.monotonic()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop it."""
        name = {"fit": "train", "test": "test"}[stage]
        self.seconds[f"time/{name}_s"] = time.monotonic() - self._start
        if self._steps:
            self.seconds["time/step_s"] = statistics.median(self._steps)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the epoch's steps, once the device has nothing left to do."""
        self._epoch_start = _clock(pl_module)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,  # noqa: ANN401
        batch: Any,  # noqa: ANN401
        batch_idx: int,
    ) -> None:
        """Stop it after the last step, before the validation; reading batches counts."""
        if trainer.is_last_batch:
            took = _clock(pl_module) - self._epoch_start
            self._steps.append(took / int(trainer.num_training_batches))


def _clock(module: L.LightningModule) -> float:
    """Now, when all that was asked of a GPU is done: it works on while Python goes ahead."""
    if module.device.type == "cuda":
        torch.cuda.synchronize(module.device)
    return time.monotonic()
