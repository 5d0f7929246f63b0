"""What `model.norm`, `model.upsample`, ... may be: a name and what it makes, in one place each.

`build` knows the same names without torch, so that a wrong one is refused at once; a test holds the
two against each other.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from monai.networks.blocks import UpSample
from monai.networks.blocks.dynunet_block import get_conv_layer
from monai.networks.layers.factories import Pool
from torch import nn

from segshift.errors import InputError

Choice = TypeVar("Choice")
Stride = tuple[int, ...]
LARGEST_GROUPS = 8


def chosen(options: Mapping[str, Choice], name: str, *, key: str) -> Choice:
    """What the name stands for. Raises InputError that lists the known ones."""
    if name not in list(options):
        raise InputError(f"{key}={name}: known are {', '.join(options)}")
    return options[name]


def _groups(channels: int) -> tuple[str, dict[str, Any]]:
    fitting = [n for n in range(1, LARGEST_GROUPS + 1) if channels % n == 0]
    return "group", {"num_groups": fitting[-1]}


# Channels to MONAI's description of a layer.
NORMS: dict[str, Callable[[int], tuple[str, dict[str, Any]]]] = {
    "instance": lambda channels: ("instance", {"affine": True}),
    "batch": lambda channels: ("batch", {}),
    "group": _groups,
}


def _transposed(fine: int, coarse: int, stride: Stride) -> nn.Module:
    layer: nn.Module = get_conv_layer(
        len(stride), coarse, fine, kernel_size=stride, stride=stride, act=None, norm=None,
        is_transposed=True,
    )  # fmt: skip
    return layer


def _interpolate(fine: int, coarse: int, stride: Stride) -> nn.Module:
    """A 1x1 convolution where the channels differ, before: there are fewer voxels there."""
    layer: nn.Module = UpSample(
        len(stride), coarse, fine, stride, mode="nontrainable", align_corners=False, bias=False
    )
    return layer


# (channels of the finer stage, channels of the coarser stage, stride) to a layer.
UPSAMPLES: dict[str, Callable[[int, int, Stride], nn.Module]] = {
    "transposed": _transposed,
    "interpolate": _interpolate,
}


def _max_pool(stride: Stride) -> nn.Module:
    pool: nn.Module = Pool["MAX", len(stride)](kernel_size=stride)
    return pool


# Stride to the layer before a stage's blocks; None: its first convolution has the stride.
DOWNSAMPLES: dict[str, Callable[[Stride], nn.Module] | None] = {
    "strided": None,
    "max_pool": _max_pool,
}


def _concat(upsampled: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return torch.cat((upsampled, skip), dim=1)


def _upsampled_alone(upsampled: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
    return upsampled


# How many times the stage's channels come out, and what joins the two (B, C, *S).
SKIPS: dict[str, tuple[int, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "concat": (2, _concat),
    "add": (1, torch.add),
    "none": (1, _upsampled_alone),
}
