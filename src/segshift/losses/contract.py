"""What every loss owes its caller, written once: checked shapes, full precision, one mean.

A loss is `loss(logits, label) -> scalar` on raw logits (B, K, *S), S of two or three axes. What the
label is says what the channels are. Exclusive structures: label int64 (B, 1, *S) of class indices,
the background first; the activation is a softmax. Regions, which may overlap: label int8
(B, K, *S), 0 or 1 each, no background channel; the activation is a sigmoid, and each region is a
problem of two classes, itself and its complement. IGNORE in a label is a voxel that nobody
annotated: it contributes neither value nor gradient, and no mean counts it. A term, such as the
Dice of one structure in one sample, without an annotated voxel is not counted either: it would look
perfect. So a batch has the value and the gradient that it has without such a sample or region, and
one in which nobody annotated anything is 0.

`weight` has one value for each channel, background first, and multiplies that structure's term; the
sum is divided by the number of terms, never by the weights, so a 0 silences its structure and
leaves the others as they were. (GeneralisedDice alone, a ratio, has weights without a scale.)
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from segshift.errors import InputError

IGNORE = -1

Loss = TypeVar("Loss", bound=nn.Module)


def full_precision(
    forward: Callable[[Loss, Tensor, Tensor], Tensor],
) -> Callable[[Loss, Tensor, Tensor], Tensor]:
    """Run `forward` in float32 whatever the autocast (float64 stays), on checked shapes."""

    @functools.wraps(forward)
    def checked(self: Loss, logits: Tensor, label: Tensor) -> Tensor:
        assert logits.ndim in (4, 5), f"logits are (B, K, *S) in 2D or 3D, not {logits.shape}"
        if label.dtype == torch.int8:
            channels = logits.shape[1]
        else:
            assert label.dtype == torch.int64, f"label is int64 or (regions) int8, {label.dtype=}"
            assert logits.shape[1] > 1, "logits have a channel for background and each structure"
            channels = 1
        expected = (logits.shape[0], channels, *logits.shape[2:])
        assert label.shape == expected, f"label is {tuple(label.shape)}, not {expected}"
        with torch.autocast(logits.device.type, enabled=False):
            exact = logits if logits.dtype == torch.float64 else logits.float()
            return forward(self, exact, label)

    return checked


def is_regions(label: Tensor) -> bool:
    """Whether the label's channels are overlapping regions instead of class indices."""
    return label.dtype == torch.int8


def probabilities(logits: Tensor, label: Tensor) -> Tensor:
    """Softmax over structures, or a sigmoid for each region: (B, K, *S)."""
    return logits.sigmoid() if is_regions(label) else logits.softmax(1)


def minus_log_truth(logits: Tensor, label: Tensor) -> Tensor:
    """-log of the probability of what is true: (B, 1, *S), or (B, K, *S) one for each region."""
    if is_regions(label):
        return -functional.logsigmoid(torch.where(label == 1, logits, -logits))
    return -logits.log_softmax(1).gather(1, label.clamp(min=0))


def one_hot(label: Tensor, logits: Tensor) -> Tensor:
    """The label as 0 and 1 in the shape and precision of the logits (B, K, *S); ignored is 0."""
    if is_regions(label):
        return (label == 1).to(logits)
    hot = torch.zeros_like(logits)
    known = valid_voxels(label)
    if known is None:
        return hot.scatter_(1, label, 1.0)
    return hot.scatter_(1, label.clamp(min=0), known.to(logits))


def valid_voxels(label: Tensor) -> Tensor | None:
    """Where the label is not IGNORE: bool in the label's shape, or None where that is everywhere.

    On a GPU it is never None: to ask would stall the device.
    """
    valid = label >= 0
    return None if valid.device.type == "cpu" and bool(valid.all()) else valid


def annotated_terms(valid: Tensor | None) -> Tensor | None:
    """Which terms (B, C) have a valid voxel, of `valid` (B, C, *S); None if all have."""
    return None if valid is None else valid.flatten(2).any(2)


