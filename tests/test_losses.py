"""Every conf/loss/*.yaml keeps the contract of a loss and has the value of a NumPy reference.

A new YAML is tested as soon as it exists; the one thing to add is its reference.
"""

import numpy as np
import pytest
import torch
from loss_inputs import CONFIGS, build, certain, draw, gradient, situation
from loss_references import REFERENCES, frequency
from torch import nn

from segshift.errors import InputError
from segshift.losses import BCE, IGNORE, CrossEntropy
from segshift.losses.contract import full_precision

SIZES = {"2D": (6, 7), "3D": (4, 5, 6)}

each_loss = pytest.mark.parametrize("name", sorted(CONFIGS))
each_view = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def each_but(names):
    """Every loss but those that do not claim it."""
    return pytest.mark.parametrize("name", sorted(CONFIGS.keys() - names))


# What a loss does not claim, each with the reason.
# A volume in float32 is off by up to 1e-7, and so is its power e below 1 by up to 1e-7^e near 0.
ROUNDING = {"unified_focal": 0.5 * 1e-7**0.5, "focal_tversky": 1e-7**0.75}
NOT_ADDITIVE = {"generalised_dice"}  # a ratio of sums over structures
NOT_MEAN_OVER_BATCH = {
    "topk",  # the hardest of the whole batch
    "dice_ce", "dice_focal", "skeleton_recall", "blob",  # batch_dice: one Dice of the whole batch
}  # fmt: skip
NOT_OF_ANY_SIZE = {"skeleton_recall"}  # a filled block's skeleton is its middle, whatever its size
NOT_THAT_OF_THE_CROP = {  # where the rest of a patch is ignored
    "boundary", "generalised_surface", "hausdorff_dt", "sum",  # a fraction of the patch's diagonal
    "cl_dice",  # a skeleton may leave the patch, but not enter what is ignored
}  # fmt: skip
NOT_MEAN_OVER_REGIONS = {"generalised_dice"}  # a ratio of sums over structures
NOT_TWO_CLASSES = {
    "bce", "weighted_bce", "sigmoid_focal",  # one-vs-rest counts the background's channel too
    "nacl",  # holds the logits themselves, not their differences
}  # fmt: skip


# The contract, for every YAML.


@each_loss
@each_view
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("kind", ["random", "empty", "full", "perfect", "worst"])
def test_value_is_that_of_the_reference(name, size, k, kind):
    assert name in REFERENCES, f"add an independent reference for {name}.yaml to REFERENCES"
    logits, label = situation(kind, k, size)
    exact = logits.double()
    for weight in (None, np.linspace(0.2, 1.7, k), np.arange(k) % 2):
        loss = build(name, k, weight)
        expected = REFERENCES[name](exact.numpy(), label[:, 0].numpy(), weight)
        assert loss(exact, label).shape == ()
        assert float(loss(exact, label)) == pytest.approx(expected, rel=2e-6, abs=1e-7)
        single = pytest.approx(expected, rel=1e-5, abs=ROUNDING.get(name, 1e-6))
        assert float(loss(logits, label)) == single


@each_loss
@pytest.mark.parametrize("kind", ["random", "empty", "worst"])
def test_gradient_is_that_of_the_value(name, kind):
    logits, label = situation(kind, 3, (3, 4))
    loss = build(name, 3, [0.5, 1.0, 2.0])
    assert torch.autograd.gradcheck(lambda z: loss(z, label), logits.double().requires_grad_())


@each_loss
@each_view
@pytest.mark.parametrize("k", [2, 4])
def test_perfect_is_lowest_and_inverted_highest(name, size, k):
    """How sure a prediction should be is up to the loss: calibration asks for less than all."""
    logits, label = draw(k, size)
    loss = build(name, k)
    others = [float(loss(other, label)) for other in (logits, torch.zeros_like(logits))]
    sure = (0.7, 1.5, 3.0, 8.0)
    right = [float(loss(certain(label, k, logit), label)) for logit in sure]
    wrong = [float(loss(certain(label, k, -logit), label)) for logit in sure]
    assert min(right) < min(others)
    assert max(wrong) == wrong[-1] > max(others)
    assert all(r < w for r, w in zip(right, wrong, strict=True))


@each_loss
@each_view
@pytest.mark.parametrize("k", [2, 3])
def test_empty_foreground_punishes_a_false_positive(name, size, k):
    label = torch.zeros(2, 1, *size, dtype=torch.int64)
    found = label.clone()
    found[..., 1:3, 2:4] = 1
    logits, loss = certain(found, k, 1.5), build(name, k)
    slope = gradient(loss, logits, label)
    assert loss(logits, label).isfinite()
    assert slope.isfinite().all()
    assert slope.norm() > 1e-4
    stepped = logits - slope / slope.norm()
    assert stepped.softmax(1)[:, 1:].mean() < logits.softmax(1)[:, 1:].mean() - 1e-4


