"""Several losses as one: named terms, each with its weight, which may change over the training."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from segshift.errors import InputError
from segshift.losses.contract import not_negative

FAINTEST = 0.01  # of its weight: what a term that fades or rises never falls below


@runtime_checkable
class Scheduled(Protocol):
    """A loss that is another one as the training goes on; without `at` it is that of the end."""

    def at(self, progress: float) -> nn.Module:
        """The loss at `progress` from 0, the first step, to 1, the last."""


class WeightedSum(nn.Module):
    """Sum over names of weights[name] * terms[name](logits, label).

    logits (B, K, *S), label (B, 1, *S) or regions (B, K, *S) -> scalar. The terms guard their own
    precision. Two schedules of Kervadec et al., MedIA 2021, for the terms that they name:
    `increase` lets the weight of these rise from a hundredth to all of it; `rebalance` does so too
    while the weights of all other terms fall from all to a hundredth.
    """

    def __init__(
        self,
        *,
        terms: Mapping[str, nn.Module],
        weights: Mapping[str, float] | None = None,
        increase: Sequence[str] = (),
        rebalance: Sequence[str] = (),
    ) -> None:
        """`weights` has numbers from 0 upwards for some or all of the `terms`; the others get 1."""
        super().__init__()
        given = dict(weights or {})
        for option, names in (("increase", increase), ("rebalance", rebalance)):
            if not isinstance(names, list | tuple):
                raise InputError(f"{option} must be a list of names of terms, got {names!r}")
        named = {*given, *increase, *rebalance}
        if not terms or not named <= set(terms):
            raise InputError(
                f"weights, increase and rebalance may name the terms {sorted(terms)}, "
                f"got {sorted(named - set(terms))}"
            )
        if increase and rebalance:
            raise InputError(
                f"increase={list(increase)} and rebalance={list(rebalance)}: give one of them"
            )
        self.weights = {name: not_negative(weights=given.get(name, 1.0)) for name in terms}
        self.terms = nn.ModuleDict(dict(terms))
        self.increase, self.rebalance = tuple(increase), tuple(rebalance)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss with all weights as they were given."""
        values = [self.weights[name] * term(logits, label) for name, term in self.terms.items()]
        return torch.stack(values).sum()

    def at(self, progress: float) -> "WeightedSum":
        """This sum with the weights of that moment; it shares the terms."""
        terms = {
            n: t.at(progress) if isinstance(t, Scheduled) else t for n, t in self.terms.items()
        }
        if not (self.increase or self.rebalance) and all(
            terms[name] is term for name, term in self.terms.items()
        ):
            return self
        rising = {*self.increase, *self.rebalance}
        rest = max(1 - progress, FAINTEST) if self.rebalance else 1.0
        factor = {name: max(progress, FAINTEST) if name in rising else rest for name in self.terms}
        weights = {name: weight * factor[name] for name, weight in self.weights.items()}
        return WeightedSum(terms=terms, weights=weights)
