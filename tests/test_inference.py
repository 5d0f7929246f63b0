"""A whole case through windows is what one pass would give, in 2D, 2.5D and 3D."""

import math
import subprocess
import sys

import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn
from torch.nn import functional

from segshift.errors import InputError
from segshift.inference import Spread, entropy, predict_case, predict_slabs, slabs
from segshift.inference.windows import window_starts
from segshift.plan import View

VIEWS = [View((8, 8)), View((8, 8), 2), View((8, 8, 8))]


class Pointwise(nn.Module):
    """Looks at one voxel, so that windows cannot matter."""

    def __init__(self, channels, dimensions):
        super().__init__()
        convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
        self.layer = convolution(channels, 3, 1)

    def forward(self, image):
        return self.layer(image)


class Said(nn.Module):
    """Says the same logits everywhere."""

    def __init__(self, *logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, image):
        return self.logits[:, None, None, None].expand(len(image), -1, *image.shape[2:])


class Shifted(nn.Module):
    """Sees what lies one voxel further on along the last axis: mirrors give other answers."""

    def forward(self, image):
        moved = image.roll(-1, dims=-1)
        return torch.cat([moved, -moved], 1)


def softmax(logits):
    return logits.softmax(dim=1)


def pointwise(view, channels=2):
    torch.manual_seed(0)
    return Pointwise(channels * (2 * view.context + 1), view.dimensions)


def full_pass(network, image, view):
    with torch.no_grad():
        whole = slabs(image, view.context) if view.dimensions == 2 else image[None]
        expected = softmax(network(whole))
    return expected.transpose(0, 1) if view.dimensions == 2 else expected[0]


class TestWindows:
    @pytest.mark.parametrize("shape", [(10, 20, 30), (3, 5, 7), (8, 8, 8)])
    @pytest.mark.parametrize("view", VIEWS)
    def test_windows_give_the_full_pass(self, view, shape):
        network, image = pointwise(view), torch.randn(2, *shape)
        got = predict_case(network, image, view, activation=softmax)
        expected = full_pass(network, image, view)
        assert got.shape == (3, *shape)
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)

    def test_where_no_window_cuts_the_receptive_field_it_is_the_full_pass(self):
        """A window of the image's own width and height, and slices that lie deep in a window."""
        torch.manual_seed(0)
        network = nn.Conv3d(1, 2, 3, padding=1)
        image = torch.randn(1, 40, 12, 12)
        view = View((16, 12, 12))
        got = predict_case(network, image, view, activation=softmax, overlap=0.5)
        expected = full_pass(network, image, view)
        starts = window_starts(40, 16, overlap=0.5)
        edges = {z for start in starts for z in (start, start + 15)} - {0, 39}
        deep = [z for z in range(40) if z not in edges]
        torch.testing.assert_close(got[:, deep], expected[:, deep], atol=1e-6, rtol=0)
        assert (got - expected).abs().max() > 1e-4  # at the edges of windows it cannot be

    def test_windows_at_their_edges_count_little(self):
        torch.manual_seed(0)
        network = nn.Conv3d(1, 2, 5, padding=2)
        image = torch.randn(1, 24, 24, 24)
        view = View((16, 16, 16))
        got = predict_case(network, image, view, activation=softmax, overlap=0.75)
        expected = full_pass(network, image, view)
        inner = (slice(None), *(slice(4, 20),) * 3)
        assert (got - expected)[inner].abs().mean() < 0.05 * expected.std()

    @pytest.mark.parametrize("view", VIEWS)
    def test_one_window_is_to_the_bit_what_monai_makes_of_it(self, view):
        torch.manual_seed(0)
        channels = 2 * view.context + 1
        kind = nn.Conv2d if view.dimensions == 2 else nn.Conv3d
        network, image = kind(channels, 2, 3, padding=1), torch.randn(1, 5, 8, 7)
        got = predict_case(network, image, view, activation=softmax, window_batch=5)
        windows = slabs(image, view.context) if view.dimensions == 2 else image[None]
        with torch.no_grad():
            expected = sliding_window_inference(
                windows, view.patch, 5, lambda x: softmax(network(x)), mode="gaussian"
            )
        expected = expected.transpose(0, 1) if view.dimensions == 2 else expected[0]
        assert torch.equal(got, expected.clamp(max=1))

    def test_windows_are_spread_evenly(self):
        assert window_starts(8, 8, overlap=0.5) == [0]
        assert window_starts(9, 8, overlap=0.5) == [0, 1]
        assert window_starts(20, 8, overlap=0.5) == [0, 4, 8, 12]
        assert window_starts(21, 8, overlap=0.25) == [0, 4, 9, 13]
        assert window_starts(5, 1, overlap=0.99) == [0, 1, 2, 3, 4]

    def test_other_windows_in_the_batch_change_nothing(self):
        image = torch.randn(1, 20, 8, 8)
        view = View((8, 8, 8))
        one, many = (
            predict_case(pointwise(view, 1), image, view, activation=softmax, window_batch=batch)
            for batch in (1, 7)
        )
        torch.testing.assert_close(one, many, atol=1e-6, rtol=0)


