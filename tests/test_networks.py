"""Networks: logits at input size, a list finest first in deep supervision, clear limits."""

import pytest
import torch

from segshift.errors import InputError
from segshift.networks import UNet
from segshift.plan import topology


def unet(patch, spacing=None, **options):
    strides, kernels = topology(patch, spacing or (1.0,) * len(patch))
    defaults = {"in_channels": 2, "out_channels": 3, "filters": [4, 8, 8, 8, 8, 8]}
    return UNet(strides=strides, kernels=kernels, **defaults | options), strides


@pytest.mark.parametrize("patch", [(32, 24), (16, 16, 24)])
@pytest.mark.parametrize("residual", [False, True])
def test_logits_at_input_size(patch, residual):
    network, _ = unet(patch, residual=residual)
    assert network(torch.zeros(2, 2, *patch)).shape == (2, 3, *patch)


def test_anisotropic():
    network, strides = unet((8, 32, 32), (8.0, 1.0, 1.0))
    assert (1, 2, 2) in strides
    assert network(torch.zeros(1, 2, 8, 32, 32)).shape == (1, 3, 8, 32, 32)


def test_deep_supervision_is_a_list_in_training_only():
    network, _ = unet((32, 32), deep_supervision=True)
    image = torch.randn(2, 2, 32, 32)
    output = network(image)
    assert [tuple(o.shape[2:]) for o in output] == [(32, 32), (16, 16)]
    sum(o.sum() for o in output).backward()
    assert all(p.grad is not None for p in network.parameters())  # or DDP would wait for ever
    assert network.eval()(image).shape == (2, 3, 32, 32)


def test_too_few_filters():
    with pytest.raises(InputError, match=r"model\.filters=\[4, 8\] has 2 stages"):
        unet((32, 32), filters=[4, 8])


def test_the_plain_unet_is_nnunets():
    """5.6 million parameters, as nnU-Net's hippocampus network has."""
    network, _ = unet((40, 56, 40), in_channels=1, filters=[32, 64, 128, 256, 320])
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(5.6e6, rel=0.01)
