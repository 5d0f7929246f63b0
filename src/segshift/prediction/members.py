"""The networks that predict together, and their probabilities slab by slab on a case's own grid.

Members are every network in every mirrored position. Those whose plans prepare an image alike go
through its windows together; others have a stream of slabs of their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segshift import build
from segshift.data.preprocessing import preprocessed_image
from segshift.errors import InputError
from segshift.inference import PredictionOptions, Slab, Spread, changed, predict_slabs
from segshift.inference.members import mirror_flips
from segshift.inference.scaling import predicted_object_px
from segshift.plan import Plan, Scaled, first_scaled, scaled_by_prediction
from segshift.prediction.case import is_exclusive
from segshift.prediction.streams import Stream
from segshift.tasks import Task


@dataclass(frozen=True, slots=True)
class Group:
    """Networks that see an image in the same way: all but the weights of `plan` is the same."""

    networks: tuple[nn.Module, ...]
    plan: Plan


@dataclass(frozen=True, slots=True)
class Ensemble:
    """All members of all checkpoints, and the one task that they solve."""

    groups: tuple[Group, ...]
    task: Task
    device: torch.device
    options: PredictionOptions
    unlearned: tuple[int, ...]  # axes of mirrors that some network was not trained with

    def __len__(self) -> int:
        """How many members there are."""
        return sum(self.members(group) for group in self.groups)

    def members(self, group: Group) -> int:
        """How many members a group has: each network once for every mirror image."""
        return len(group.networks) << len(self.options.mirror)

    @property
    def plan(self) -> Plan:
        """The first run's, for what all plans have in common: channels and structures."""
        return self.groups[0].plan


def load_ensemble(
    checkpoints: Sequence[Path],
    *,
    options: Mapping[str, Any],
    precision: str,
    device: torch.device,
) -> Ensemble:
    """Networks ready to predict, as the first run predicts but for what `options` say.

    Raises InputError for runs of different tasks or channels, and for mirrors that a view lacks.
    """
    runs = [build.load(path, precision=precision) for path in checkpoints]
    first = runs[0]
    together: dict[Any, list[nn.Module]] = {}
    plans: dict[Any, Plan] = {}
    for path, run in zip(checkpoints, runs, strict=True):
        mine, theirs = run.module.task, first.module.task
        same = (tuple(mine.structures), mine.channels, run.plan.channels)
        wanted = (tuple(theirs.structures), theirs.channels, first.plan.channels)
        if same != wanted:
            raise InputError(
                f"{path} segments {list(mine.structures)} from {run.plan.channels} channel(s), "
                f"{checkpoints[0]} {list(theirs.structures)} from {first.plan.channels}; an "
                "ensemble is of runs of one task on the same channels"
            )
        plan = run.plan
        sight = (
            plan.view, plan.spacing_mm, plan.spacing_known, plan.normalisation, plan.interpolation,
            plan.crop, plan.scale,
        )  # fmt: skip
        together.setdefault(sight, []).append(run.module.network.to(device).eval())
        plans.setdefault(sight, plan)
    chosen = changed(first.module.prediction, options)
    for plan in plans.values():
        mirror_flips(chosen.mirror, dimensions=plan.view.dimensions)  # refuses what a view lacks
    groups = tuple(Group(tuple(networks), plans[sight]) for sight, networks in together.items())
    learned = [set(run.config.augment.get("mirror_axes", ())) for run in runs]
    unlearned = tuple(axis for axis in chosen.mirror if not all(axis in axes for axes in learned))
    return Ensemble(groups, first.module.task, device, chosen, unlearned)


def streams_of(
    ensemble: Ensemble,
    image: np.ndarray,
    spacing_mm: Sequence[float] | None,
    *,
    doubts: bool,
    autocast: torch.dtype | None = None,
) -> list[Stream]:
    """A stream of slabs (K, d, H, W) in order of z, on the image's own grid, for every group.

    The image is (C, D, H, W) as it was read; K are the task's channels. With `doubts` slabs of
    several members have the mean of their entropies. A group whose plan has it so finds the case's
    scale in a first prediction of its own, which is made here.
    """
    return [
        _stream(ensemble, group, image, spacing_mm, doubts=doubts, autocast=autocast)
        for group in ensemble.groups
    ]


def _stream(
    ensemble: Ensemble,
    group: Group,
    image: np.ndarray,
    spacing_mm: Sequence[float] | None,
    *,
    doubts: bool,
    autocast: torch.dtype | None,
) -> Stream:
    plan, task, options = group.plan, ensemble.task, ensemble.options
    members = ensemble.members(group)

    def slabs(scaled: Scaled, **wanted: Any) -> Iterator[Slab]:  # noqa: ANN401
        seen, box = preprocessed_image(image, plan, spacing_mm=spacing_mm, scaled=scaled)
        return predict_slabs(
            group.networks,
            torch.from_numpy(seen).to(ensemble.device),
            plan.view,
            activation=task.activation,
            shape=image.shape[1:],
            box=box,
            exclusive=is_exclusive(task),
            overlap=options.overlap,
            mirror_axes=options.mirror,
            budget_gb=options.budget_gb / len(ensemble.groups),
            window_batch=options.window_batch,
            autocast=autocast,
            **wanted,
        )

    scaled = first_scaled(image, plan.scale)
    if plan.object_scale:
        size_px = predicted_object_px(slabs(scaled), lambda p: task.predicted(task.decode(p)))
        scaled = scaled_by_prediction(size_px, plan.object_scale)
    spread = Spread()
    several = {"doubts": doubts, "spread": spread} if members > 1 else {}
    return Stream(slabs(scaled, **several), members, spread, scaled)
