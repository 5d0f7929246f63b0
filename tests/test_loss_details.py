"""What is particular to one loss, to sums of them and to distances."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from loss_inputs import CONFIGS, certain, draw, gradient
from loss_references import SPACING_MM, reference_distance, reference_phi, sigmoid
from monai.losses import FocalLoss
from omegaconf import OmegaConf
from scipy.ndimage import binary_dilation, generate_binary_structure
from skimage.morphology import skeletonize

from segshift.errors import InputError
from segshift.losses import (
    BCE,
    NACL,
    Boundary,
    ClDice,
    CrossEntropy,
    Dice,
    Focal,
    GeneralisedSurface,
    HausdorffDT,
    Scheduled,
    SigmoidFocal,
    SkeletonRecall,
    TopK,
    Tversky,
    UnifiedFocal,
    WeightedSum,
    inverse_frequency,
    signed_distance_mm,
)
from segshift.losses.distance import separable
from segshift.terms import SUM, with_terms


def test_focal_lives_where_monai_is_dead():
    logits, label = draw(2, (6, 7))
    monai = FocalLoss(use_softmax=True, include_background=False, to_onehot_y=True)
    assert monai(logits, label) == 0
    assert not gradient(monai, logits, label).any()
    assert Focal()(logits, label) > 0.1
    assert gradient(Focal(), logits, label).abs().min() > 0


@pytest.mark.parametrize("alpha", [0.25, [0.1, 0.5, 0.8]])
def test_alpha_splits_a_structures_own_voxels_from_the_rest(alpha):
    logits, label = draw(3, (6, 7))
    shares = np.broadcast_to(alpha, 3)
    z, y, terms = logits.double().numpy(), label[:, 0].numpy(), []
    for s in range(3):
        p = sigmoid(z[:, s])
        own = shares[s] * (1 - p) ** 2 * -np.log(p)
        rest = (1 - shares[s]) * p**2 * -np.log(1 - p)
        terms.append(np.where(y == s, own, rest).mean())
    assert float(SigmoidFocal(alpha=alpha)(logits, label)) == pytest.approx(np.mean(terms))
    with pytest.raises(InputError, match="alpha"):
        SigmoidFocal(alpha=1.5)
    with pytest.raises(InputError, match=r"alpha has 2 values.*3 structures"):
        SigmoidFocal(alpha=[0.5, 0.5])(logits, label)


def test_an_option_at_its_neutral_value_gives_the_loss_it_generalises():
    logits, label = draw(3, (6, 7))
    for general, special in (
        (TopK(share=1.0), CrossEntropy()),
        (CrossEntropy(smoothing=0.0), CrossEntropy()),
        (NACL(alpha=0.0), CrossEntropy()),
        (Focal(gamma=0.0), CrossEntropy()),
        (SigmoidFocal(gamma=0.0), BCE()),
        (Tversky(fp=0.5, fn=0.5, gamma=1.0, smooth=0.5e-5), Dice()),
    ):
        assert float(general(logits, label)) == pytest.approx(float(special(logits, label)))


def test_the_widest_tube_is_the_whole_bar_and_more_iterations_find_the_middle_of_a_thick_one():
    label = torch.zeros(1, 1, 21, 21, dtype=torch.int64)
    label[..., 6:15, 2:19] = 1  # nine voxels thick
    thin = label.clone()
    thin[..., :9, :], thin[..., 12:, :] = 0, 0  # its middle three
    found = certain(thin, 2, 20.0)
    narrow, whole = (float(SkeletonRecall(radius=r)(found, label)) for r in (0, 8))
    assert whole == pytest.approx(2 / 3, abs=1e-3)  # 3 of 9 rows are found
    assert narrow < whole / 3
    hole = certain(label, 2, 20.0)
    hole[:, :, 9:12, 9:12] *= -1  # breaks the skeleton, which one erosion does not reach
    few, enough = (float(ClDice(iterations=i)(hole, label)) for i in (1, 6))
    assert few < 0.01
    assert enough > 0.1


def tubes(loss, label, channels):
    """Bool (C, *S): where more of a channel's probability lowers the loss of one sample."""
    return gradient(loss, torch.zeros(1, channels, *label.shape[2:]), label)[0] < 0