class TestSlabs:
    @pytest.mark.parametrize("shape", [(7, 20, 30), (23, 11, 9), (10, 31, 12), (1, 5, 5)])
    @pytest.mark.parametrize("view", VIEWS)
    def test_resampling_by_slabs_is_that_of_the_whole(self, view, shape):
        network, image = pointwise(view), torch.randn(2, 10, 13, 9)
        got = predict_case(network, image, view, activation=softmax, shape=shape, budget_gb=20e-6)
        whole = predict_case(network, image, view, activation=softmax)
        expected = functional.interpolate(whole[None], size=shape, mode="trilinear")[0]
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)

    @pytest.mark.parametrize("exclusive", [True, False])
    def test_outside_the_box_is_background(self, exclusive):
        view, shape, box = View((8, 8, 8)), (30, 16, 20), ((5, 17), (2, 13), (8, 20))
        network, image = pointwise(view, 1), torch.randn(1, 12, 11, 12)
        got = predict_case(
            network, image, view, activation=softmax, shape=shape, box=box, exclusive=exclusive
        )
        expected = torch.zeros(3, *shape)
        expected[0] = float(exclusive)
        expected[:, 5:17, 2:13, 8:20] = predict_case(network, image, view, activation=softmax)
        assert torch.equal(got, expected)

    @pytest.mark.parametrize("view", VIEWS)
    def test_a_smaller_budget_gives_more_slabs_and_the_same(self, view):
        network, image = pointwise(view, 1), torch.randn(1, 21, 20, 16)
        options = {"activation": softmax, "shape": (30, 20, 16), "box": ((2, 29), (0, 20), (0, 16))}
        whole = list(predict_slabs([network], image, view, **options))
        parts = list(predict_slabs([network], image, view, **options, budget_gb=50e-6))
        assert len(whole) == 1 < len(parts)
        starts = [slab.start for slab in parts]
        depths = [slab.probability.shape[1] for slab in parts]
        assert starts == [sum(depths[:i]) for i in range(len(parts))]
        assert sum(depths) == 30
        torch.testing.assert_close(
            torch.cat([slab.probability for slab in parts], 1), whole[0].probability,
            atol=1e-6, rtol=0,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("view", "shape", "window_batch", "batches"),
        [
            (View((64, 80)), (32, 64, 80), None, [11, 11, 10]),  # at least 65536 voxels are 13
            (View((64, 80)), (32, 64, 80), 32, [32]),
            (View((64, 80)), (5, 64, 80), None, [5]),
            (View((256, 256)), (3, 256, 256), None, [1, 1, 1]),
            (View((32, 48, 32)), (32, 48, 80), None, [2, 1]),
            (View((64, 64, 64)), (64, 64, 112), None, [1, 1]),
        ],
    )
    def test_windows_are_seen_in_even_batches(self, view, shape, window_batch, batches):
        seen = []

        def network(windows):
            seen.append(len(windows))
            return windows.tile(1, 2, *(1,) * view.dimensions)

        image = torch.zeros(1, *shape)
        predict_case([network], image, view, activation=softmax, window_batch=window_batch)
        assert seen == batches

    def test_what_does_not_fit_the_budget_is_predicted_again(self):
        """Four channels of 21 x 16 x 16 fit once, but not a window's depth of them."""
        seen = []
        network, view = pointwise(View((8, 8, 8)), 1), View((8, 8, 8))
        network.register_forward_hook(lambda *_: seen.append(1))
        image, got = torch.randn(1, 21, 16, 16), []
        for budget_gb in (1, 12e-6):
            seen.clear()
            case = predict_case(
                network, image, view, activation=softmax, budget_gb=budget_gb, window_batch=1
            )
            got.append((case, len(seen)))
        (whole, once), (parts, more) = got
        assert more > once
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)

    def test_only_the_first_batch_of_all_may_exceed_the_budget(self):
        """Of 44 kB a window takes 18 and a slice of the ring 4: six slices, and a window beside."""
        seen = []
        network, view = pointwise(View((8, 8, 8)), 1), View((8, 8, 8))
        network.register_forward_hook(lambda _, windows, __: seen.append(len(windows[0])))
        image = torch.randn(1, 21, 16, 16)
        options = {"activation": softmax, "overlap": 0}
        whole = predict_case(network, image, view, **options, window_batch=1)
        seen.clear()
        parts = predict_case(network, image, view, **options, budget_gb=50e-6, window_batch=4)
        # Windows begin at 0, 6, 13, four each; two sixes of slices after the first lie in eight.
        assert seen == [4, *[1] * (8 + 8 + 4)]
        torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)

    def test_memory_is_bounded_and_not_by_the_numbers_of_slices_and_members(self):
        """20 structures, 8 members: all probabilities would be 0.35 GB, the budget is 0.06."""
        program = """
import resource, torch
from segshift.inference import Spread, predict_slabs
from segshift.plan import View
def network(x): return x[:, :1] * torch.linspace(-1, 1, 21)[:, None, None, None]
image = torch.zeros(1, 32, 128, 128)
options = dict(activation=lambda x: x.softmax(1), budget_gb=0.06, mirror_axes=(0, 1, 2),
               doubts=True, window_batch=1, spread=Spread())
list(predict_slabs([network], image[:, :16, :64, :64], View((16, 64, 64)), **options))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
depth = sum(s.probability.shape[1]
            for s in predict_slabs([network], image, View((16, 64, 64)), **options))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(depth, (after - before) / 1e6)
"""
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        )
        depth, grown_gb = done.stdout.split()
        assert int(depth) == 32
        assert float(grown_gb) < 0.15


