"""One case from its members' probabilities: labels, how sure they are, and maps if asked for.

Slabs come and go; what stays is the decoded labels, a few sums, and maps in files of their own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from segshift.inference import Slab, entropy
from segshift.prediction.drafts import Drafts
from segshift.prediction.streams import Stream, aligned
from segshift.tasks import Task

LEAST_MASS = 1.0  # voxels: a structure that all members together hardly see has no overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedCase:
    """Decoded labels (D, H, W), and of each structure what its probabilities say of its quality.

    `entropy` is the mean over its voxels, from 0 to 1; `predicted_dice` the soft Dice between the
    members, two by two. Both are NaN where there is nothing to take a mean of.
    """

    labels: np.ndarray
    entropy: tuple[float, ...]
    predicted_dice: tuple[float, ...]


def is_exclusive(task: Task) -> bool:
    """Whether a voxel has one structure at most: a channel too many is the background's."""
    return task.channels > len(task.structures)


def predicted_case(streams: Sequence[Stream], task: Task, *, drafts: Drafts) -> PredictedCase:
    """Decode the mean of all members' probabilities, slab by slab.

    Probabilities and uncertainties go into those of the `drafts` that are open.
    """
    exclusive, count = is_exclusive(task), len(task.structures)
    members = [stream.members for stream in streams]
    weights = [each / sum(members) for each in members]
    labels = np.zeros(drafts.shape, np.min_scalar_type(count if exclusive else (1 << count) - 1))
    squares = torch.zeros(1 + len(streams), count, dtype=torch.float64)  # of the mean, and of each
    inside, entropies = np.zeros(count), np.zeros(count)
    for slabs in aligned([stream.slabs for stream in streams]):
        mean = _mean([slab.probability for slab in slabs], weights)
        decoded = task.decode(mean)
        place = slice(slabs[0].start, slabs[0].start + len(decoded))
        labels[place] = decoded
        doubt = entropy(mean, exclusive=exclusive)
        doubts = doubt.numpy()
        for number, mask in enumerate(task.predicted(decoded)):
            inside[number] += np.count_nonzero(mask)
            entropies[number] += doubts[mask].sum(dtype=np.float64)
        if sum(members) > 1:
            probabilities = [mean, *(slab.probability for slab in slabs)]
            squares += torch.stack([_squares(each[-count:]) for each in probabilities])
        drafts.put("probability", place, mean[-count:].numpy())
        drafts.put("entropy", place, doubts[None])
        if "disagreement" in drafts.open:
            # Mutual information between outcome and member: what more members could settle.
            expected = _mean([_members_doubt(slab, exclusive=exclusive) for slab in slabs], weights)
            drafts.put("disagreement", place, (doubt - expected).clamp_min(0)[None].numpy())
    with np.errstate(invalid="ignore"):
        means = entropies / inside
    spreads = torch.stack([stream.spread.ratio.expand(task.channels) for stream in streams])
    energy = (torch.tensor(weights)[:, None] * spreads[:, -count:] * squares[1:]).sum(0)
    return PredictedCase(
        labels=labels,
        entropy=tuple(means.tolist()),
        predicted_dice=pairwise_dice(squares[0], energy, members=sum(members)),
    )


def pairwise_dice(
    of_mean: torch.Tensor, of_members: torch.Tensor, *, members: int
) -> tuple[float, ...]:
    """Soft Dice of all pairs p, q of members together: sums of 2 <p, q> over <p, p> + <q, q>.

    Of <m, m> of their mean m and the mean of all <p, p>, both (K,): no pair need be held, as all
    <p, q> together are M^2 <m, m>. Roy et al. 2019 predict a case's Dice by the Dice between
    samples of a network. NaN with one member, and where all together hardly see anything.
    """
    if members == 1:
        return (math.nan,) * len(of_mean)
    dice = (members * of_mean / of_members.clamp_min(1e-12) - 1) / (members - 1)
    seen = members * of_members >= LEAST_MASS
    return tuple(torch.where(seen, dice.clamp(0, 1), torch.nan).tolist())


def _members_doubt(slab: Slab, *, exclusive: bool) -> torch.Tensor:
    """The mean entropy (d, H, W) of a stream's members; of one it is that of what it says."""
    return entropy(slab.probability, exclusive=exclusive) if slab.doubt is None else slab.doubt


def _mean(values: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
    if len(values) == 1:
        return values[0]
    mean = values[0] * weights[0]
    for value, weight in zip(values[1:], weights[1:], strict=True):
        mean.add_(value, alpha=weight)
    return mean


def _squares(values: torch.Tensor) -> torch.Tensor:
    """Sums of squares over all but the first dimension, float64."""
    return torch.stack(
        [torch.linalg.vector_norm(each, dtype=torch.float64) ** 2 for each in values]
    )