def by_hand(mask, footprint, times):
    return binary_dilation(skeletonize(mask), footprint, iterations=times) & mask


def test_the_tube_of_a_vessel_is_its_skeleton_dilated_twice_by_a_cross():
    """A straight vessel of radius 5; a box of two voxels around its skeleton is twice as large."""
    _, y, x = np.indices((24, 15, 15))
    vessel = np.hypot(y - 7, x - 7) < 5
    cross = by_hand(vessel, generate_binary_structure(3, 1), 2)
    assert (cross.sum(), by_hand(vessel, np.ones((5, 5, 5)), 1).sum()) == (272, 600)
    found = tubes(SkeletonRecall(), torch.from_numpy(vessel).long()[None, None], 2)
    np.testing.assert_array_equal(found[1].numpy(), cross)
    flat = by_hand(vessel[:, 7], generate_binary_structure(2, 1), 3)
    found = tubes(SkeletonRecall(radius=3), torch.from_numpy(vessel[None, None, :, 7]).long(), 2)
    np.testing.assert_array_equal(found[1].numpy(), flat)


def test_structures_share_one_skeleton_and_regions_have_one_each():
    """Two halves of a bar; alone, each half's skeleton would end short of the seam."""
    halves = np.zeros((2, 13, 40), bool)
    halves[0, 3:10, 2:20], halves[1, 3:10, 20:38] = True, True
    whole, cross = halves.any(0), generate_binary_structure(2, 1)
    shared = by_hand(whole, cross, 2) & halves
    own = np.stack([by_hand(half, cross, 2) for half in halves])
    assert shared.sum() != own.sum()
    label = torch.from_numpy(halves[0] + 2 * halves[1]).long()[None, None]
    np.testing.assert_array_equal(tubes(SkeletonRecall(), label, 3)[1:].numpy(), shared)
    regions = torch.from_numpy(halves).to(torch.int8)[None]
    np.testing.assert_array_equal(tubes(SkeletonRecall(), regions, 2).numpy(), own)


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_bar_has_a_soft_skeleton_up_to_two_voxels_more_than_twice_the_iterations(iterations):
    for thick, seen in ((2 * iterations + 2, True), (2 * iterations + 3, False)):
        label = torch.zeros(1, 1, 20, 8, dtype=torch.int64)
        label[..., 4 : 4 + thick, :] = 1  # through the patch: a corner always has a skeleton
        tube = tubes(ClDice(iterations=iterations), label, 2)[1, 4 : 4 + thick]
        assert bool(tube.any()) == seen


def papers_generalised_surface(z, y, w):
    """Celaya et al. 2023: one ratio of sums over structures, each times w (K,); no background."""
    p = np.exp(z) / np.exp(z).sum(0)
    of_phi = [reference_phi(y == k) for k in range(len(z))]
    worst = sum(w[k] * (of_phi[k] ** 2).sum() for k in range(1, len(z)))
    agreed = sum(
        w[k] * (of_phi[k] ** 2 * (1 - (y == k) - p[k]) ** 2).sum() for k in range(1, len(z))
    )
    return 1 - agreed / worst


