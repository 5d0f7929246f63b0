"""A whole case through windows is what one pass would give, in 2D, 2.5D and 3D."""

import pytest
import torch
from torch import nn

from segshift.inference import predict_case, slabs
from segshift.plan import View


class Pointwise(nn.Module):
    """Looks at one voxel, so that windows cannot matter."""

    def __init__(self, channels, dimensions):
        super().__init__()
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.layer = convolution(channels, 3, 1)

    def forward(self, image):
        return self.layer(image)


def softmax(logits):
    return logits.softmax(dim=1)


@pytest.mark.parametrize("shape", [(10, 20, 30), (3, 5, 7), (8, 8, 8)])
@pytest.mark.parametrize("view", [View((8, 8)), View((8, 8), 2), View((8, 8, 8))])
def test_windows_give_the_full_pass(view, shape):
    torch.manual_seed(0)
    image = torch.randn(2, *shape)
    network = Pointwise(2 * (2 * view.context + 1), view.dimensions)
    got = predict_case(network, image, view, activation=softmax)
    whole = slabs(image, view.context) if view.dimensions == 2 else image[None]
    expected = softmax(network(whole))
    expected = expected.transpose(0, 1) if view.dimensions == 2 else expected[0]
    assert got.shape == (3, *shape)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_network_with_a_receptive_field_agrees_away_from_window_borders():
    torch.manual_seed(0)
    network = nn.Conv3d(1, 2, 5, padding=2)
    image = torch.randn(1, 24, 24, 24)
    got = predict_case(network, image, View((16, 16, 16)), activation=softmax, overlap=0.75)
    expected = softmax(network(image[None]))[0]
    inner = (slice(None), *(slice(4, 20),) * 3)
    # Gaussian weights count a window's centre most, so its border's error is small.
    assert (got - expected)[inner].abs().mean() < 0.05 * expected.std()


def test_slabs_by_hand():
    image = torch.arange(3.0)[None, :, None, None]
    assert slabs(image, 1)[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    assert slabs(image, 0)[:, :, 0, 0].tolist() == [[0], [1], [2]]


def test_one_slice_with_context_is_its_own_neighbour():
    assert slabs(torch.full((1, 1, 2, 2), 5.0), 2).unique().tolist() == [5.0]