@each_loss
@each_view
def test_permuted_structures_have_the_same_value(name, size):
    logits, label = draw(4, size)
    order = torch.tensor([0, 3, 1, 2])  # the background stays: some losses leave it out
    permuted = order.argsort()[label]
    for weight in (None, torch.tensor([0.3, 0.5, 1.1, 2.0])):
        moved_weight = None if weight is None else weight[order]
        moved_loss = build(name, 4, moved_weight, frequency(4)[order.numpy()])
        value, moved = build(name, 4, weight)(logits, label), moved_loss(logits[:, order], permuted)
        assert float(moved) == pytest.approx(float(value), rel=1e-5)


@each_loss
@each_view
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing_and_huge_logits_stay_finite(name, size, dtype):
    logits, label = draw(3, size)
    loss = build(name, 3)
    for half in (logits.to(dtype), (1e4 * logits.sign()).to(dtype)):
        with torch.autocast("cpu", dtype=dtype):
            value, slope = loss(half, label), gradient(loss, half, label)
        assert value.dtype == torch.float32
        assert value.isfinite()
        assert slope.isfinite().all()
        assert value == loss(half.float(), label)


def test_full_precision_holds_for_products_too():
    class Product(nn.Module):
        @full_precision
        def forward(self, logits, label):
            return (logits @ logits.mT).mean()

    logits, label = draw(2, (6, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (logits @ logits.mT).dtype == torch.bfloat16
        value = Product()(logits, label)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, (logits @ logits.mT).mean())


@each_but(NOT_OF_ANY_SIZE)
@each_view
@pytest.mark.parametrize("structure", [0, 1, 2])
def test_value_of_constant_input_ignores_the_patch_size(name, size, structure):
    def constant(scale):
        patch = [scale * n for n in size]
        logits = torch.tensor([6.0, -6.0, 5.0]).view(1, 3, *[1] * len(patch)).expand(2, 3, *patch)
        return build(name, 3)(logits, torch.full((2, 1, *patch), structure))

    assert float(constant(2)) == pytest.approx(float(constant(1)), rel=1e-5)


@each_but(NOT_ADDITIVE)
@each_view
def test_weight_zero_silences_that_structure_only(name, size):
    """Terms add up over structures: without one, what is left is the sum of the others' terms."""
    logits, label = draw(3, size)

    def value_and_slope(weight):
        loss = build(name, 3, weight)
        return float(loss(logits, label)), gradient(loss, logits, label)

    alone = [value_and_slope(row) for row in np.eye(3)]
    for silent in range(3):
        value, slope = value_and_slope(1 - np.eye(3)[silent])
        left = [term for structure, term in enumerate(alone) if structure != silent]
        assert value == pytest.approx(sum(v for v, _ in left), rel=1e-5, abs=1e-6)
        torch.testing.assert_close(slope, sum(s for _, s in left), rtol=1e-4, atol=1e-7)
    value, slope = value_and_slope(np.zeros(3))
    assert value == 0
    assert not slope.any()


@each_but(NOT_MEAN_OVER_BATCH)
@each_view
def test_value_of_a_batch_is_the_mean_of_its_halves(name, size):
    logits, label = draw(3, size, batch=4)
    loss = build(name, 3, [0.5, 1.0, 2.0])
    halves = [float(loss(*half)) for half in zip(logits.split(2), label.split(2), strict=True)]
    assert float(loss(logits, label)) == pytest.approx(np.mean(halves), rel=1e-5)


# Ignored voxels and regions, which lead back to what was tested above.


def with_ignored(label, seed=0):
    """About a third of the voxels ignored, in every sample."""
    random = torch.Generator().manual_seed(seed)
    return label.masked_fill(torch.rand(label.shape, generator=random) < 0.3, IGNORE)


def as_regions(label, k):
    """Overlapping int8 (B, k, *S) of class indices: region r holds the classes from r on."""
    return torch.cat([label >= r for r in range(k)], 1).to(torch.int8)


@each_loss
@each_view
@pytest.mark.parametrize("regions", [False, True])
def test_ignored_voxels_have_neither_value_nor_gradient(name, size, regions):
    logits, label = draw(3, size)
    hidden = with_ignored(label)
    where = (hidden == IGNORE).expand_as(logits)
    if regions:
        hidden = as_regions(label, 3).masked_fill(hidden == IGNORE, IGNORE)
    weight = [0.5, 1.0, 2.0]
    loss = build(name, 3, weight)
    slope = gradient(loss, logits, hidden)
    assert not slope[where].any()
    assert slope[~where].any()
    for other in (-logits, logits + 30, torch.full_like(logits, 1e4)):
        changed = torch.where(where, other, logits)
        assert loss(changed, hidden) == loss(logits, hidden)
    nothing = torch.full_like(hidden, IGNORE)
    assert float(loss(logits, nothing)) == 0
    assert not gradient(loss, logits, nothing).any()


@each_but(NOT_THAT_OF_THE_CROP)
@each_view
def test_a_patch_whose_rest_is_ignored_has_the_value_of_the_crop(name, size):
    logits, label = draw(3, size)
    hidden = label.clone()
    hidden[..., 4:] = IGNORE
    loss = build(name, 3, [0.5, 1.0, 2.0])
    whole, crop = loss(logits, hidden), loss(logits[..., :4], label[..., :4])
    assert float(whole) == pytest.approx(float(crop), rel=1e-5)


@each_but(NOT_TWO_CLASSES)
@each_view
@pytest.mark.parametrize("kind", ["random", "empty", "full"])
def test_one_region_is_a_problem_of_two_classes(name, size, kind):
    """sigmoid(x) is the softmax of (0, x)."""
    logits, label = situation(kind, 2, size)
    logits[:, 0] = 0
    region = label.to(torch.int8)
    for value in (label, with_ignored(label)):
        region = value.to(torch.int8)
        expected = float(build(name, 2)(logits, value))
        got = float(build(name, 1)(logits[:, 1:], region))
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)


