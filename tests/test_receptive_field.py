"""Receptive fields against the gradient of real networks, and of single operations by hand."""

import pytest
import torch
from test_network_summary import of, unet
from torch import nn
from torch.nn import functional

from segshift.networks import mednext, segresnet

NORMS = (
    nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm
)  # fmt: skip
AVERAGES = {nn.MaxPool2d: nn.AvgPool2d, nn.MaxPool3d: nn.AvgPool3d}


def roomy(field):
    """A size in which no position of an output voxel sees the border."""
    return tuple((edge + 16) // 8 * 8 + 8 for edge in field)


def probe(network, size, stride):
    """Extent of the non-zero gradient of one output voxel, the largest over its positions.

    Without norms, with small positive weights and averages for maxima no path is silent.
    """
    network = network.double().eval()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, NORMS):
                setattr(module, name, nn.Identity())
            elif type(child) in AVERAGES:
                setattr(module, name, AVERAGES[type(child)](child.kernel_size))
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else len(parameter)
        nn.init.uniform_(parameter, 0.5 / fan_in, 1.0 / fan_in)
    image = torch.rand(1, 1, *size, dtype=torch.float64, requires_grad=True)
    output = network(image)
    extents = []
    for phase in range(stride):
        voxel = tuple(edge // 2 + phase for edge in size)
        gradient = torch.autograd.grad(output[(0, 1, *voxel)], image, retain_graph=True)[0][0, 0]
        seen = gradient.nonzero()
        assert (seen.min(0).values > 0).all(), "clipped: the probe needs a larger image"
        extents.append(seen.max(0).values - seen.min(0).values + 1)
    return tuple(torch.stack(extents).max(0).values.tolist())


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"residual": True, "blocks": [1, 1, 2]},
        {"upsample": "interpolate"},
        {"attention": True, "norm": "batch"},
        {"downsample": "max_pool", "norm": "group"},
        {"skip": "add"},
        {"skip": "none"},
    ],
    ids=str,
)
def test_receptive_field_is_what_a_gradient_sees(dimensions, options):
    network = unet(dimensions, **options)
    field = of(network, (4, 8, 8)[-dimensions:]).receptive_field
    assert field == probe(network, roomy(field), 4)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (3.0, 1.0)])
def test_receptive_field_of_segresnet(spacing_mm):
    network = segresnet(
        dimensions=2, in_channels=1, out_channels=2, spacing_mm=spacing_mm, filters=2,
        blocks=[1, 1, 2], norm="instance", deep_supervision=False,
    )  # fmt: skip
    field = of(network, (16, 16)).receptive_field
    assert field == probe(network, roomy(field), 4)


def test_receptive_field_of_mednext():
    """Its blocks pad at the start of an axis, and its shortcuts see every second voxel."""
    network = mednext(
        dimensions=2, in_channels=1, out_channels=2, filters=2, blocks=[1, 1, 1],
        expansion=[2, 2, 2], kernel=3, deep_supervision=False,
    )  # fmt: skip
    summary = of(network, (16, 16))
    assert summary.receptive_field == probe(network, roomy(summary.receptive_field), 4)
    assert [stage.size for stage in summary.stages] == [(16, 16), (8, 8), (4, 4)]


class Applied(nn.Module):
    """A function of the image, with a convolution of kernel 5 at hand."""

    def __init__(self, function):
        super().__init__()
        self.wide, self.function = nn.Conv2d(1, 1, 5, padding=2), function

    def forward(self, image):
        return self.function(image, self.wide)


@pytest.mark.parametrize(
    ("function", "field"),
    [
        (lambda x, wide: wide(x) + 2 * x, (5, 5)),  # of branches the widest counts, in any order
        (lambda x, wide: 2 * x + wide(x), (5, 5)),
        (lambda x, wide: torch.cat((x, wide(x)), 1), (5, 5)),
        (lambda x, wide: x + functional.pad(x, (3, 0))[..., :-3], (1, 4)),
        (lambda x, wide: x + functional.pad(x, (0, 0, 0, 2))[..., 2:, :], (3, 1)),
        (lambda x, wide: x + functional.pad(x, (1, 0, 0, 0), mode="replicate")[..., :-1], (1, 2)),
        (lambda x, wide: functional.interpolate(x[..., :4], scale_factor=2), (1, 1)),
        # What it does not follow it does not guess.
        (lambda x, wide: x * x.mean((2, 3), keepdim=True), None),
        (lambda x, wide: wide(x.view(1, 1, 4, 16)).view(1, 1, 8, 8), None),
        (lambda x, wide: x.transpose(2, 3) + x, None),
        (lambda x, wide: x.roll(1, 2), None),
        (lambda x, wide: x.flip(2), None),
        (lambda x, wide: x.cumsum(2), None),
        (lambda x, wide: x.softmax(2), None),
    ],
)
def test_receptive_field_of_single_operations(function, field):
    assert of(Applied(function), (8, 8)).receptive_field == field