@pytest.mark.parametrize("size", [(6, 7), (4, 5, 6)])
def test_generalised_surface_is_the_papers_where_its_class_weights_make_structures_equal(size):
    logits, label = draw(4, size, batch=1)
    z, y = logits[0].double().numpy(), label[0, 0].numpy()
    equal = [0, *(1 / (reference_phi(y == k) ** 2).sum() for k in (1, 2, 3))]
    got = float(GeneralisedSurface(spacing_mm=SPACING_MM)(logits, label))
    assert got == pytest.approx(papers_generalised_surface(z, y, equal), rel=1e-5)
    rare = [0, *(1 / (y == k).sum() for k in (1, 2, 3))]  # the paper's own, up to a factor
    assert got != pytest.approx(papers_generalised_surface(z, y, rare), rel=1e-5)
    one, only = (label > 0).long(), [0, 17.0]  # of one structure any weight is the same
    got = float(GeneralisedSurface(spacing_mm=SPACING_MM)(logits[:, :2], one))
    expected = papers_generalised_surface(z[:2], one[0, 0].numpy(), only)
    assert got == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_of_a_certain_voxel_has_a_finite_slope(gamma):
    _, label = draw(3, (6, 7))
    for logit in (1e4, -1e4):
        slope = gradient(Focal(gamma=gamma), certain(label, 3, logit), label)
        assert slope.isfinite().all()


def test_batch_dice_is_the_dice_of_one_big_patch():
    logits, label = draw(3, (6, 7))
    as_one = [torch.cat(list(tensor), dim=1)[None] for tensor in (logits, label)]
    for loss in (Dice, Tversky):
        big = float(loss()(*as_one))
        assert float(loss(batch_dice=True)(logits, label)) == pytest.approx(big, rel=1e-5)
        assert float(loss()(logits, label)) != pytest.approx(big, rel=1e-5)


def test_without_background_the_mean_is_over_the_foreground():
    logits, label = draw(3, (6, 7))
    for loss in (Dice, Tversky):
        foreground = float(loss(include_background=False)(logits, label))
        silenced = float(loss(weight=[0.0, 1.0, 1.0])(logits, label))
        assert foreground == pytest.approx(silenced * 3 / 2, rel=1e-5)


@pytest.mark.parametrize("loss", [BCE, CrossEntropy, Focal])
def test_weight_zero_silences_the_voxels_of_that_structure(loss):
    logits, label = draw(3, (6, 7))
    slope = gradient(loss(weight=[1.0, 0.0, 2.0]), logits, label)
    plain = gradient(loss(), logits, label)
    for structure, factor in enumerate((1, 0, 2)):
        here = (label == structure).expand_as(logits)
        torch.testing.assert_close(slope[here], factor * plain[here])


@pytest.mark.parametrize("weighted", [False, True])
def test_inverse_frequency_moves_the_minimum_of_bce_to_equal_probabilities(weighted):
    """Logits that are the same everywhere, with structures in 24, 12 and 4 of 40 voxels.

    With p the sigmoid of channel k, its loss is -f_k w_k log p - (sum_{j != k} f_j w_j) log(1 - p),
    lowest at p = f_k w_k / sum_j f_j w_j: f_k for equal weights, 1 / K for w_j = 1 / (K f_j).
    """
    label = torch.tensor([0] * 24 + [1] * 12 + [2] * 4).view(1, 1, 5, 8)
    share = [0.6, 0.3, 0.1]
    loss = BCE(weight=inverse_frequency(share) if weighted else None)
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def step():
        optimiser.zero_grad()
        value = loss(logits.view(1, 3, 1, 1).expand(1, 3, 5, 8), label)
        value.backward()
        return value

    optimiser.step(step)
    expected = [1 / 3] * 3 if weighted else share
    assert logits.sigmoid().tolist() == pytest.approx(expected, abs=1e-4)


def test_inverse_frequency_is_one_in_the_mean_over_voxels_and_survives_an_absent_structure():
    assert inverse_frequency((0.9, 0.09, 0.01)) == pytest.approx((1 / 2.7, 1 / 0.27, 1 / 0.03))
    # Two structures present, the third with the weight of the rarer one: 1 / (2 * 0.1).
    assert inverse_frequency((0.9, 0.1, 0.0)) == pytest.approx((1 / 1.8, 5, 5))
    for share in ((0.9, 0.09, 0.01), (0.9, 0.1, 0.0)):
        assert np.dot(inverse_frequency(share), share) == pytest.approx(1)
    for wrong in ((0.5, 0.4), (1.5, -0.5), (math.nan, 1.0)):
        with pytest.raises(InputError, match="sum to 1"):
            inverse_frequency(wrong)


