"""Convolutions of maps that are smaller than their kernel, in float32 on a CPU.

For such maps oneDNN (torch 2.13) leaves parts of the weights' gradient in bfloat16 as the memory
was: mostly zeros, at times what another tensor left there, now and then NaN. Of one voxel's depth
and one channel it gets even the output wrong. Deep stages of a network see such maps.
"""

import torch
from torch import nn

Convolution = nn.Conv2d | nn.Conv3d


def exact_on_small_maps(network: nn.Module) -> nn.Module:
    """The same network, with every convolution right for every size of map; see above."""
    for part in network.modules():
        if isinstance(part, Convolution):
            part.register_forward_hook(_again_in_float32)
    return network


def _again_in_float32(
    convolution: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor
) -> torch.Tensor:
    """The output, for a small map (B, C, *S) computed once more."""
    assert isinstance(convolution, Convolution)
    (maps,) = inputs
    edges = zip(maps.shape[2:], convolution.kernel_size, strict=True)
    if maps.device.type != "cpu" or output.dtype != torch.bfloat16:
        return output
    if all(edge >= kernel for edge, kernel in edges):
        return output
    bias = None if convolution.bias is None else convolution.bias.float()
    with torch.autocast("cpu", enabled=False):
        exact: torch.Tensor = convolution._conv_forward(
            maps.float(), convolution.weight.float(), bias
        )
    return exact.to(output.dtype)