@each_but(NOT_MEAN_OVER_REGIONS)
@each_view
def test_regions_are_a_mean_over_regions_each_times_its_weight(name, size):
    logits, label = draw(4, size)
    logits, regions = logits[:, 1:], as_regions(label, 4)[:, 1:]
    weight = [0.5, 1.0, 2.0]
    alone = [
        w * float(build(name, 1, [1.0])(logits[:, r : r + 1], regions[:, r : r + 1]))
        for r, w in enumerate(weight)
    ]
    got = float(build(name, 3, weight)(logits, regions))
    assert got == pytest.approx(np.mean(alone), rel=1e-5)


@each_loss
@each_view
def test_absent_regions_punish_a_false_positive(name, size):
    regions = torch.zeros(2, 2, *size, dtype=torch.int8)
    logits = torch.full(regions.shape, -1.5)
    logits[..., 1:3, 2:4] = 1.5
    slope = gradient(build(name, 2, [1.0, 1.0]), logits, regions)
    assert slope.isfinite().all()
    assert slope[..., 1:3, 2:4].norm() > 1e-4
    assert slope[..., 1:3, 2:4].min() >= 0


def test_bce_of_regions_is_cross_entropy_and_derived_weights_are_refused():
    logits, label = draw(3, (6, 7))
    regions = as_regions(label, 3)
    torch.testing.assert_close(BCE()(logits, regions), CrossEntropy()(logits, regions))
    for number in (2, 3):  # three frequencies, whatever the number of regions
        with pytest.raises(InputError, match=r"loss\.weight"):
            build("weighted_bce", 3)(logits[:, :number], regions[:, :number])
    assert build("weighted_bce", 3, [1, 1, 1])(logits, regions) == BCE()(logits, regions)


@each_loss
def test_wrong_weight_is_an_input_error(name):
    logits, label = draw(3, (4, 5))
    with pytest.raises(InputError, match=r"2 value.*3 structures"):
        build(name, 3, [1.0, 2.0])(logits, label)
    with pytest.raises(InputError, match=r"weight.*-1\.0"):
        build(name, 3, [1.0, -1.0, 1.0])


@each_loss
def test_wrong_shapes_are_refused(name):
    logits, label = draw(3, (4, 5))
    loss = build(name, 3)
    for bad_logits, bad_label in (
        (logits, label[:, 0]),
        (logits, label[..., :4]),
        (logits, label.float()),
        (logits[:, :1], label),
        (logits, label.to(torch.int8)),
        (logits[..., 0], label[..., 0]),
    ):
        # weighted_bce speaks of regions before anything else.
        with pytest.raises((AssertionError, InputError), match=r"logits|label|regions"):
            loss(bad_logits, bad_label)
    with pytest.raises((RuntimeError, IndexError)):
        loss(logits, label + 1)


@each_loss
def test_no_hidden_state_and_the_yaml_begins_with_its_target(name):
    logits, label = draw(3, (4, 5))
    loss = build(name, 3, [1.0, 2.0, 3.0])
    assert loss(logits, label) == loss.eval()(logits, label)
    assert not loss.state_dict()
    assert not list(loss.parameters())
    lines = [x for x in CONFIGS[name].read_text().splitlines() if not x.startswith("#")]
    assert lines[0].startswith("_target_: ")
