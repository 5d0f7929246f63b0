"""What networks and mirrors say of a window: the mean, and how much they differ.

Of several members only sums are held. Uncertainty is entropy, from 0 (certain) to 1 (all outcomes
equally likely).
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
class Said:
    """Means over all members, float32, for windows (B, C, *S); slices are windows one deep."""

    probability: torch.Tensor  # (B, K, d, h, w); with `doubts` one channel more, of their entropy
    square: torch.Tensor | None  # (B, K, d, h, w), of the probability


@dataclass(frozen=True, slots=True)
class Members:
    """Every network on every mirror image of a window, in evaluation mode."""

    networks: Sequence[nn.Module]
    activation: Callable[[torch.Tensor], torch.Tensor]
    flips: tuple[tuple[int, ...], ...]  # dimensions of (B, C, *S) that are turned round together
    exclusive: bool
    autocast: torch.dtype | None
    doubts: bool  # whether the entropy of each member by itself is asked for
    squares: bool

    @torch.inference_mode()
    def __call__(self, windows: torch.Tensor) -> Said:
        """What all members say of windows (B, C, *S) on average."""
        mean: torch.Tensor | None = None
        square: torch.Tensor | None = None
        doubt: torch.Tensor | None = None
        for said in self._each(windows):
            if self.doubts:
                own = entropy(said, exclusive=self.exclusive, dim=1).unsqueeze(1)
                doubt = own if doubt is None else doubt.add_(own)
            if self.squares:
                square = said.square() if square is None else square.addcmul_(said, said)
            mean = said if mean is None else mean.add_(said)
        if mean is None:
            raise InputError("no network to predict with: give at least one")
        members = len(self.networks) * len(self.flips)
        if members > 1:
            for total in (mean, square, doubt):
                if total is not None:
                    total.div_(members)
        if doubt is not None:
            mean = torch.cat([mean, doubt], 1)
        return Said(_deep(mean), None if square is None else _deep(square))

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
            del logits, said  # or they are held beside those of the next member


class Spread:
    """How much members differ over a case: the sum of mean squares over that of squared means.

    Of each channel; 1 where all members say the same, up to their number where no two see anything
    in one place. Every voxel of the image counts once, however many windows show it.
    """

    def __init__(self) -> None:
        self._squares: torch.Tensor | float = 0.0
        self._means: torch.Tensor | float = 0.0

    def add(self, mean: torch.Tensor, square: torch.Tensor, share: torch.Tensor) -> None:
        """Count a window's means (K, *S) by the share (*S) that its voxels have in theirs."""
        weight = share.flatten()
        self._means = self._means + (mean.flatten(1).square() @ weight).cpu().double()
        self._squares = self._squares + (square.flatten(1) @ weight).cpu().double()

    @property
    def ratio(self) -> torch.Tensor:
        """Of each channel (K,); 1 before anything was counted."""
        squares, means = torch.as_tensor(self._squares), torch.as_tensor(self._means)
        return torch.where(means > 0, squares / means, 1.0)


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


def _deep(windows: torch.Tensor) -> torch.Tensor:
    return windows if windows.ndim == 5 else windows.unsqueeze(2)
