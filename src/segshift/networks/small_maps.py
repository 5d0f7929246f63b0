"""Convolutions of maps that are smaller than their kernel, in float32 on a CPU.

For such maps oneDNN (torch 2.13) leaves parts of the weights' gradient in bfloat16 as the memory
was: mostly zeros, at times what another tensor left there, now and then NaN. Of one voxel's depth
and one channel it gets even the output wrong. Deep stages of a network see such maps.
"""

from typing import Any

import torch
from torch import nn
from torch.func import functional_call

Convolution = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d


def exact_on_small_maps(network: nn.Module) -> nn.Module:
    """The same network, with every convolution right for every size of map; see above."""
    for part in network.modules():
        if isinstance(part, Convolution):
            part.register_forward_hook(_again_in_float32, with_kwargs=True)
    return network


def _again_in_float32(
    convolution: nn.Module,
    inputs: tuple[torch.Tensor, ...],
    options: dict[str, Any],
    output: torch.Tensor,
) -> torch.Tensor:
    """The output, for a small map (B, C, *S) computed once more."""
    assert isinstance(convolution, Convolution)
    maps, *others = inputs
    edges = zip(maps.shape[2:], convolution.kernel_size, strict=True)
    if maps.device.type != "cpu" or output.dtype != torch.bfloat16:
        return output
    if all(edge >= kernel for edge, kernel in edges):
        return output
    weights = {name: weight.float() for name, weight in convolution.named_parameters()}
    with torch.autocast("cpu", enabled=False):  # this comes here again, with float32
        exact = functional_call(convolution, weights, (maps.float(), *others), options)
    return torch.as_tensor(exact).to(output.dtype)