def test_options_out_of_range_are_input_errors():
    wrong = [
        lambda: Focal(gamma=-1.0),
        lambda: Dice(smooth=0.0),
        lambda: Tversky(fp=0.0),
        lambda: Tversky(gamma=0.0),
        lambda: TopK(share=0.0),
        lambda: TopK(share=1.5),
        lambda: CrossEntropy(smoothing=-0.1),
        lambda: NACL(alpha=-1.0),
        lambda: NACL(alpha=math.inf),
        lambda: UnifiedFocal(fn=1.5),
        lambda: UnifiedFocal(gamma=1.0),
        lambda: Focal(gamma="a"),
        lambda: Dice(weight=3),
        lambda: SigmoidFocal(alpha=["a"]),
        lambda: WeightedSum(terms={"dice": Dice()}, weights={"dice": "a"}),
        lambda: WeightedSum(terms={"dice": Dice()}, increase="dice"),
        lambda: ClDice(iterations=True),
        lambda: HausdorffDT(spacing_mm=SPACING_MM, alpha=0.0),
        lambda: ClDice(iterations=0),
        lambda: SkeletonRecall(radius=-1),
        lambda: Tversky(fn=math.inf),
        lambda: Boundary(spacing_mm=(1.0, 1.0)),
        lambda: Boundary(spacing_mm=(1.0, 0.0, 1.0)),
        lambda: WeightedSum(terms={"dice": Dice()}, weights={"dice": -1.0}),
        lambda: WeightedSum(terms={}, weights={}),
    ]
    for make in wrong:
        with pytest.raises(InputError):
            make()


def test_weighted_sum_adds_its_terms_and_lists_them_when_a_weight_names_another():
    logits, label = draw(3, (6, 7))
    terms = {"dice": Dice(), "ce": CrossEntropy()}
    value = WeightedSum(terms=terms, weights={"ce": 2.0})(logits, label)
    expected = terms["dice"](logits, label) + 2 * terms["ce"](logits, label)
    torch.testing.assert_close(value, expected)
    for wrong in (
        {"weights": {"dice": 1.0, "focal": 1.0}},
        {"increase": ["focal"]},
        {"rebalance": ["focal"]},
    ):
        with pytest.raises(InputError, match=r"\['ce', 'dice'\].*\['focal'\]"):
            WeightedSum(terms=terms, **wrong)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("increase", {0.0: (1, 0.01), 0.25: (1, 0.25), 1.0: (1, 1)}),
        ("rebalance", {0.0: (1, 0.01), 0.25: (0.75, 0.25), 1.0: (0.01, 1)}),
    ],
)
def test_scheduled_weights_follow_the_training(schedule, factors):
    logits, label = draw(3, (6, 7))
    terms = {"dice": Dice(), "boundary": Boundary(spacing_mm=SPACING_MM)}
    weights = {"dice": 2.0, "boundary": 3.0}
    loss = WeightedSum(terms=terms, weights=weights, **{schedule: ["boundary"]})
    assert isinstance(loss, Scheduled)
    for progress, (dice, boundary) in factors.items():
        expected = 2 * dice * terms["dice"](logits, label)
        expected = expected + 3 * boundary * terms["boundary"](logits, label)
        torch.testing.assert_close(loss.at(progress)(logits, label), expected)
    assert loss.weights == weights, "the loss itself has no state"
    constant = WeightedSum(terms=terms, weights=weights)
    assert constant.at(0.3) is constant
    nested = WeightedSum(terms={"inner": loss}, weights={"inner": 2.0})
    torch.testing.assert_close(nested.at(0.5)(logits, label), 2 * loss.at(0.5)(logits, label))


