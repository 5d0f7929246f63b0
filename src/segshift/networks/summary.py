"""A network in numbers: stages, receptive field, parameters, FLOPs, memory; nothing is computed.

A twin without weights runs on torch's meta device. Pure functions of the network and a batch's
shape, so that what is printed before a run and what its report shows are the same.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from segshift.networks.tape import Convolution, Tape
from segshift.plan import Plan

DTYPES = {
    "16": torch.float16, "bf16": torch.bfloat16, "32": torch.float32, "64": torch.float64
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stage:
    """All convolutions whose output has one resolution."""

    size: tuple[int, ...]  # voxels
    voxel_mm: tuple[float, ...]
    channels: int  # of the widest
    convolutions: int
    kernels: tuple[tuple[int, ...], ...]  # largest first


@dataclass(frozen=True, slots=True)
class NetworkSummary:
    """What a network is and costs for the plan's patch and batch; axes as the network sees them."""

    patch: tuple[int, ...]  # voxels
    batch: int
    context: int  # neighbouring slices on either side that are channels
    spacing_mm: tuple[float, ...]
    length: str  # the unit of spacing_mm and voxel_mm: px where the plan knows no size
    precision: str
    stages: tuple[Stage, ...]  # finest first
    receptive_field: tuple[int, ...] | None  # voxels; None: attention, at most the whole patch
    parameters: int
    forward_flops: int  # one patch forward, 2 per multiplication and addition
    saved_bytes: int  # what the training forward of one batch keeps for its backward


def summarise_network(
    network: nn.Module,
    plan: Plan,
    *,
    precision: str,
    memory_format: torch.memory_format,
) -> NetworkSummary:
    """The network as it trains under the plan; `precision` is Lightning's name of it."""
    patch, channels = plan.view.patch, plan.in_channels
    spacing_mm = plan.spacing_mm[-len(patch) :]
    twin = _twin(network, device="meta").eval()
    image = torch.empty(1, channels, *patch, device="meta")
    flops = FlopCounterMode(display=False)
    tape = Tape(image)
    with torch.no_grad(), flops, tape:
        output = twin(image)
    return NetworkSummary(
        patch=patch,
        batch=plan.batch,
        context=plan.view.context,
        spacing_mm=spacing_mm,
        length=plan.length,
        precision=precision,
        stages=_stages(tape.convolutions, spacing_mm),
        receptive_field=tape.receptive_field(output),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        forward_flops=flops.get_total_flops(),
        saved_bytes=saved_bytes(
            network,
            shape=(plan.batch, channels, *patch),
            precision=precision,
            memory_format=memory_format,
        ),
    )


def saved_bytes(
    network: nn.Module,
    *,
    shape: Sequence[int],
    precision: str,
    memory_format: torch.memory_format,
) -> int:
    """Bytes that a training forward of a batch (B, C, *S) keeps for backward, beside the weights.

    Fake tensors of the CPU, unlike meta ones, follow its autocast, which keeps about what a GPU's
    does. A tensor that several layers keep counts once.
    """
    kind, _, way = precision.partition("-")
    mixed = way == "mixed"
    dtype = torch.float32 if mixed else DTYPES[kind]
    with FakeTensorMode(allow_non_fake_inputs=True):
        twin = _twin(network, device="cpu", dtype=dtype).train()
        image = torch.empty(*shape, dtype=dtype, memory_format=memory_format)
        weights = {*twin.parameters(), *twin.buffers()}
        own = {tensor.untyped_storage()._cdata for tensor in weights}
        kept: dict[int, torch.UntypedStorage] = {}  # alive, so that no address comes twice

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = storage
            return tensor

        with (
            torch.autocast("cpu", dtype=DTYPES[kind] if mixed else None, enabled=mixed),
            saved_tensors_hooks(keep, lambda tensor: tensor),
        ):
            twin(image)
        return sum(storage.nbytes() for storage in kept.values())


def _twin(network: nn.Module, *, device: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A copy on another device with empty weights: deepcopy takes `memo` for copies it has made."""
    memo: dict[int, Any] = {}
    for tensor in (*network.parameters(), *network.buffers()):
        kind = dtype if tensor.is_floating_point() else tensor.dtype
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=kind, device=device)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    return copy.deepcopy(network, memo)


def _stages(convolutions: Sequence[Convolution], spacing_mm: Sequence[float]) -> tuple[Stage, ...]:
    if not convolutions:
        return ()
    sizes = sorted({c.size for c in convolutions}, key=math.prod, reverse=True)
    finest = [max(edges) for edges in zip(*sizes, strict=True)]
    stages: dict[tuple[int, ...], list[Convolution]] = {}
    for size in sizes:
        # MedNeXt's blocks upsample to one voxel too few, and are padded afterwards.
        padded = tuple(n + 1 for n in size)
        stage = padded if padded in stages and max(size) > 1 else size
        stages.setdefault(stage, []).extend(c for c in convolutions if c.size == size)
    return tuple(
        Stage(
            size=size,
            voxel_mm=_times([f / n for f, n in zip(finest, size, strict=True)], spacing_mm),
            channels=max(c.channels for c in here),
            convolutions=len(here),
            kernels=tuple(sorted({c.kernel for c in here}, reverse=True)),
        )
        for size, here in stages.items()
    )


def _times(values: Sequence[float], spacing_mm: Sequence[float]) -> tuple[float, ...]:
    return tuple(value * spacing for value, spacing in zip(values, spacing_mm, strict=True))
