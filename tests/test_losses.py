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
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    generate_binary_structure,
    grey_dilation,
    grey_erosion,
)
from scipy.ndimage import label as label_blobs
from skimage.morphology import skeletonize
from torch import nn

from segshift.errors import InputError
from segshift.losses import (
    BCE,
    IGNORE,
    NACL,
    Boundary,
    ClDice,
    CrossEntropy,
    Dice,
    Focal,
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
from segshift.losses.contract import full_precision
from segshift.losses.distance import separable
from segshift.terms import with_terms

CONFIGS = {path.stem: path for path in Path(__file__).parents[1].glob("conf/loss/*.yaml")}
SPACING_MM = (3.0, 1.5, 0.8)
SIZES = {"2D": (6, 7), "3D": (4, 5, 6)}
SMOOTH = 1e-5

each_loss = pytest.mark.parametrize("name", sorted(CONFIGS))
each_view = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


# References in float64, no code shared with the package. z (B, K, *S); y (B, *S) class indices; w
# (K,) | None. Written for exclusive structures without ignored voxels: tests of their own lead
# regions and ignored voxels back to these.


def frequency(k):
    return np.arange(k, 0, -1) / np.arange(k, 0, -1).sum()


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def ones_unless(w, k):
    return np.ones(k) if w is None else np.asarray(w, float)


def of_truth(values, y):
    return np.take_along_axis(values, y[:, None], 1)[:, 0]


def joined(z, y):
    """The samples of a batch laid end to end: one big patch."""
    return np.concatenate(z, axis=1)[None], np.concatenate(y, axis=0)[None]


def weighted(terms, w, k):
    """Mean over samples and structures of terms {(sample, structure): value}."""
    weight = ones_unless(w, k)
    return float(np.mean([weight[s] * value for (_, s), value in terms.items()]))


def each(z, y, first):
    """Sample and structure, its probability and its mask."""
    for b, (p, label) in enumerate(zip(softmax(z), y, strict=True)):
        for s in range(first, z.shape[1]):
            yield (b, s), p[s], label == s


def reference_bce(z, y, w):
    k = z.shape[1]
    of_voxel = ones_unless(w, k)[y]
    per_structure = [
        (of_voxel * np.where(y == s, np.logaddexp(0, -z[:, s]), np.logaddexp(0, z[:, s]))).mean()
        for s in range(k)
    ]
    return float(np.mean(per_structure))


def reference_weighted_bce(z, y, w):
    k = z.shape[1]
    return reference_bce(z, y, 1 / (k * frequency(k)) if w is None else w)


def reference_focal(z, y, w, gamma=2.0):
    p_y = of_truth(softmax(z), y)
    return float((ones_unless(w, z.shape[1])[y] * (1 - p_y) ** gamma * -np.log(p_y)).mean())


def reference_sigmoid_focal(z, y, w):
    k, p = z.shape[1], sigmoid(z)
    terms = []
    for s in range(k):
        p_t = np.where(y == s, p[:, s], 1 - p[:, s])
        minus_log = np.where(y == s, np.logaddexp(0, -z[:, s]), np.logaddexp(0, z[:, s]))
        terms.append((ones_unless(w, k)[y] * (1 - p_t) ** 2 * minus_log).mean())
    return float(np.mean(terms))


def reference_cross_entropy(z, y, w):
    return reference_focal(z, y, w, gamma=0.0)


def reference_topk(z, y, w, share=0.1):
    p_y = of_truth(softmax(z), y).ravel()
    hardest = np.argsort(p_y)[: math.ceil(share * p_y.size)]
    return float((ones_unless(w, z.shape[1])[y.ravel()] * -np.log(p_y))[hardest].mean())


def reference_label_smoothing(z, y, w, smoothing=0.1):
    k = z.shape[1]
    asked = np.full(z.shape, smoothing / k)
    for s in range(k):
        asked[:, s][y == s] += 1 - smoothing
    return float((ones_unless(w, k)[y] * (asked * -np.log(softmax(z))).sum(1)).mean())


def reference_nacl(z, y, w, alpha=0.1):
    k = z.shape[1]
    away = 0
    for s in range(k):
        near = np.zeros(y.shape)
        for place in np.ndindex(*y.shape):
            box = tuple(slice(max(i - 1, 0), i + 2) for i in place[1:])
            near[place] = (y[(place[0], *box)] == s).mean()
        away = away + np.abs(z[:, s] - near) / k
    loss = -np.log(of_truth(softmax(z), y)) + alpha * away
    return float((ones_unless(w, k)[y] * loss).mean())


def tversky_index(p, g, fp, fn, smooth):
    hit, false, missed = (p * g).mean(), (p * ~g).mean(), ((1 - p) * g).mean()
    return (hit + smooth) / (hit + fp * false + fn * missed + smooth)


def reference_tversky(z, y, w, fp=0.3, fn=0.7, smooth=SMOOTH, first=0, power=1.0):
    terms = {
        key: (1 - tversky_index(p, g, fp, fn, smooth)) ** power for key, p, g in each(z, y, first)
    }
    return weighted(terms, w, z.shape[1])


def reference_focal_tversky(z, y, w):
    return reference_tversky(z, y, w, power=0.75)


def reference_dice(z, y, w, first=0):
    return reference_tversky(z, y, w, 0.5, 0.5, SMOOTH / 2, first)


def reference_generalised_dice(z, y, w):
    k, values = z.shape[1], []
    for p, label in zip(softmax(z), y, strict=True):
        volume = np.array([(label == s).mean() for s in range(k)])
        counted = (volume > 0) & (ones_unless(w, k) > 0)
        smallest = volume[counted].min() if counted.any() else 1.0
        importance = 1 / np.where(counted, volume, smallest) ** 2 * ones_unless(w, k)
        importance = importance / importance.sum()
        both = sum(importance[s] * (p[s] * (label == s)).mean() for s in range(k))
        total = sum(importance[s] * (p[s].mean() + volume[s]) for s in range(k))
        values.append(1 - (2 * both + SMOOTH) / (total + SMOOTH))
    return float(np.mean(values))


def reference_dice_ce(z, y, w):
    return reference_dice(*joined(z, y), w, first=1) + reference_cross_entropy(z, y, w)


def reference_dice_focal(z, y, w):
    return reference_dice(*joined(z, y), w) + reference_focal(z, y, w)


def reference_unified_focal(z, y, w, fn=0.6, gamma=0.5):
    k, p_y = z.shape[1], of_truth(softmax(z), y)
    factor = np.where(y > 0, fn, (1 - fn) * (1 - p_y) ** gamma)
    focal = (ones_unless(w, k)[y] * factor * -np.log(p_y)).mean()
    terms = {
        key: (1 - tversky_index(p, g, 1 - fn, fn, SMOOTH)) ** (1 - gamma if key[1] else 1)
        for key, p, g in each(z, y, 0)
    }
    return float(0.5 * focal + 0.5 * weighted(terms, w, k))


def reference_distance(mask, spacing_mm):
    if mask.all() or not mask.any():
        return np.full(mask.shape, -np.inf if mask.all() else np.inf)
    inside = distance_transform_edt(mask, sampling=spacing_mm)
    return distance_transform_edt(~mask, sampling=spacing_mm) - inside


def reference_phi(mask, absent=1.0):
    spacing_mm = np.array(SPACING_MM)[-mask.ndim :]
    if not mask.any():
        return np.full(mask.shape, absent)
    if mask.all():
        return np.full(mask.shape, -absent)
    diagonal_mm = np.linalg.norm(spacing_mm * mask.shape)
    return np.clip(reference_distance(mask, spacing_mm) / diagonal_mm, -1, 1)


def reference_boundary(z, y, w):
    terms = {key: (p * reference_phi(g)).mean() for key, p, g in each(z, y, 1)}
    return reference_dice(z, y, w) + weighted(terms, w, z.shape[1])


def reference_generalised_surface(z, y, w):
    terms = {}
    for key, p, g in each(z, y, 1):
        phi = reference_phi(g)
        terms[key] = 1 - ((phi * (1 - (g + p))) ** 2).sum() / (phi**2).sum()
    return reference_dice(z, y, w) + weighted(terms, w, z.shape[1])


def reference_hausdorff_dt(z, y, w):
    terms = {
        key: ((p - g) ** 2 * (reference_phi(g) ** 2 + reference_phi(p > 0.5, 0.0) ** 2)).mean()
        for key, p, g in each(z, y, 1)
    }
    return reference_dice(z, y, w) + 10 * weighted(terms, w, z.shape[1])


def reference_soft_skeleton(volume, iterations=3):
    """Shit et al., algorithm 1: openings of ever more eroded volumes."""
    cross, cube = generate_binary_structure(volume.ndim, 1), np.ones((3,) * volume.ndim)

    def opening_lost(v):
        eroded = grey_erosion(v, footprint=cross, mode="constant", cval=np.inf)
        opened = grey_dilation(eroded, footprint=cube, mode="constant", cval=-np.inf)
        return np.maximum(v - opened, 0)

    skeleton = opening_lost(volume)
    for _ in range(iterations):
        volume = grey_erosion(volume, footprint=cross, mode="constant", cval=np.inf)
        lost = opening_lost(volume)
        skeleton = skeleton + np.maximum(lost - skeleton * lost, 0)
    return skeleton


def reference_cl_dice(z, y, w):
    def share(skeleton, volume):
        return ((skeleton * volume).mean() + SMOOTH) / (skeleton.mean() + SMOOTH)

    terms = {}
    for key, p, g in each(z, y, 1):
        precision = share(reference_soft_skeleton(p), g)
        sensitivity = share(reference_soft_skeleton(g.astype(float)), p)
        terms[key] = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return 0.5 * reference_dice(z, y, w) + 0.5 * weighted(terms, w, z.shape[1])


def reference_skeleton_recall(z, y, w):
    terms = {}
    for key, p, g in each(z, y, 1):
        tube = binary_dilation(skeletonize(g), np.ones((5,) * g.ndim)) & g
        terms[key] = 1 - ((p * tube).mean() + SMOOTH) / (tube.mean() + SMOOTH)
    return reference_dice_ce(z, y, w) + weighted(terms, w, z.shape[1])


def reference_blob(z, y, w):
    terms = {}
    for key, p, g in each(z, y, 1):
        numbers, count = label_blobs(g, np.ones((3,) * g.ndim))
        misses = []
        for number in range(1, count + 1) if count else [1]:
            # Voxels of other blobs are left out, but the patch keeps its size.
            one, counted = numbers == number, (numbers == number) | ~g
            both, total = (p * one).mean(), (p * counted).mean() + one.mean()
            misses.append(1 - (2 * both + SMOOTH) / (total + SMOOTH))
        terms[key] = np.mean(misses)
    return reference_dice_ce(z, y, w) + 0.5 * weighted(terms, w, z.shape[1])


def reference_sum(z, y, w):
    terms = {key: (p * reference_phi(g)).mean() for key, p, g in each(z, y, 1)}
    return reference_cross_entropy(z, y, w) + 0.5 * weighted(terms, w, z.shape[1])


REFERENCES: dict[str, Callable[..., float]] = {
    "bce": reference_bce,
    "blob": reference_blob,
    "boundary": reference_boundary,
    "cl_dice": reference_cl_dice,
    "cross_entropy": reference_cross_entropy,
    "dice": reference_dice,
    "dice_ce": reference_dice_ce,
    "dice_focal": reference_dice_focal,
    "focal": reference_focal,
    "focal_tversky": reference_focal_tversky,
    "generalised_dice": reference_generalised_dice,
    "generalised_surface": reference_generalised_surface,
    "hausdorff_dt": reference_hausdorff_dt,
    "label_smoothing": reference_label_smoothing,
    "nacl": reference_nacl,
    "sigmoid_focal": reference_sigmoid_focal,
    "skeleton_recall": reference_skeleton_recall,
    "sum": reference_sum,
    "topk": reference_topk,
    "tversky": reference_tversky,
    "unified_focal": reference_unified_focal,
    "weighted_bce": reference_weighted_bce,
}

# What a loss does not claim, each with the reason.
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
SUM_TERMS = {"cross_entropy": {}, "boundary": {}}  # for sum.yaml


# Inputs.


def build(name, k, weight=None, structure_frequency=None):
    """The loss of a YAML for k structures, as the training would make it."""
    config = OmegaConf.load(CONFIGS[name])
    if name == "sum":
        config.terms, config.weights = SUM_TERMS, {"boundary": 0.5}
        config = with_terms(config, [CONFIGS[name].parent])
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
    if kind in ("perfect", "worst"):  # no two voxels alike, or their order would be anyone's
        logits = certain(label, k, 8.0 if kind == "perfect" else -8.0) + 0.01 * logits
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
    exact = logits.double()
    for weight in (None, np.linspace(0.2, 1.7, k), np.arange(k) % 2):
        loss = build(name, k, weight)
        expected = REFERENCES[name](exact.numpy(), label[:, 0].numpy(), weight)
        assert loss(exact, label).shape == ()
        assert float(loss(exact, label)) == pytest.approx(expected, rel=2e-6, abs=1e-7)
        assert float(loss(logits, label)) == pytest.approx(expected, rel=1e-5, abs=1e-3)


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


@each_loss
@each_view
@pytest.mark.parametrize("structure", [0, 1, 2])
def test_value_of_constant_input_ignores_the_patch_size(name, size, structure):
    if name in NOT_OF_ANY_SIZE:
        pytest.skip("not claimed")

    def constant(scale):
        patch = [scale * n for n in size]
        logits = torch.tensor([6.0, -6.0, 5.0]).view(1, 3, *[1] * len(patch)).expand(2, 3, *patch)
        return build(name, 3)(logits, torch.full((2, 1, *patch), structure))

    assert float(constant(2)) == pytest.approx(float(constant(1)), rel=1e-5)


@each_loss
@each_view
def test_weight_zero_silences_that_structure_only(name, size):
    """Terms add up over structures: without one, what is left is the sum of the others' terms."""
    if name in NOT_ADDITIVE:
        pytest.skip("not claimed; weights of 0 are among those of the reference test")
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
@each_view
def test_value_of_a_batch_is_the_mean_of_its_halves(name, size):
    if name in NOT_MEAN_OVER_BATCH:
        pytest.skip("not claimed")
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
    assert float(loss(logits, nothing)) == pytest.approx(0, abs=1e-6)
    assert not gradient(loss, logits, nothing).any()


@each_loss
@each_view
def test_a_patch_whose_rest_is_ignored_has_the_value_of_the_crop(name, size):
    if name in NOT_THAT_OF_THE_CROP:
        pytest.skip("not claimed")
    logits, label = draw(3, size)
    hidden = label.clone()
    hidden[..., 4:] = IGNORE
    loss = build(name, 3, [0.5, 1.0, 2.0])
    whole, crop = loss(logits, hidden), loss(logits[..., :4], label[..., :4])
    assert float(whole) == pytest.approx(float(crop), rel=1e-5)


@each_loss
@each_view
@pytest.mark.parametrize("kind", ["random", "empty", "full"])
def test_one_region_is_a_problem_of_two_classes(name, size, kind):
    """sigmoid(x) is the softmax of (0, x)."""
    if name in NOT_TWO_CLASSES:
        pytest.skip("not claimed")
    logits, label = situation(kind, 2, size)
    logits[:, 0] = 0
    region = label.to(torch.int8)
    for value in (label, with_ignored(label)):
        region = value.to(torch.int8)
        expected = float(build(name, 2)(logits, value))
        got = float(build(name, 1)(logits[:, 1:], region))
        assert got == pytest.approx(expected, rel=1e-4, abs=1e-6)


@each_loss
@each_view
def test_regions_are_a_mean_over_regions_each_times_its_weight(name, size):
    if name in NOT_MEAN_OVER_REGIONS:
        pytest.skip("not claimed")
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
    with pytest.raises(InputError, match=r"loss\.weight"):
        build("weighted_bce", 3)(logits, regions)
    assert build("weighted_bce", 3, [1, 1, 1])(logits, regions) == BCE()(logits, regions)


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
        (logits, label.to(torch.int8)),
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


def test_terms_by_name_take_the_yaml_and_of_a_sum_the_term():
    folder = CONFIGS["dice"].parent

    def expanded(terms):
        config = OmegaConf.create({"_target_": "x", "terms": terms, "weights": None})
        return with_terms(config, [folder]).terms

    named = expanded(["dice", "boundary", "dice_ce"])
    assert named.dice == OmegaConf.load(CONFIGS["dice"])
    assert named.boundary == OmegaConf.load(CONFIGS["boundary"]).terms.boundary
    assert named.dice_ce == OmegaConf.load(CONFIGS["dice_ce"])
    chosen = expanded({"tversky": {"fp": 0.4}, "own": {"_target_": "my.Loss", "x": 1}})
    assert (chosen.tversky.fp, chosen.tversky.fn, chosen.own) == (
        0.4, 0.7, {"_target_": "my.Loss", "x": 1}
    )  # fmt: skip
    whole = OmegaConf.load(CONFIGS["boundary"])
    assert with_terms(whole, [folder]) == whole
    for wrong, message in (
        (["dyce"], r"no loss 'dyce'.*dice_ce"),
        (["sum"], r"no loss 'sum'"),
        (["dice", "dice"], "once"),
        ([], "at least one"),
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