def test_terms_by_name_take_the_yaml_and_of_a_sum_the_term():
    folder = CONFIGS["dice"].parent

    def expanded(terms):
        config = OmegaConf.create({"_target_": SUM, "terms": terms, "weights": None})
        return with_terms(config, [folder]).terms

    named = expanded(["dice", "boundary", "dice_ce"])
    assert named.dice == OmegaConf.load(CONFIGS["dice"])
    assert named.boundary == OmegaConf.load(CONFIGS["boundary"]).terms.boundary
    assert named.dice_ce == OmegaConf.load(CONFIGS["dice_ce"])
    chosen = expanded({"tversky": {"fp": 0.4}, "own": {"_target_": "my.Loss", "x": 1}})
    assert (chosen.tversky.fp, chosen.tversky.fn, chosen.own) == (
        0.4, 0.7, {"_target_": "my.Loss", "x": 1}
    )  # fmt: skip
    assert expanded("dice").dice == named.dice
    whole = OmegaConf.load(CONFIGS["boundary"])
    assert with_terms(whole, [folder]) == whole
    theirs = OmegaConf.create({"_target_": "their.Loss", "terms": ["a"]})
    assert with_terms(theirs, [folder]) == theirs
    for wrong, message in (
        (["dyce"], r"no loss 'dyce'.*dice_ce"),
        (["sum"], r"no loss 'sum'"),
        (["dice", "dice"], "once"),
        ([], "at least one"),
        (5, "loss.terms=5: a list"),
        ({"dice": 3}, r"loss\.weights='\{dice: 3\}'"),
        ({"dice": {"smoth": 1}}, r"no option 'smoth'.*smooth"),
    ):
        with pytest.raises(InputError, match=message):
            expanded(wrong)


def test_boundary_grows_with_the_distance_of_a_false_positive_in_mm():
    label = torch.zeros(1, 1, 16, 16, dtype=torch.int64)
    label[..., :4, :4] = 1
    loss = Boundary(spacing_mm=(1.0, 3.0, 1.0))

    def with_false_positive_at(row, column):
        found = label.clone()
        found[..., row, column] = 1
        return float(loss(certain(found, 2), label))

    assert with_false_positive_at(2, 6) < with_false_positive_at(2, 9)
    assert with_false_positive_at(2, 9) < with_false_positive_at(9, 2)  # rows are 3 mm apart


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_signed_distance_is_scipys_and_odd(data):
    shape = data.draw(st.lists(st.integers(1, 7), min_size=2, max_size=3))
    mask = data.draw(arrays(bool, (2, 2, *shape)))
    spacing_mm = data.draw(st.tuples(*[st.floats(0.3, 6.0) for _ in shape]))
    distance = signed_distance_mm(torch.from_numpy(mask), spacing_mm)
    assert distance.dtype == torch.float32
    for index in np.ndindex(2, 2):
        expected = reference_distance(mask[index], spacing_mm)
        np.testing.assert_allclose(distance[index].numpy(), expected, atol=1e-4)
    assert torch.equal(signed_distance_mm(torch.from_numpy(~mask), spacing_mm), -distance)
    on_any_device = separable(torch.from_numpy(mask), spacing_mm)
    np.testing.assert_allclose(on_any_device.numpy(), distance.numpy(), rtol=1e-5)


@pytest.mark.gpu
def test_signed_distance_never_leaves_the_device():
    mask = torch.rand(2, 3, 20, 24, 28, generator=torch.Generator().manual_seed(0)) > 0.7
    there = mask.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        distance = signed_distance_mm(there, (3.0, 1.0, 0.5))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(distance.cpu(), signed_distance_mm(mask, (3.0, 1.0, 0.5)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(-50, 50))
def test_softmax_losses_have_bounds_and_ignore_a_common_shift(seed, k, shift):
    logits, label = draw(k, (3, 5), seed)
    for loss, highest in ((Dice(), 1), (Tversky(), 1), (CrossEntropy(), 50), (Focal(), 50)):
        value = float(loss(logits, label))
        assert 0 <= value <= highest
        assert float(loss(logits + shift, label)) == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert float(Focal()(logits, label)) <= float(CrossEntropy()(logits, label))
