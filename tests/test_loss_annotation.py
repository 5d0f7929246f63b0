"""What nobody annotated, a sample or a region of one, leaves every loss as it is without it."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_inputs import CONFIGS, build, draw, gradient
from loss_references import (
    REFERENCES,
    generalised_miss,
    joined,
    reference_blob,
    reference_cross_entropy,
    reference_dice,
    reference_dice_ce,
    reference_focal,
    reference_skeleton_recall,
    reference_topk,
    share_nearby,
    sigmoid,
)

from segshift.losses import IGNORE, Dice, TopK, Tversky

SIZES = {"2D": (6, 7), "3D": (4, 5, 6)}
WEIGHT = [0.5, 1.0, 2.0]

each_loss = pytest.mark.parametrize("name", sorted(CONFIGS))
each_view = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
each_task = pytest.mark.parametrize("regions", [False, True], ids=["softmax", "regions"])


def batch_of(size, *, regions, seed, samples):
    """Logits float64 (samples, 3, *S) and their label."""
    logits, label = draw(3, size, seed, samples)
    if regions:
        label = torch.cat([label >= region for region in range(3)], 1).to(torch.int8)
        label = label.flip(-1) * (label.flip(1) | label)  # no longer nested
    return logits.double(), label


@each_loss
@each_view
@each_task
@settings(max_examples=5, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(1, 3), st.data())
def test_a_sample_that_nobody_annotated_changes_nothing(name, size, regions, seed, samples, data):
    logits, label = batch_of(size, regions=regions, seed=seed, samples=samples)
    if data.draw(st.booleans(), "some voxels are ignored"):
        random = torch.Generator().manual_seed(seed)
        label = label.masked_fill(torch.rand(label.shape, generator=random) < 0.3, IGNORE)
    place = data.draw(st.integers(0, samples), "place of the ignored sample")
    more = torch.cat([logits[:place], -3 * logits[:1], logits[place:]])
    hidden = torch.cat([label[:place], torch.full_like(label[:1], IGNORE), label[place:]])
    loss = build(name, 3, WEIGHT)
    assert float(loss(more, hidden)) == pytest.approx(float(loss(logits, label)), rel=1e-9)
    slope = gradient(loss, more, hidden)
    assert not slope[place].any()
    others = torch.cat([slope[:place], slope[place + 1 :]])
    torch.testing.assert_close(others, gradient(loss, logits, label), rtol=1e-8, atol=1e-12)


@each_loss
@each_view
@each_task
def test_where_nobody_annotated_anything_value_and_gradient_are_zero(name, size, regions):
    logits, label = batch_of(size, regions=regions, seed=0, samples=2)
    loss, nothing = build(name, 3, WEIGHT), torch.full_like(label, IGNORE)
    for some in (logits, 1e4 * logits, logits.float()):
        assert float(loss(some, nothing)) == 0
        assert not gradient(loss, some, nothing).any()


# A region that nobody annotated in some samples: each term by NumPy, then their mean by hand.


def each(reference, z, g, known, w):
    """Mean over the annotated terms (sample, region)."""
    return np.mean([of_region(reference, z[b : b + 1, r], g[b : b + 1, r], w[r])
                    for b, r in np.argwhere(known)])  # fmt: skip


def pooled(reference, z, g, known, w):
    """Mean over regions, each of all samples in which it is annotated."""
    return np.mean([of_region(reference, z[known[:, r], r], g[known[:, r], r], w[r])
                    for r in np.flatnonzero(known.any(0))])  # fmt: skip


def of_region(reference, z, g, w):
    """A region (B, *S) is a problem of two classes: sigmoid(z) is the softmax of (0, z)."""
    return reference(np.stack([0 * z, z], 1), g.astype(int), [w, w])


def over_batch(reference):
    return lambda z, y, w: reference(*joined(z, y), w)


def nacl_of_region(z, y, w):
    away = np.abs(z[:, 1] - share_nearby(y == 1)).mean()
    return reference_cross_entropy(z, y, w) + 0.1 * w[0] * away


DICE_CE = [
    (pooled, over_batch(functools.partial(reference_dice, first=1))),
    (each, reference_cross_entropy),
]
SUMMED = {
    "bce": [(each, reference_cross_entropy)],
    "weighted_bce": [(each, reference_cross_entropy)],
    "sigmoid_focal": [(each, reference_focal)],
    "nacl": [(each, nacl_of_region)],
    "topk": [(pooled, reference_topk)],
    "dice_ce": DICE_CE,
    "dice_focal": [(pooled, over_batch(reference_dice)), (each, reference_focal)],
    "blob": [*DICE_CE, (each, lambda *of: reference_blob(*of) - reference_dice_ce(*of))],
    "skeleton_recall": [
        *DICE_CE, (each, lambda *of: reference_skeleton_recall(*of) - reference_dice_ce(*of))
    ],
}  # fmt: skip


def expected(name, z, g, known):
    if name != "generalised_dice":
        summands = SUMMED.get(name, [(each, REFERENCES[name])])
        return sum(rule(reference, z, g, known, WEIGHT) for rule, reference in summands)
    p, values = sigmoid(z), []
    for b in np.flatnonzero(known.any(1)):  # one ratio of what is annotated in the sample
        there = known[b]
        parts = [np.concatenate([1 - one[b, there], one[b, there]]) for one in (p, g)]
        values.append(generalised_miss(*parts, np.tile(np.array(WEIGHT)[there], 2)))
    return np.mean(values)


@each_loss
@each_view
@pytest.mark.parametrize(
    "known",
    [
        [[1, 1, 1], [1, 0, 1]],
        [[1, 1, 1], [0, 0, 1], [1, 0, 1]],
        [[1, 0, 1], [1, 0, 0]],  # one region in no sample
        [[0, 0, 1], [0, 0, 0], [0, 1, 1]],
    ],
    ids=["one", "several", "nowhere", "sample"],
)
def test_the_mean_is_over_the_terms_that_somebody_annotated(name, size, known):
    known = np.array(known, bool)
    logits, label = batch_of(size, regions=True, seed=1, samples=len(known))
    missing = torch.from_numpy(~known)[(..., *[None] * len(size))]
    hidden = label.masked_fill(missing, IGNORE)
    loss = build(name, 3, WEIGHT)
    value = float(loss(logits, hidden))
    assert value == pytest.approx(expected(name, logits.numpy(), label.numpy(), known), rel=2e-6)
    slope = gradient(loss, logits, hidden)
    assert not slope[missing.expand_as(slope)].any()
    assert slope[~missing.expand_as(slope)].any()


@each_loss
def test_the_gradient_is_that_of_the_value_where_samples_and_regions_are_missing(name):
    logits, label = batch_of((3, 4), regions=True, seed=2, samples=3)
    label[0, 1], label[2] = IGNORE, IGNORE
    loss = build(name, 3, WEIGHT)
    assert torch.autograd.gradcheck(lambda z: loss(z, label), logits.requires_grad_())


def test_the_dice_of_one_sample_stays_beside_one_that_nobody_annotated():
    """Half of p in 2 of 4 voxels of either class: 1 - 2 * 1 / (2 + 2) a structure."""
    logits, label = torch.zeros(2, 2, 2, 2), torch.tensor([[0, 1], [1, 0]])[None, None]
    both = torch.cat([label, torch.full_like(label, IGNORE)])
    for loss in (Dice(), Tversky(fp=0.5, fn=0.5), Dice(batch_dice=True)):
        assert float(loss(logits[:1], label)) == pytest.approx(0.5, abs=1e-4)
        assert float(loss(logits, both)) == pytest.approx(0.5, abs=1e-4)


def test_the_hardest_voxels_are_counted_without_rounding_up():
    """0.3 of 50 is 15; of as many samples that nobody annotated too."""
    logits, label = draw(2, (5, 10), batch=1)
    hardest = torch.nn.functional.cross_entropy(logits, label[:, 0], reduction="none").flatten()
    mean = float(hardest.sort(descending=True).values[:15].mean())
    assert float(TopK(share=0.3)(logits, label)) == pytest.approx(mean, rel=1e-6)
    hidden = torch.cat([label, torch.full_like(label, IGNORE)])
    assert float(TopK(share=0.3)(logits.repeat(2, 1, 1, 1), hidden)) == pytest.approx(mean)