class TestMembers:
    VIEW = View((4, 8, 8))

    def test_an_ensemble_is_the_mean_probability(self):
        image = torch.randn(1, 6, 10, 9)
        networks = [nn.Conv3d(1, 2, 1), nn.Conv3d(1, 2, 1)]
        got = predict_case(networks, image, self.VIEW, activation=softmax)
        each = [predict_case(n, image, self.VIEW, activation=softmax) for n in networks]
        torch.testing.assert_close(got, (each[0] + each[1]) / 2, atol=1e-6, rtol=0)

    def test_mirrors_are_the_mean_of_turned_predictions(self):
        image = torch.randn(1, 4, 8, 8)
        got = predict_case(Shifted(), image, self.VIEW, activation=softmax, mirror_axes=[1, 2])
        flips = [(), (2,), (3,), (2, 3)]
        each = [softmax(Shifted()(image.flip(flip)[None]))[0].flip(flip) for flip in flips]
        torch.testing.assert_close(got, sum(each) / 4, atol=1e-6, rtol=0)

    def test_mirrors_of_slices_turn_them_in_their_plane(self):
        image = torch.randn(1, 3, 8, 8)
        got = predict_case(Shifted(), image, View((8, 8)), activation=softmax, mirror_axes=[2])
        each = [softmax(Shifted()(image.flip(f)[0][:, None])).flip(f) for f in ((), (3,))]
        torch.testing.assert_close(got.transpose(0, 1), sum(each) / 2, atol=1e-6, rtol=0)

    @pytest.mark.parametrize(("view", "axes"), [(View((8, 8)), [0]), (VIEW, [3]), (VIEW, [1, 1])])
    def test_a_mirror_that_is_none_is_refused(self, view, axes):
        with pytest.raises(InputError, match=r"prediction\.mirror"):
            predict_case(Shifted(), torch.zeros(1, 4, 8, 8), view, activation=softmax,
                         mirror_axes=axes)  # fmt: skip

    def test_the_doubt_of_members_is_the_mean_of_their_entropies(self):
        """Of two certain and opposite members none; of two that are undecided all."""
        image = torch.zeros(1, 4, 8, 8)
        certain = [Said(50.0, -50.0), Said(-50.0, 50.0)]
        undecided = [Said(0.0, 0.0), Said(0.0, 0.0)]
        for networks, expected in ((certain, 0.0), (undecided, 1.0)):
            (slab,) = predict_slabs(networks, image, self.VIEW, activation=softmax, doubts=True)
            torch.testing.assert_close(slab.probability, torch.full((2, 4, 8, 8), 0.5))
            torch.testing.assert_close(slab.doubt, torch.full((4, 8, 8), expected))
        (slab,) = predict_slabs(certain, image, self.VIEW, activation=softmax)
        assert slab.doubt is None

    @pytest.mark.parametrize("view", [View((8, 8)), View((4, 8, 8))])
    @pytest.mark.parametrize("budget_gb", [3, 1e-9])
    @pytest.mark.parametrize(
        ("shape", "onto"),
        [((11, 21, 5), (11, 21, 5)), ((20, 8, 8), (20, 8, 8)), ((20, 16, 8), (3, 16, 8))],
    )
    def test_the_spread_counts_every_voxel_of_the_image_once(self, view, shape, onto, budget_gb):
        """However many windows show it, one a plane or several, and none of the padding.

        Also slices that lie so dense that a coarser case needs none of them.
        """
        torch.manual_seed(0)
        networks = [pointwise(view, 1) for _ in range(3)]
        for network in networks:
            nn.init.normal_(network.layer.weight, std=3)
        image, spread = torch.randn(1, *shape), Spread()
        parts = predict_slabs(
            networks,
            image,
            view,
            activation=softmax,
            spread=spread,
            budget_gb=budget_gb,
            shape=onto,
        )
        covered = 0
        while covered < onto[0]:
            covered += next(parts).probability.shape[1]
        each = torch.stack([full_pass(network, image, view) for network in networks])
        expected = each.square().mean(0).flatten(1).sum(1)
        expected = expected / each.mean(0).square().flatten(1).sum(1)
        assert expected.min() > 1.05
        torch.testing.assert_close(spread.ratio, expected.double(), atol=1e-5, rtol=0)

    def test_members_are_predicted_once_a_window_whatever_their_number(self):
        """The ring takes 16 kB and one window 15 of the 35 for both: of several, one at a time."""
        image, seen = torch.randn(1, 24, 16, 16), []
        networks = [pointwise(self.VIEW, 1) for _ in range(6)]
        for network in networks:
            network.register_forward_hook(lambda _, windows, __: seen.append(len(windows[0])))
        for some, mirrors in ((networks[:1], ()), (networks, (1, 2))):
            seen.clear()
            predict_case(
                some, image, self.VIEW, activation=softmax, mirror_axes=mirrors, spread=Spread(),
                budget_gb=40e-6, window_batch=4,
            )  # fmt: skip
            assert sum(seen) == 8 * 9 * len(some) * 2 ** len(mirrors)
            assert max(seen) == seen[0] == 4
            assert seen[-1] == 1

    def test_autocast_holds_around_the_network_and_not_around_the_mean(self):
        seen = []

        class Spy(nn.Conv3d):
            def forward(self, image):
                seen.append(super().forward(image))
                return seen[-1]

        image = torch.randn(1, 4, 8, 8)
        got = predict_case(
            Spy(1, 2, 1), image, self.VIEW, activation=softmax, autocast=torch.bfloat16
        )
        assert seen[0].dtype == torch.bfloat16
        assert got.dtype == torch.float32


