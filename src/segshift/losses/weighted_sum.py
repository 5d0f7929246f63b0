"""Several losses as one: named terms, each with its weight."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from segshift.errors import InputError


class WeightedSum(nn.Module):
    """Sum over names of weights[name] * terms[name](logits, label).

    logits (B, K, *S), label (B, 1, *S) -> scalar. The terms guard their own precision.
    """

    def __init__(self, *, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        """`weights` has one finite number from 0 upwards for each of the `terms`."""
        super().__init__()
        if not terms or set(weights) != set(terms):
            raise InputError(
                f"weights must name each of the terms {sorted(terms)} once, got {sorted(weights)}"
            )
        self.weights = {name: float(weights[name]) for name in terms}
        if not all(math.isfinite(weight) and weight >= 0 for weight in self.weights.values()):
            raise InputError(f"weights must be finite numbers from 0 upwards, got {self.weights}")
        self.terms = nn.ModuleDict(dict(terms))

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """The scalar loss."""
        values = [self.weights[name] * term(logits, label) for name, term in self.terms.items()]
        return torch.stack(values).sum()
