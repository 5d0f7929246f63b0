"""The networks that predict together, and their probabilities slab by slab on a case's own grid.

Members are every network in every mirrored position. Those whose plans prepare an
image alike run in one pass, as one network with all their channels; others are joined slab by slab.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from segshift import build
from segshift.data.preprocessing import preprocessed_image
from segshift.errors import InputError
from segshift.inference import PredictionOptions, Slab, predict_slabs
from segshift.inference.members import mirror_flips
from segshift.plan import Plan
from segshift.prediction.case import is_exclusive
from segshift.tasks import Task


class Members(nn.Module):
    """Several networks on the same windows, each in every position of `mirrors`, as one network.

    Logits (B, C, *patch) of all members lie one after the other in the channels: (B, M C, *patch).
    """

    def __init__(self, networks: Sequence[nn.Module], mirrors: Sequence[tuple[int, ...]]) -> None:
        super().__init__()
        self.networks, self.mirrors = nn.ModuleList(networks), tuple(mirrors)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits of every member for windows (B, C, *patch)."""
        logits = [
            network(image.flip(axes)).flip(axes) if axes else network(image)
            for network in self.networks
            for axes in self.mirrors
        ]
        return torch.cat(logits, dim=1)

    def __len__(self) -> int:
        """How many members there are."""
        return len(self.networks) * len(self.mirrors)


@dataclass(frozen=True, slots=True)
class Group:
    """Members that see an image in the same way: all but the weights of `plan` is the same."""

    members: Members
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
        return sum(len(group.members) for group in self.groups)

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
        sight = (plan.view, plan.spacing_mm, plan.normalisation, plan.interpolation, plan.crop)
        together.setdefault(sight, []).append(run.module.network.to(device).eval())
        plans.setdefault(sight, plan)
    chosen = replace(first.module.prediction, **options)
    groups = tuple(
        Group(Members(networks, mirror_flips(chosen.mirror, dimensions=sight[0].dimensions)), plan)
        for (sight, networks), plan in zip(together.items(), plans.values(), strict=True)
    )
    learned = [set(run.config.augment.get("mirror_axes", ())) for run in runs]
    unlearned = tuple(axis for axis in chosen.mirror if not all(axis in axes for axes in learned))
    return Ensemble(groups, first.module.task, device, chosen, unlearned)


def member_slabs(
    ensemble: Ensemble,
    image: np.ndarray,
    spacing_mm: Sequence[float],
    *,
    autocast: torch.dtype | None = None,
) -> Iterator[tuple[int, torch.Tensor]]:
    """First slice and probabilities (M, K, d, H, W) of every slab, in order of z, on the own grid.

    The image is (C, D, H, W) as it was read; K are the task's channels.
    """
    streams, options = [], ensemble.options
    for group in ensemble.groups:
        prepared, box = preprocessed_image(image, group.plan, spacing_mm=spacing_mm)
        slabs = predict_slabs(
            [group.members],
            torch.from_numpy(prepared).to(ensemble.device),
            group.plan.view,
            activation=_each(ensemble.task.activation, len(group.members)),
            shape=image.shape[1:],
            box=box,
            exclusive=False,  # the channels of several members: _split fills in the background
            overlap=options.overlap,
            budget_gb=options.budget_gb / len(ensemble.groups),
            window_batch=options.window_batch,
            autocast=autocast,
        )
        streams.append(_split(slabs, len(group.members), exclusive=is_exclusive(ensemble.task)))
    return streams[0] if len(streams) == 1 else aligned(streams)


def aligned(
    streams: Sequence[Iterator[tuple[int, torch.Tensor]]],
) -> Iterator[tuple[int, torch.Tensor]]:
    """Slabs (M, K, d, H, W) of streams that are cut differently, cut alike and joined along M."""
    heads = [next(stream) for stream in streams]
    start = 0
    while True:
        ends = [first + part.shape[2] for first, part in heads]
        end = min(ends)
        cut = [part[:, :, start - first : end - first] for first, part in heads]
        yield start, torch.cat(cut)
        start = end
        try:
            heads = [
                next(stream) if stop == end else head
                for stream, head, stop in zip(streams, heads, ends, strict=True)
            ]
        except StopIteration:
            assert all(stop == end for stop in ends), "all streams tile the same grid"
            return


def _split(
    slabs: Iterable[Slab], members: int, *, exclusive: bool
) -> Iterator[tuple[int, torch.Tensor]]:
    """The channels of members that ran as one network: (M, K, d, H, W)."""
    for slab in slabs:
        parts = torch.stack(slab.probability.chunk(members))
        if exclusive:  # outside its box, where nothing is, a member is sure of the background
            parts[:, 0].masked_fill_(parts.sum(dim=1) == 0, 1)
        yield slab.start, parts


def _each(
    activation: Callable[[torch.Tensor], torch.Tensor], members: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The task's activation for every member's channels by themselves."""

    def activated(logits: torch.Tensor) -> torch.Tensor:
        return torch.cat([activation(part) for part in logits.chunk(members, dim=1)], dim=1)

    return activated