class TestNorms:
    """The network without a window sees torch's own functions."""

    def spied(self, network, image, monkeypatch, **options):
        calls, group_norm = [], functional.group_norm
        monkeypatch.setattr(
            functional, "group_norm", lambda *a, **k: calls.append(a[0]) or group_norm(*a, **k)
        )
        view = View(tuple(image.shape[1:]))
        return predict_case(network, image, view, activation=softmax, **options), calls

    @pytest.mark.parametrize(("edge", "small"), [(8, True), (16, False)])
    @pytest.mark.parametrize("affine", [True, False])
    def test_instance_norms_are_done_in_one_pass_with_the_same_result(
        self, affine, edge, small, monkeypatch
    ):
        """Maps of 256 voxels in the order of their channels, those of 1024 as they lie."""
        torch.manual_seed(0)
        norm = nn.InstanceNorm3d(2, eps=0.1, affine=affine)
        for parameter in norm.parameters():
            nn.init.normal_(parameter)
        image = 3 * torch.randn(2, 4, edge, edge) + 1
        expected = softmax(norm(image[None]))[0]
        last = torch.channels_last_3d

        def network(windows):
            return norm(windows.contiguous(memory_format=last))

        got, (seen,) = self.spied([network], image, monkeypatch)
        assert seen.is_contiguous(memory_format=last) != small
        assert seen.is_contiguous() == small
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)

    def test_a_norm_of_one_voxel_is_refused_as_ever(self):
        norm = nn.InstanceNorm3d(2)
        image = torch.randn(2, 1, 1, 8)
        with pytest.raises(ValueError, match="more than 1 spatial element"):
            predict_case(norm, image, View((1, 1, 1)), activation=softmax)

    def test_norms_with_statistics_of_their_own_keep_them(self, monkeypatch):
        torch.manual_seed(0)
        norm = nn.InstanceNorm3d(2, track_running_stats=True)
        norm.running_mean += 2
        norm.eval()
        image = torch.randn(2, 4, 8, 8)
        expected = softmax(norm(image[None]))[0]
        got, calls = self.spied(norm, image, monkeypatch)
        assert not calls
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_entropy_by_hand():
    probability = torch.tensor([[1.0, 0.5, 0.25], [0.0, 0.5, 0.75]])
    quarter = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    for exclusive in (True, False):
        got = entropy(probability, exclusive=exclusive)
        torch.testing.assert_close(got, torch.tensor([0, 1, quarter]))


def test_slabs_by_hand():
    image = torch.arange(3.0)[None, :, None, None]
    assert slabs(image, 1)[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    assert slabs(image, 0)[:, :, 0, 0].tolist() == [[0], [1], [2]]
    assert slabs(image, 1, slices=[2])[:, :, 0, 0].tolist() == [[1, 2, 2]]


def test_one_slice_with_context_is_its_own_neighbour():
    assert slabs(torch.full((1, 1, 2, 2), 5.0), 2).unique().tolist() == [5.0]
