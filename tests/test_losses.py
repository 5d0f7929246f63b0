"""Every conf/loss/*.yaml keeps the contract of a loss and has the value of a NumPy reference.

A new YAML is tested as soon as it exists; the one thing to add here is its reference.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.losses import FocalLoss
from omegaconf import DictConfig, OmegaConf
from scipy.ndimage import distance_transform_edt
from torch import nn

from segshift.errors import InputError
from segshift.losses import (
    BCE,
    Boundary,
    CrossEntropy,
    Dice,
    Focal,
    Tversky,
    WeightedSum,
    inverse_frequency,
    signed_distance_mm,
)
from segshift.losses.contract import full_precision

CONFIGS = {path.stem: path for path in Path(__file__).parents[1].glob("conf/loss/*.yaml")}
SPACING_MM = (3.0, 1.5, 0.8)
SIZES = {"2D": (6, 7), "3D": (4, 5, 6)}
SMOOTH = 1e-5

each_loss = pytest.mark.parametrize("name", sorted(CONFIGS))
each_view = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


# References in float64, no code shared with the package: z (B, K, *S), y (B, *S), w (K,) | None.


def frequency(k):
    return np.arange(k, 0, -1) / np.arange(k, 0, -1).sum()


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def ones_unless(w, k):
    return np.ones(k) if w is None else np.asarray(w, float)


def reference_bce(z, y, w):
    k = z.shape[1]
    p, of_voxel = 1 / (1 + np.exp(-z)), ones_unless(w, k)[y]
    per_structure = [
        (of_voxel * -np.where(y == s, np.log(p[:, s]), np.log(1 - p[:, s]))).mean()
        for s in range(k)
    ]
    return float(np.mean(per_structure))


def reference_weighted_bce(z, y, w):
    k = z.shape[1]
    return reference_bce(z, y, 1 / (k * frequency(k)) if w is None else w)


def reference_focal(z, y, w, gamma=2.0):
    p_y = np.take_along_axis(softmax(z), y[:, None], 1)[:, 0]
    return float((ones_unless(w, z.shape[1])[y] * (1 - p_y) ** gamma * -np.log(p_y)).mean())


def reference_cross_entropy(z, y, w):
    return reference_focal(z, y, w, gamma=0.0)


def reference_tversky(z, y, w, fp=0.3, fn=0.7, smooth=SMOOTH, first=0):
    weight, terms = ones_unless(w, z.shape[1]), []
    for p, label in zip(softmax(z), y, strict=True):
        for s in range(first, z.shape[1]):
            g = label == s
            hit, false, missed = (p[s] * g).mean(), (p[s] * ~g).mean(), ((1 - p[s]) * g).mean()
            terms.append(
                weight[s] * (1 - (hit + smooth) / (hit + fp * false + fn * missed + smooth))
            )
    return float(np.mean(terms))


def reference_dice(z, y, w, first=0):
    return reference_tversky(z, y, w, 0.5, 0.5, SMOOTH / 2, first)


def reference_dice_ce(z, y, w):
    # batch_dice: the patches of the batch laid end to end make one.
    joined = np.concatenate(z, axis=1)[None], np.concatenate(y, axis=0)[None]
    return reference_dice(*joined, w, first=1) + reference_cross_entropy(z, y, w)


def reference_distance(mask, spacing_mm):
    if mask.all() or not mask.any():
        return np.full(mask.shape, -np.inf if mask.all() else np.inf)
    inside = distance_transform_edt(mask, sampling=spacing_mm)
    return distance_transform_edt(~mask, sampling=spacing_mm) - inside


def reference_boundary(z, y, w):
    weight, spacing_mm = ones_unless(w, z.shape[1]), np.array(SPACING_MM)[-(z.ndim - 2) :]
    diagonal_mm, terms = np.linalg.norm(spacing_mm * z.shape[2:]), []
    for p, label in zip(softmax(z), y, strict=True):
        for s in range(1, z.shape[1]):
            phi = np.clip(reference_distance(label == s, spacing_mm) / diagonal_mm, -1, 1)
            terms.append(weight[s] * (p[s] * phi).mean())
    return reference_dice(z, y, w) + float(np.mean(terms))


REFERENCES: dict[str, Callable[..., float]] = {
    "bce": reference_bce,
    "weighted_bce": reference_weighted_bce,
    "cross_entropy": reference_cross_entropy,
    "dice": reference_dice,
    "dice_ce": reference_dice_ce,
    "tversky": reference_tversky,
    "focal": reference_focal,
    "boundary": reference_boundary,
}


# Inputs.


def build(name, k, weight=None, structure_frequency=None):
    """The loss of a YAML for k structures, as the training would make it."""
    config = OmegaConf.load(CONFIGS[name])
    if structure_frequency is None:
        structure_frequency = frequency(k)
    known = {
        "spacing_mm": SPACING_MM,
        "structure_frequency": [float(value) for value in structure_frequency],
        "weight": None if weight is None else [float(value) for value in weight],
    }
    fill(config, known)
    missing = OmegaConf.missing_keys(config)
    assert not missing, f"{name}.yaml leaves {missing} open; only {sorted(known)} are filled"
    return instantiate(config)


def fill(config, known):
    for key in config:
        if key in known:
            config[key] = known[key]
        elif not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            fill(config[key], known)


def draw(k, size, seed=0, batch=2):
    """Random logits and a label that has every structure in every sample."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, k, *size, generator=random)
    label = torch.randint(0, k, (batch, 1, *size), generator=random)
    label.flatten(1)[:, :k] = torch.arange(k)
    return logits, label


