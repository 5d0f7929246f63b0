"""What every loss owes its caller, written once: checked shapes, full precision, one mean.

A loss is `loss(logits, label) -> scalar`: raw logits (B, K, *S) with the background as structure 0,
label int64 (B, 1, *S) of class indices, S of two or three axes. `weight` has one value for each
structure, background first, and multiplies that structure's term; the sum is divided by the number
of terms, never by the weights, so a 0 silences its structure and leaves the others as they were.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from segshift.errors import InputError

Loss = TypeVar("Loss", bound=nn.Module)


def full_precision(
    forward: Callable[[Loss, Tensor, Tensor], Tensor],
) -> Callable[[Loss, Tensor, Tensor], Tensor]:
    """Run `forward` in float32 whatever the autocast (float64 stays), on checked shapes."""

    @functools.wraps(forward)
    def checked(self: Loss, logits: Tensor, label: Tensor) -> Tensor:
        assert logits.ndim in (4, 5), f"logits are (B, K, *S) in 2D or 3D, not {logits.shape}"
        assert logits.shape[1] > 1, "logits have a channel for the background and each structure"
        assert label.dtype == torch.int64, f"label holds class indices in int64, not {label.dtype}"
        expected = (logits.shape[0], 1, *logits.shape[2:])
        assert label.shape == expected, f"label is {tuple(label.shape)}, not {expected}"
        with torch.autocast(logits.device.type, enabled=False):
            exact = logits if logits.dtype == torch.float64 else logits.float()
            return forward(self, exact, label)

    return checked


def one_hot(label: Tensor, logits: Tensor) -> Tensor:
    """The label (B, 1, *S) as 0 and 1 in the shape and precision of the logits (B, K, *S)."""
    return torch.zeros_like(logits).scatter_(1, label, 1.0)


def weight_buffer(weight: Sequence[float] | None) -> Tensor | None:
    """`weight` as a tensor for `register_buffer`; InputError unless finite and not negative."""
    if weight is None:
        return None
    values = tuple(float(value) for value in weight)
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise InputError(f"weight must hold finite numbers from 0 upwards, got {values}")
    return torch.tensor(values)


def weight_for(weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """`weight` (K,) in the precision of the logits (B, K, *S); InputError if it is not K long."""
    if weight is None:
        return None
    if len(weight) != logits.shape[1]:
        raise InputError(
            f"weight has {len(weight)} value(s), {weight.tolist()}, but there are "
            f"{logits.shape[1]} structures, the background included; give one value for each"
        )
    return weight.to(logits)


def structure_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean of values (..., K), each times its structure's weight.

    Values (..., K - 1) are those of the foreground; they leave the background's weight unused.
    """
    return values.mean() if weight is None else (values * weight[-values.shape[-1] :]).mean()
