"""The LightningModule: network, task and loss, and nothing about files, data or configs."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from segshift.errors import TrainingDivergedError
from segshift.inference import predict_case
from segshift.losses import Scheduled
from segshift.plan import View, box_shape, box_slices
from segshift.tasks import Score, Task
from segshift.tasks.task import Loss

Augmentation = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]
]
FINITE_CHECK_STEPS = 10  # asking the device for a value stalls it, so not at every step


class SegmentationModule(L.LightningModule):
    """Train on patches, judge on whole cases. Monitored: `val/<metric>`, a mean over cases."""

    def __init__(
        self,
        *,
        network: nn.Module,
        task: Task,
        loss: Loss,
        augment: Augmentation,
        optimizer: Callable[..., Optimizer],
        schedule: Callable[[Optimizer], LRScheduler],
        schedule_interval: str,
        view: View,
        window_overlap: float,
        channels_last: bool,
    ) -> None:
        super().__init__()
        self.network, self.task, self.loss, self.augment = network, task, loss, augment
        self.optimizer, self.schedule = optimizer, schedule
        self.schedule_interval, self.view = schedule_interval, view
        self.window_overlap = window_overlap
        self.memory_format = _memory_format(view) if channels_last else torch.contiguous_format
        self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.selection = next(iter(task.directions))
        self._validated: list[Score] = []
        self._finite = torch.tensor(True)

    def configure_optimizers(self) -> dict[str, Any]:  # type: ignore[override]
        """The optimiser and its schedule, stepped by step or by epoch."""
        optimizer = self.optimizer(self.network.parameters())
        schedule = {"scheduler": self.schedule(optimizer), "interval": self.schedule_interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> torch.Tensor:
        """Loss of one augmented batch: `image` (B, C, *patch), `label` (B, 1, *patch)."""
        image, label = self.augment(batch["image"], batch["label"], batch["sample"])
        output = self.network(image.contiguous(memory_format=self.memory_format))
        loss = self.task.loss(self._loss_now(), output, {**batch, "label": label})
        self._finite = self._finite.to(loss.device) & loss.detach().isfinite()
        if (batch_idx + 1) % FINITE_CHECK_STEPS == 0:
            self.check_finite()
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=len(image))
        return loss

    def _loss_now(self) -> Loss:
        """The loss as its schedule has it at this step, which a resumed run counts on from."""
        if not isinstance(self.loss, Scheduled):
            return self.loss
        return self.loss.at(self.global_step / max(self.trainer.estimated_stepping_batches - 1, 1))

    def check_finite(self) -> None:
        """Raise TrainingDivergedError if any loss since the last check was NaN or infinite."""
        finite, self._finite = bool(self._finite), torch.tensor(True)
        if not finite:
            raise TrainingDivergedError(
                f"the loss became NaN or infinite by step {self.global_step}; lower "
                "optim.optimizer.lr, or set trainer.precision=32-true to rule out overflow"
            )

    def on_validation_start(self) -> None:
        """No checkpoint of an epoch is written before its losses and weights were looked at."""
        for parameter in self.network.parameters():
            self._finite = self._finite.to(parameter.device) & parameter.isfinite().all()
        self.check_finite()

    def predict(self, item: Mapping[str, Any]) -> np.ndarray:
        """Decoded prediction (D, H, W) on the case's own grid for one evaluation item."""
        activated = predict_case(
            self.network,
            item["image"],
            self.view,
            activation=self.task.activation,
            overlap=self.window_overlap,
        )
        whole, shape = tuple(item["label"].shape[1:]), box_shape(item["box"])
        if activated.shape[1:] != shape:
            activated = functional.interpolate(activated[None], size=shape, mode="trilinear")[0]
        decoded = self.task.decode(activated)
        if shape == whole:
            return decoded
        prediction = np.zeros(whole, decoded.dtype)  # nothing is in what was cropped off
        prediction[box_slices(item["box"])] = decoded
        return prediction

    def scores(self, item: Mapping[str, Any], prediction: np.ndarray) -> list[Score]:
        """Every score of one case."""
        reference = item["label"][0].cpu().numpy()
        annotated = item["annotated"]
        return list(self.task.scores(prediction, reference, item["spacing"], annotated=annotated))

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Score one whole validation case."""
        if batch["counted"]:
            self._validated += self.scores(batch, self.predict(batch))

    def on_validation_epoch_end(self) -> None:
        """Log means over all ranks' cases, structures first, as every table does."""
        scores = [score for part in gathered(self._validated) for score in part]
        self._validated.clear()
        for metric in self.task.directions:
            value = mean_of_structure_means(scores, metric)
            self.log(f"val/{metric}", value, batch_size=1)

    def test_step(
        self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Any] | None:
        """Prediction and scores of one whole case; callbacks write them down."""
        if not batch["counted"]:
            return None
        prediction = self.predict(batch)
        return {"prediction": prediction, "scores": self.scores(batch, prediction)}


def mean_of_structure_means(scores: Iterable[Score], metric: str) -> float:
    """The tables' mean, of one metric's defined scores; NaN if not one is defined."""
    values = defaultdict(list)
    for score in scores:
        if score.metric == metric and not math.isnan(score.value):
            values[score.structure].append(score.value)
    return float(np.mean([np.mean(v) for v in values.values()])) if values else math.nan


def gathered(value: Any) -> list[Any]:  # noqa: ANN401
    """`value` of every rank, in rank order; of this process alone when there is one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, value)
    return parts


def _memory_format(view: View) -> torch.memory_format:
    return torch.channels_last if view.dimensions == 2 else torch.channels_last_3d
