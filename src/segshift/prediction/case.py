"""One case from its members' probabilities: labels, how sure they are, and maps if asked for.

Slabs come and go; what stays is the decoded labels, a few sums, and maps in files of their own.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from segshift.inference import entropy
from segshift.prediction.drafts import Drafts
from segshift.tasks import Task

LEAST_MASS = 1.0  # voxels: a structure that all members together hardly see has no overlap


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedCase:
    """Decoded labels (D, H, W), and of each structure what its probabilities say of its quality.

    `entropy` is the mean over its voxels, from 0 to 1; `predicted_dice` the mean soft Dice
    between the members, two by two. Both are NaN where there is nothing to take a mean of.
    """

    labels: np.ndarray
    entropy: tuple[float, ...]
    predicted_dice: tuple[float, ...]


def is_exclusive(task: Task) -> bool:
    """Whether a voxel has one structure at most: a channel too many is the background's."""
    return task.channels > len(task.structures)


def predicted_case(
    slabs: Iterable[tuple[int, torch.Tensor]], task: Task, *, drafts: Drafts
) -> PredictedCase:
    """Decode the mean of the members' probabilities (M, K, d, H, W), slab by slab.

    Probabilities and uncertainties go into those of the `drafts` that are open.
    """
    exclusive, count = is_exclusive(task), len(task.structures)
    labels = np.zeros(drafts.shape, np.min_scalar_type(count if exclusive else (1 << count) - 1))
    overlap: torch.Tensor | float = 0.0  # (K, M, M): sums of products of two members
    inside, entropies = np.zeros(count), np.zeros(count)
    for start, members in slabs:
        mean = members.mean(dim=0)
        decoded = task.decode(mean)
        place = slice(start, start + len(decoded))
        labels[place] = decoded
        doubt = entropy(mean, exclusive=exclusive)
        doubts = doubt.numpy()
        for number, mask in enumerate(task.predicted(decoded)):
            inside[number] += np.count_nonzero(mask)
            entropies[number] += doubts[mask].sum(dtype=np.float64)
        structures = members[:, -count:]
        if len(members) > 1:
            flat = structures.flatten(2).transpose(0, 1)  # (K, M, voxels)
            overlap = overlap + (flat @ flat.transpose(1, 2)).double()
        drafts.put("probability", place, mean[-count:].numpy())
        drafts.put("entropy", place, doubts[None])
        if "disagreement" in drafts.open:
            # Mutual information between outcome and member: what more members could settle.
            expected = entropy(members, exclusive=exclusive, dim=1).mean(dim=0)
            drafts.put("disagreement", place, (doubt - expected).clamp_min(0)[None].numpy())
    with np.errstate(invalid="ignore"):
        means = entropies / inside
    return PredictedCase(
        labels=labels,
        entropy=tuple(means.tolist()),
        predicted_dice=pairwise_dice(overlap) if isinstance(overlap, torch.Tensor)
        else (math.nan,) * count,
    )  # fmt: skip


def pairwise_dice(overlap: torch.Tensor) -> tuple[float, ...]:
    """Mean soft Dice 2 <p, q> / (<p, p> + <q, q>) over pairs, of sums of products (K, M, M).

    Roy et al. 2019 predict a case's Dice by the Dice between samples of a network.
    """
    own = overlap.diagonal(dim1=1, dim2=2)
    both = own[:, :, None] + own[:, None, :]
    first, second = torch.triu_indices(overlap.shape[1], overlap.shape[1], offset=1)
    pairs = (2 * overlap / both.clamp_min(1e-12))[:, first, second].mean(dim=1)
    seen = own.sum(dim=1) >= LEAST_MASS
    return tuple(torch.where(seen, pairs, torch.nan).tolist())