def certain(label, k, logit=8.0):
    """Logits that say the label: `logit` on the right structure, its negative on the others."""
    right = torch.nn.functional.one_hot(label[:, 0], k).movedim(-1, 1)
    return logit * (2.0 * right - 1)


def situation(kind, k, size):
    logits, label = draw(k, size)
    if kind in ("empty", "full"):
        label = torch.full_like(label, 0 if kind == "empty" else 1)
    if kind in ("perfect", "worst"):
        logits = certain(label, k, 8.0 if kind == "perfect" else -8.0)
    return logits, label


def gradient(loss, logits, label):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, label), logits)[0]


# The contract, for every YAML.


@each_loss
@each_view
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("kind", ["random", "empty", "full", "perfect", "worst"])
def test_value_is_that_of_the_reference(name, size, k, kind):
    assert name in REFERENCES, f"add an independent reference for {name}.yaml to REFERENCES"
    logits, label = situation(kind, k, size)
    for weight in (None, np.linspace(0.2, 1.7, k)):
        value = build(name, k, weight)(logits, label)
        expected = REFERENCES[name](logits.double().numpy(), label[:, 0].numpy(), weight)
        assert value.shape == ()
        assert float(value) == pytest.approx(expected, rel=2e-5, abs=1e-6)


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
    logits, label = draw(k, size)
    others = [logits, torch.zeros_like(logits), certain(label, k, 0.7), certain(label, k, -0.7)]
    loss = build(name, k)
    values = [float(loss(other, label)) for other in others]
    assert float(loss(certain(label, k), label)) < min(values)
    assert float(loss(certain(label, k, -8.0), label)) > max(values)


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


@each_loss
@each_view
@pytest.mark.parametrize("structure", [0, 1, 2])
def test_value_of_constant_input_ignores_the_patch_size(name, size, structure):
    def constant(scale):
        patch = [scale * n for n in size]
        logits = torch.tensor([6.0, -6.0, 5.0]).view(1, 3, *[1] * len(patch)).expand(2, 3, *patch)
        return build(name, 3)(logits, torch.full((2, 1, *patch), structure))

    assert float(constant(2)) == pytest.approx(float(constant(1)), rel=1e-5)


@each_loss
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


@each_loss
def test_wrong_weight_is_an_input_error(name):
    logits, label = draw(3, (4, 5))
    with pytest.raises(InputError, match=r"2 value.*3 structures"):
        build(name, 3, [1.0, 2.0])(logits, label)
    with pytest.raises(InstantiationException, match=r"InputError.*-1\.0"):  # Hydra wraps it
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
        (logits[..., 0], label[..., 0]),
    ):
        with pytest.raises(AssertionError, match=r"logits|label"):
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


# What is particular to one loss.


def test_focal_lives_where_monai_is_dead():
    logits, label = draw(2, (6, 7))
    monai = FocalLoss(use_softmax=True, include_background=False, to_onehot_y=True)
    assert monai(logits, label) == 0
    assert not gradient(monai, logits, label).any()
    assert Focal()(logits, label) > 0.1
    assert gradient(Focal(), logits, label).abs().min() > 0


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
    value = WeightedSum(terms=terms, weights={"dice": 0.5, "ce": 2.0})(logits, label)
    expected = 0.5 * terms["dice"](logits, label) + 2 * terms["ce"](logits, label)
    torch.testing.assert_close(value, expected)
    for weights in ({"dice": 1.0, "ce": 1.0, "focal": 1.0}, {"dice": 1.0}):
        with pytest.raises(InputError, match=r"\['ce', 'dice'\]"):
            WeightedSum(terms=terms, weights=weights)


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


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(2, 5), st.floats(-50, 50))
def test_softmax_losses_have_bounds_and_ignore_a_common_shift(seed, k, shift):
    logits, label = draw(k, (3, 5), seed)
    for loss, highest in ((Dice(), 1), (Tversky(), 1), (CrossEntropy(), 50), (Focal(), 50)):
        value = float(loss(logits, label))
        assert 0 <= value <= highest
        assert float(loss(logits + shift, label)) == pytest.approx(value, rel=1e-4, abs=1e-5)
    assert float(Focal()(logits, label)) <= float(CrossEntropy()(logits, label))
