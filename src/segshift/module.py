"""The LightningModule: network, task and loss, and nothing about files, data or configs."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from segshift.errors import TrainingDivergedError
from segshift.inference import PredictionOptions, Slab, entropy, predict_slabs
from segshift.inference.scaling import predicted_object_px
from segshift.losses import IGNORE, Scheduled
from segshift.metrics import SelectionScore
from segshift.metrics.reliability import Reliability
from segshift.metrics.uncertainty import ErrorDetection
from segshift.plan import UNSCALED, Scaled, View
from segshift.postprocessing import Effect, JudgedCase, Rules, effects, postprocessed
from segshift.tasks import Score, Tally, Task, rater_scores
from segshift.tasks.task import Loss, scored

Augmentation = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]
]
FINITE_CHECK_STEPS = 10  # asking the device for a value stalls it, so not at every step
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True, slots=True)
class Prediction:
    """Decoded labels (D, H, W) on the case's own grid, the scale, and tallies if asked for."""

    labels: np.ndarray
    tallies: tuple[Tally, ...] = ()
    scaled: Scaled = UNSCALED


class SegmentationModule(L.LightningModule):
    """Train on patches, judge on whole cases.

    Monitored is `val/selection_score`, which is of every validation case whatever is predicted.
    """

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
        prediction: PredictionOptions,
        precision: str,
    ) -> None:
        super().__init__()
        self.network, self.task, self.loss, self.augment = network, task, loss, augment
        self.optimizer, self.schedule = optimizer, schedule
        self.schedule_interval, self.view = schedule_interval, view
        self.prediction, self.autocast = prediction, AUTOCAST.get(precision)
        plain = precision == "32-true"
        self.memory_format = torch.contiguous_format if plain else _memory_format(view)
        self.network.to(memory_format=self.memory_format)  # type: ignore[call-overload]
        self.rules: Rules = {}  # of post-processing; none until they are chosen
        self._validated: list[tuple[str, Score]] = []  # each with its patient
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

    def slabs(self, item: Mapping[str, Any]) -> Iterator[Slab]:
        """Probabilities of one evaluation item, slab after slab on the case's own grid."""
        return predict_slabs(
            [self.network],
            item["image"],
            self.view,
            activation=self.task.activation,
            shape=item["shape"],
            box=item["box"],
            exclusive=self.exclusive,
            overlap=self.prediction.overlap,
            mirror_axes=self.prediction.mirror,
            budget_gb=self.prediction.budget_gb,
            window_batch=self.prediction.window_batch,
            autocast=self.autocast,
        )

    @property
    def exclusive(self) -> bool:
        """Whether channels exclude each other: then there is one more, for the background."""
        return self.task.channels > len(self.task.structures)

    def at_found_scale(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """The item at the scale that the network's own first prediction of it asks for.

        The same item where that is not how scales are found. The label is not looked at.
        """
        look, task = item.get("second_look"), self.task
        if look is None:
            return item
        size_px = predicted_object_px(self.slabs(item), lambda p: task.predicted(task.decode(p)))
        image, scaled = look(size_px)
        seen = torch.from_numpy(image).to(item["image"].device)
        return {**item, "image": seen, "scaled": scaled, "second_look": None}

    def predict(self, item: Mapping[str, Any], *, tallied: bool = False) -> Prediction:
        """Decode one evaluation item; tallies compare its probabilities with its `label`."""
        item = self.at_found_scale(item)
        tallies = tuple(Tally(Reliability(), ErrorDetection()) for _ in self.task.structures)
        labels: np.ndarray | None = None
        for slab in self.slabs(item):
            decoded = self.task.decode(slab.probability)
            if labels is None:
                labels = np.zeros(tuple(item["shape"]), decoded.dtype)
            place = slice(slab.start, slab.start + len(decoded))
            labels[place] = decoded
            if tallied:
                self._tally(tallies, slab, decoded, item["label"][0, place].cpu().numpy())
        assert labels is not None
        return Prediction(labels, tallies if tallied else (), item.get("scaled", UNSCALED))

    def _tally(
        self, tallies: Iterable[Tally], slab: Slab, decoded: np.ndarray, reference: np.ndarray
    ) -> None:
        """Add a slab's voxels; those that nobody decided on count nowhere."""
        counted = reference != IGNORE
        doubt = entropy(slab.probability, exclusive=self.exclusive).clamp_min_(0).numpy()[counted]
        probabilities = slab.probability[1:] if self.exclusive else slab.probability
        masks = self.task.predicted(decoded), self.task.referred(reference)
        for tally, probability, predicted, referred in zip(
            tallies, probabilities, *masks, strict=True
        ):
            truth = referred[counted]
            tally.reliability.add(probability.numpy()[counted], truth)
            tally.detection.add(doubt, predicted[counted] != truth)

    def effects(self, item: Mapping[str, Any]) -> list[Effect | None]:
        """What every candidate of a post-processing would do to one validation case."""
        reference = item["label"][0].cpu().numpy()
        masks = zip(self.task.referred(reference), self.task.known(item["annotated"]), strict=True)
        case = JudgedCase(
            patient=item["patient"],
            labels=self.predict(item).labels,
            references=[mask if known else None for mask, known in masks],
            counted=reference != IGNORE,
            spacing_mm=item["spacing"],
        )
        return effects(case, exclusive=self.exclusive)

    def scores(self, item: Mapping[str, Any], prediction: np.ndarray) -> list[Score]:
        """Every score of one case."""
        reference = item["label"][0].cpu().numpy()
        annotated = item["annotated"]
        return list(self.task.scores(prediction, reference, item["spacing"], annotated=annotated))

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int) -> None:
        """Score one whole validation case."""
        if not batch["counted"]:
            return
        labels = self.predict(batch).labels
        chosen_by = scored(
            self.task,
            [SelectionScore()],
            labels,
            batch["label"][0].cpu().numpy(),
            batch["spacing"],
            annotated=self.task.known(batch["annotated"]),
        )
        every = (*chosen_by, *self.scores(batch, labels))
        self._validated += [(batch["patient"], score) for score in every]

    def on_validation_epoch_end(self) -> None:
        """Log means over all ranks' patients, then structures, as every table does."""
        scores = [score for part in gathered(self._validated) for score in part]
        self._validated.clear()
        measured = dict.fromkeys((SelectionScore.name, *(score.metric for _, score in scores)))
        for metric in measured:
            self.log(f"val/{metric}", mean_of_structure_means(scores, metric), batch_size=1)

    def test_step(
        self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Any] | None:
        """One whole case, which callbacks write down.

        `prediction` are its labels, `scores` those of the network as it is, `postprocessed` those
        after the rules (empty without rules), `raters` those of other people's masks by rater, and
        `tallies` those by structure. `scaled` is the scale that the case was predicted at.
        """
        if not batch["counted"]:
            return None
        prediction = self.predict(batch, tallied=True)
        scores = self.scores(batch, prediction.labels)
        empty = {score.structure: score.reference_empty for score in scores}
        tallies = dict(zip(self.task.structures, prediction.tallies, strict=True))
        tallies = {name: tally for name, tally in tallies.items() if name in empty}
        after = self._postprocessed(batch, prediction.labels, scores)
        for name, tally in tallies.items():
            scores += tally.scores(name, reference_empty=empty[name])
        return {
            "prediction": prediction.labels,
            "scores": scores,
            "postprocessed": after,
            "raters": self._rater_scores(batch),
            "tallies": tallies,
            "scaled": prediction.scaled,
        }

    def _rater_scores(self, item: Mapping[str, Any]) -> dict[str, list[Score]]:
        drawn = {name: mask.numpy() for name, mask in item["raters"].items()}
        reference = item["label"][0].cpu().numpy()
        return rater_scores(
            self.task, drawn, reference, item["spacing"], annotation=item["annotation"]
        )

    def _postprocessed(
        self, item: Mapping[str, Any], labels: np.ndarray, scores: list[Score]
    ) -> list[Score]:
        """Scores after the rules; those from before where the rules change nothing."""
        if not any(self.rules.values()):
            return []
        after = postprocessed(
            labels,
            self.rules,
            item["spacing"],
            structures=self.task.structures,
            exclusive=self.exclusive,
        )
        return list(scores) if np.array_equal(after, labels) else self.scores(item, after)


def mean_of_structure_means(scores: Iterable[tuple[str, Score]], metric: str) -> float:
    """The tables' mean of one metric, of scores with their patients; NaN if not one is defined.

    Over the cases of a patient, then patients, then structures.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for patient, score in scores:
        if score.metric == metric and not math.isnan(score.value):
            values[score.structure][patient].append(score.value)
    of_structures = [np.mean([np.mean(v) for v in own.values()]) for own in values.values()]
    return float(np.mean(of_structures)) if of_structures else math.nan


def gathered(value: Any) -> list[Any]:  # noqa: ANN401
    """`value` of every rank, in rank order; of this process alone when there is one."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, value)
    return parts


def _memory_format(view: View) -> torch.memory_format:
    return torch.channels_last if view.dimensions == 2 else torch.channels_last_3d