def masked(values: Tensor, valid: Tensor | None) -> Tensor:
    """Values (B, C, *S) with 0 where not `valid` (B, 1 or C, *S); so has their gradient."""
    return values if valid is None else values.masked_fill(~valid, 0.0)


def valid_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of values over the valid ones, `valid` of a shape that expands to theirs; 0 if none."""
    if valid is None:
        return values.mean()
    return masked(values, valid).sum() / valid.expand_as(values).sum().clamp(min=1)


def sample_mean(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of values (B, C, *S) over each sample's valid voxels: (B, C); 0 if it has none."""
    if valid is None:
        return values.flatten(2).mean(2)
    count = valid.expand_as(values).flatten(2).sum(2).clamp(min=1)
    return masked(values, valid).flatten(2).sum(2) / count


def weight_buffer(weight: Sequence[float] | None) -> Tensor | None:
    """`weight` as a tensor for `register_buffer`; InputError unless finite and not negative."""
    if weight is None:
        return None
    if not isinstance(weight, list | tuple) or not all(
        _is_number(value) and 0 <= value < math.inf for value in weight
    ):
        raise InputError(f"weight must be a list of finite numbers from 0 upwards, got {weight!r}")
    return torch.tensor([float(value) for value in weight])


def weight_for(weight: Tensor | None, logits: Tensor) -> Tensor | None:
    """`weight` (K,) in the precision of the logits (B, K, *S); InputError if it is not K long."""
    if weight is None:
        return None
    if len(weight) != logits.shape[1]:
        raise InputError(
            f"weight has {len(weight)} value(s), {weight.tolist()}, but there are "
            f"{logits.shape[1]} structures (the background first) or regions; give one for each"
        )
    return weight.to(logits)


def times_weight_of_truth(values: Tensor, weight: Tensor | None, label: Tensor) -> Tensor:
    """Voxel values (B, C, *S), each times the weight of its true structure, or of its region."""
    if weight is None:
        return values
    if is_regions(label):
        return values * weight.view(-1, *[1] * (label.ndim - 2))
    return values * weight[label.clamp(min=0)]


def structure_mean(values: Tensor, weight: Tensor | None, annotated: Tensor | None) -> Tensor:
    """Mean of the `annotated` terms (..., 1 or K) of values (..., K), each times its weight.

    Values (..., K - 1) are those of the foreground; they leave the background's weight unused.
    """
    if weight is not None:
        values = values * weight[-values.shape[-1] :]
    return valid_mean(values, annotated)


def foreground(tensor: Tensor, label: Tensor) -> Tensor:
    """The channels of (B, K, *S) without the background; regions have none."""
    return tensor if is_regions(label) else tensor[:, 1:]


def positive(**option: float) -> float:
    """The one named option; InputError unless it is finite and above 0."""
    ((name, value),) = option.items()
    if not (_is_number(value) and 0 < value < math.inf):
        raise InputError(f"{name} must be a finite number above 0, got {value!r}")
    return value


def fraction(**option: float) -> float:
    """The one named option; InputError unless it lies in 0 to 1, both included."""
    ((name, value),) = option.items()
    if not (_is_number(value) and 0 <= value <= 1):
        raise InputError(f"{name} must be a number from 0 to 1, got {value!r}")
    return value


def not_negative(**option: float) -> float:
    """The one named option; InputError unless it is finite and from 0 upwards."""
    ((name, value),) = option.items()
    if not (_is_number(value) and 0 <= value < math.inf):
        raise InputError(f"{name} must be a finite number from 0 upwards, got {value!r}")
    return value


def whole(*, lowest: int, **option: int) -> int:
    """The one named option; InputError unless it is a whole number from `lowest` upwards."""
    ((name, value),) = option.items()
    if type(value) is not int or value < lowest:
        raise InputError(f"{name} must be a whole number from {lowest} upwards, got {value!r}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
