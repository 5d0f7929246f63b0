"""The mean over networks and mirrors, and how much they differ.

Uncertainty is entropy, from 0 (certain) to 1 (all outcomes equally likely).
"""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from segshift.errors import InputError
from segshift.inference.norms import OnePassNorms


@dataclass(frozen=True, slots=True)
class Members:
    """Every network on every mirror image of a window, in evaluation mode."""

    networks: Sequence[nn.Module]
    activation: Callable[[torch.Tensor], torch.Tensor]
    flips: tuple[tuple[int, ...], ...]  # dimensions of (B, C, *S) that are turned round together
    exclusive: bool
    autocast: torch.dtype | None
    disagreement: bool

    @torch.inference_mode()
    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        """Mean probability (B, K, *S) of windows (B, C, *S), float32.

        With `disagreement` the members' mean entropy is one more channel.
        """
        total: torch.Tensor | None = None
        for said in self._each(windows):
            if self.disagreement:
                doubt = entropy(said, exclusive=self.exclusive, dim=1)
                said = torch.cat([said, doubt[:, None]], 1)
            total = said if total is None else total.add_(said)
        if total is None:
            raise InputError("no network to predict with: give at least one")
        members = len(self.networks) * len(self.flips)
        return total if members == 1 else total.div_(members)

    def _each(self, windows: torch.Tensor) -> Iterator[torch.Tensor]:
        kind, wanted = windows.device.type, self.autocast
        for network, flip in itertools.product(self.networks, self.flips):
            seen = windows.flip(flip) if flip else windows
            with contextlib.ExitStack() as around:
                if wanted is not None:  # otherwise that of the caller, if there is one
                    around.enter_context(torch.autocast(kind, wanted))
                if getattr(network, "_compiled_call_impl", None) is None:
                    around.enter_context(OnePassNorms())  # torch.compile has its own ways
                logits = network(seen)
            said = self.activation(logits.float())
            yield said.flip(flip) if flip else said


def mirror_flips(axes: Sequence[int], *, dimensions: int) -> tuple[tuple[int, ...], ...]:
    """For every set of `axes` (0 z, 1 y, 2 x) the dimensions of (B, C, *S) to flip.

    Raises InputError for an axis that the view does not have, and for one named twice.
    """
    known = range(3 - dimensions, 3)
    if len(set(axes)) < len(axes) or not set(axes) <= set(known):
        raise InputError(
            f"prediction.mirror={list(axes)}: each axis once, and for a {dimensions}D view "
            f"out of {list(known)} (0 is z, 1 is y, 2 is x)"
        )
    first = 2 - known[0]
    sets = [itertools.combinations(axes, size) for size in range(len(axes) + 1)]
    return tuple(tuple(first + axis for axis in some) for some in itertools.chain(*sets))


def entropy(probability: torch.Tensor, *, exclusive: bool, dim: int = 0) -> torch.Tensor:
    """Entropy over the channels `dim`, from 0 to 1, without that dimension.

    If channels are not exclusive, each is a yes or no of its own: the mean of their entropies.
    """
    if exclusive:
        total: torch.Tensor = torch.special.entr(probability).sum(dim)
        return total / math.log(probability.shape[dim])
    both: torch.Tensor = torch.special.entr(probability).add_(torch.special.entr(1 - probability))
    return both.mean(dim) / math.log(2)
