"""Which shift is it: the statistics against slow references, the answers on hand-made tables."""

import itertools
import json
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, TINY_TRAINING, composed
from scipy import ndimage, stats

from segshift import build, run
from segshift.attribution import attribute, attributed, has_target
from segshift.attribution.answers import COLUMNS
from segshift.attribution.appearance import appearance
from segshift.attribution.evidence import Sides
from segshift.attribution.habits import concept
from segshift.attribution.kinds import covariate, prevalence
from segshift.attribution.offset import boundary_offset, dice_after_shifts
from segshift.attribution.pairs import kernel, larger
from segshift.attribution.permutation import DRAWN, choices, family_p, p_values
from segshift.attribution.studentised import brunner_munzel, mmd, welch
from segshift.cli import main
from segshift.cohort import Case
from segshift.errors import InputError
from segshift.metrics import BoundaryOffset, Dice, MaskPair
from segshift.results import answered, read_rows, trained_at, write_cases
from segshift.results.answers import can_pass

KINDS = (covariate, prevalence, concept)
SHIFTS_MM = np.arange(-12, 13) * 0.25
LOADINGS = np.random.default_rng(19).normal(size=(4, 10))  # of ten features on four traits


# ---- permutations


def test_all_choices_are_taken_once_and_the_real_one_is_first():
    members = choices(3, 4)
    assert members.shape == (35, 7)
    assert members[0].tolist() == [True] * 3 + [False] * 4
    assert (members.sum(axis=1) == 3).all()
    assert len({tuple(line) for line in members}) == 35


def test_many_choices_are_drawn_from_the_seed_and_the_target():
    members = choices(12, 13, seed=1, identity=("site-a",))
    assert members.shape == (DRAWN + 1, 25)
    assert members[0].tolist() == [True] * 12 + [False] * 13
    assert (members.sum(axis=1) == 12).all()
    assert np.array_equal(members, choices(12, 13, seed=1, identity=("site-a",)))
    assert not np.array_equal(members, choices(12, 13, seed=1, identity=("site-b",)))
    # Every patient is as often at home as any other.
    assert np.abs(members[1:].mean(axis=0) - 12 / 25).max() < 0.03


@pytest.mark.parametrize(("first", "second", "least"), [(3, 3, 2 / 20), (3, 5, 1 / 56)])
def test_the_smallest_p_is_that_of_the_best_ordered_samples(first, second, least):
    members = choices(first, second)
    values = 2.0 ** np.arange(first + second)  # the largest is larger than all others together
    p = p_values(mmd(-np.abs(values[:, None] - values), members))
    assert p.min() == pytest.approx(least)
    assert p[0] >= p.min()


def test_p_of_every_choice_is_the_share_of_those_as_far_apart():
    statistics = np.array([2.0, 3.0, 3.0 + 1e-12, np.inf, 0.0, np.inf, -1.0, 2.0])
    expected = [6, 4, 4, 2, 7, 2, 8, 6]
    assert (p_values(statistics) * 8).tolist() == expected


def test_several_quantities_have_a_larger_smallest_p_than_one():
    members = choices(5, 5)
    values = np.random.default_rng(9).normal(size=(8, 10))
    one, eight = (family_p(ranked(values[:n], members))[1] for n in (1, 8))
    assert one == pytest.approx(2 / 252)
    assert eight == pytest.approx(8 * one, rel=0.3)


# ---- MMD


def alone(patients):
    """Owners of one case each."""
    return np.arange(patients)


def slow_mmd(similar, first):
    n, m = first, len(similar) - first
    home, away = range(n), range(n, n + m)
    within_x = sum(similar[i][j] for i in home for j in home) / n**2
    within_y = sum(similar[i][j] for i in away for j in away) / m**2
    across = sum(similar[i][j] for i in home for j in away) / (n * m)
    # What the squared distance of two means of independent patients is expected to be.
    by_chance = 0
    for side in (home, away):
        pairs = [similar[i][j] for i in side for j in side if i != j]
        alone = np.mean([similar[i][i] for i in side])
        by_chance += (alone - np.mean(pairs)) / len(side)
    return (within_x + within_y - 2 * across) / by_chance


def test_mmd_is_that_of_a_slow_double_loop_in_every_choice():
    features = np.random.default_rng(0).normal(size=(7, 3))
    similar = kernel(features, alone(7))
    found = mmd(similar, choices(3, 4))
    for value, chosen in zip(found, itertools.combinations(range(7), 3), strict=True):
        order = [*chosen, *(i for i in range(7) if i not in chosen)]
        assert value == pytest.approx(slow_mmd(similar[np.ix_(order, order)], 3))


def test_what_chance_makes_of_mmd_is_one():
    random = np.random.default_rng(11)
    real = choices(8, 20)[:1]
    spread = np.repeat([[1.0], [3.0]], [8, 20], axis=0)
    found = [
        mmd(kernel(random.normal(size=(28, 5)) * s, alone(28)), real)[0]
        for s in (1.0, spread)
        for _ in range(200)
    ]
    equal, unequal = np.array(found).reshape(2, 200)
    assert equal.mean() == pytest.approx(1, abs=3 * equal.std() / np.sqrt(200))
    assert unequal.mean() > 1.5  # another spread is another distribution


def test_the_kernel_is_gaussian_of_the_median_distance_and_ignores_units():
    features = np.random.default_rng(1).normal(size=(6, 2))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    squares = np.array([[((a - b) ** 2).sum() for b in scaled] for a in scaled])
    width = np.median([squares[i, j] for i in range(6) for j in range(i)])
    found = kernel(features, alone(6))
    assert np.allclose(found, np.exp(-squares / width))
    assert np.allclose(kernel(features * [1000, 0.01] + 5, alone(6)), found)


def test_constant_and_unknown_features_tell_nobody_apart():
    features = np.random.default_rng(2).normal(size=(6, 2))
    more = np.column_stack([features, np.full(6, 0.1)])  # whose mean is no 0.1
    assert np.allclose(kernel(more, alone(6)), kernel(features, alone(6)))
    unknown, filled = features.copy(), features.copy()
    unknown[2, 0] = np.nan
    filled[2, 0] = np.median(np.delete(features[:, 0], 2))
    assert np.allclose(kernel(unknown, alone(6)), kernel(filled, alone(6)))
    assert np.allclose(kernel(np.ones((4, 2)), alone(4)), 1)


def test_patients_are_compared_case_with_case_and_weigh_the_same():
    """The second of three patients has three cases, which are not in one place."""
    features = np.random.default_rng(12).normal(size=(5, 2))
    owners = np.array([0, 1, 1, 2, 1])
    weight = np.array([1 / 3, 1 / 9, 1 / 9, 1 / 3, 1 / 9])
    scaled = features - weight @ features
    scaled /= np.sqrt(weight @ scaled**2)
    cases = [np.flatnonzero(owners == patient) for patient in range(3)]

    def over_pairs(of):
        return np.array([[np.mean([of(i, j) for i in a for j in b]) for b in cases] for a in cases])

    squares = over_pairs(lambda i, j: ((scaled[i] - scaled[j]) ** 2).sum())
    width = np.median([squares[0, 1], squares[0, 2], squares[1, 2]])
    similar = over_pairs(lambda i, j: np.exp(-((scaled[i] - scaled[j]) ** 2).sum() / width))
    assert np.allclose(kernel(features, owners), similar)
    values = np.round(features[:, 0], 0)
    more = over_pairs(lambda i, j: (values[i] > values[j]) + 0.5 * (values[i] == values[j]))
    assert np.allclose(larger(values, owners), more)
    values[[1, 4]] = np.nan
    known = over_pairs(
        lambda i, j: (
            np.nan if {i, j} & {1, 4} else (values[i] > values[j]) + (values[i] == values[j]) / 2
        )
    )
    assert np.allclose(larger(values, owners)[[0, 2]][:, [0, 2]], known[[0, 2]][:, [0, 2]])
    assert larger(values, owners)[1, 0] == (values[2] > values[0]) + (values[2] == values[0]) / 2
    values[2] = np.nan
    assert np.isnan(larger(values, owners)[1]).all()


def test_p_of_equal_samples_is_uniform_and_of_others_is_small():
    random = np.random.default_rng(3)
    members = choices(5, 5)
    null = [
        p_values(mmd(kernel(random.normal(size=(10, 4)), alone(10)), members))[0]
        for _ in range(400)
    ]
    assert stats.kstest(null, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(null) <= 0.05) < 0.08
    apart = random.normal(size=(10, 4)) + np.repeat([[0], [3]], 5, axis=0)
    assert p_values(mmd(kernel(apart, alone(10)), members))[0] == pytest.approx(2 / 252)


def test_mmd_sees_a_spread_that_no_mean_shows():
    random = np.random.default_rng(4)
    members = choices(20, 20)
    values = random.normal(size=(40, 2)) * np.repeat([[1], [5]], 20, axis=0)
    assert p_values(mmd(kernel(values, alone(40)), members))[0] < 0.01


# ---- ranks


def ranked(values, members):
    """Statistics (choices, q) of values (q, n) of patients with one case each."""
    each = [brunner_munzel(larger(x, alone(len(x))), members) for x in values]
    return np.stack(each, axis=1)


@pytest.mark.parametrize("digits", [0, 9])  # with and without ties
def test_ranks_are_studentised_as_scipy_does(digits):
    values = np.random.default_rng(5).normal(size=13).round(digits)
    members = choices(5, 8)
    found = brunner_munzel(larger(values, alone(13)), members)
    for place in range(0, len(members), 37):
        inside, outside = values[members[place]], values[~members[place]]
        if max(inside) < min(outside) or max(outside) < min(inside):
            continue
        expected = stats.brunnermunzel(inside, outside).statistic
        assert abs(found[place]) == pytest.approx(abs(expected), rel=1e-9, abs=1e-9)
        assert np.sign(round(found[place], 9)) == np.sign(
            round(stats.rankdata(values)[~members[place]].mean() - 7, 9)
        )


def test_means_are_studentised_as_scipy_does():
    values, members = np.random.default_rng(5).normal(size=13) + 7, choices(5, 8)
    found = welch(values, members)
    for place in range(0, len(members), 37):
        inside, outside = values[members[place]], values[~members[place]]
        expected = stats.ttest_ind(outside, inside, equal_var=False).statistic
        assert found[place] == pytest.approx(expected)
    assert (welch(np.full(13, 0.1), members) == 0).all()


@pytest.mark.parametrize("cases", [1, 3])
def test_samples_that_are_wholly_apart_have_no_error_and_the_smallest_p(cases):
    """Nothing is further apart, and both of the two orders are as far."""
    values = np.repeat([0.1, 0.3, 0.4, 1.1, 1.2, 1.3, 1.7], cases)
    owners, members = np.repeat(np.arange(7), cases), choices(3, 4)
    found = brunner_munzel(larger(values, owners), members)
    assert found[0] == np.inf
    assert np.isinf(found).sum() == 2  # the three lowest, and the three highest
    assert p_values(np.abs(found))[0] == p_values(np.abs(found)).min() == 2 / 35
    far = welch(np.array([1.0, 1, 1, 2, 2, 2, 2]), members)
    assert far[0] == np.inf
    assert p_values(np.abs(far))[0] == 1 / 35


def test_equals_tell_nothing_apart():
    members = choices(3, 4)
    assert (brunner_munzel(larger(np.full(7, 0.1), alone(7)), members) == 0).all()
    p, least = family_p(ranked(np.full((2, 7), 0.1), members))
    assert p.tolist() == [1, 1]
    assert least == 1


def test_p_of_a_family_is_corrected_for_its_size():
    random = np.random.default_rng(6)
    members = choices(6, 6)
    families = [ranked(random.normal(size=(8, 12)), members) for _ in range(400)]
    assert 0.02 < np.mean([family_p(each)[0].min() <= 0.05 for each in families]) < 0.08
    # Of one alone it is the plain p.
    one = np.abs(families[0][:, :1])
    assert family_p(one)[0] == np.mean(one >= one[0] - 1e-10)


# ---- level and power, in simulations of a known truth

LEVEL_400 = 0.073  # 5 % and 2.1 standard errors of 400 draws


def shown(statistics):
    """Whether each of the simulations (s, choices) has a p of at most 5 % in its first choice."""
    return np.mean([p_values(np.abs(each))[0] <= 0.05 for each in statistics])


def plain(values, members):
    """Mean outside minus inside of values (n,), as tests that are not studentised take it."""
    inside = members @ values / members.sum(axis=1)
    outside = ~members @ values / (~members).sum(axis=1)
    return outside - inside


@pytest.mark.parametrize("spreads", [(3.0, 1.0), (1.0, 3.0), (1.0, 1.0)])
def test_ranks_keep_their_level_where_sizes_and_spreads_differ(spreads):
    """14 patients against 40: plain ranks are shown in 9 to 14 % where the few spread most."""
    random = np.random.default_rng(20)
    members = choices(14, 40)[:1000]
    scale = np.repeat(spreads, [14, 40])
    draws = random.normal(size=(400, 54)) * scale
    studentised = [brunner_munzel(larger(x, alone(54)), members) for x in draws]
    assert shown(studentised) <= LEVEL_400
    if spreads == (3.0, 1.0):
        assert shown([plain(stats.rankdata(x), members) for x in draws]) > LEVEL_400


@pytest.mark.parametrize("spreads", [(3.0, 1.0), (1.0, 3.0), (1.0, 1.0)])
def test_offsets_keep_their_level_where_sizes_and_spreads_differ(spreads):
    random = np.random.default_rng(21)
    members = choices(8, 30)[:1000]
    draws = random.normal(size=(400, 38)) * np.repeat(spreads, [8, 30])
    assert shown([welch(x, members) for x in draws]) <= LEVEL_400
    if spreads == (3.0, 1.0):
        assert shown([plain(x, members) for x in draws]) > 2 * LEVEL_400


@pytest.mark.parametrize(("first", "second"), [(14, 14), (14, 40), (6, 7)])
def test_studentised_ranks_find_what_plain_ranks_find(first, second):
    random = np.random.default_rng(22)
    members = choices(first, second)[:1716]
    apart = np.repeat([0.0, 1.2], [first, second])
    draws = random.normal(size=(200, first + second)) + apart
    found = shown([brunner_munzel(larger(x, alone(len(x))), members) for x in draws])
    known = np.mean([stats.mannwhitneyu(x[:first], x[first:]).pvalue <= 0.05 for x in draws])
    assert known > 0.4
    assert found > known - 0.04


@pytest.mark.parametrize(("first", "second"), [(14, 40), (14, 14)])
def test_more_cases_of_each_patient_are_no_shift(first, second):
    """Six cases a patient at home, one away, of skewed numbers. Means of six are mostly larger."""
    random = np.random.default_rng(23)
    members = choices(first, second)[:1000]
    owners = np.repeat(np.arange(first + second), np.repeat([6, 1], [first, second]))
    ranks, averaged, images, means = [], [], [], []
    for _ in range(400):
        person = random.normal(size=(first + second, 4))[owners]
        values = np.exp(person[:, 0] + random.normal(size=len(owners)))
        features = person @ LOADINGS + 2 * random.normal(size=(len(owners), 10))
        ranks.append(brunner_munzel(larger(values, owners), members))
        images.append(mmd(kernel(features, owners), members))
        of = pd.DataFrame(features).assign(value=values).groupby(owners).mean().to_numpy()
        averaged.append(plain(stats.rankdata(of[:, -1]), members))
        means.append(mmd(kernel(of[:, :-1], alone(len(of))), members))
    assert shown(ranks) <= LEVEL_400
    assert shown(images) <= LEVEL_400
    assert shown(averaged) > LEVEL_400
    assert shown(means) > 2 * LEVEL_400


# ---- offsets


def ball(radius, *, shape=(40, 40, 40), spacing=(1.0, 1.0, 1.0)):
    axes = [(np.arange(n) - n / 2) * s for n, s in zip(shape, spacing, strict=True)]
    return sum(axis**2 for axis in np.meshgrid(*axes, indexing="ij")) < radius**2


@pytest.mark.parametrize("margin", [-2, -1, 1, 2])
def test_the_offset_of_two_balls_is_the_difference_of_their_radii(margin):
    pair = MaskPair(ball(12 + margin), ball(12), (1, 1, 1))
    assert boundary_offset(pair, reach=3) == pytest.approx(margin, abs=0.25)


def test_an_error_far_off_moves_no_offset():
    pred = ball(13)
    pred[:6, :6, :6] = True
    near = boundary_offset(MaskPair(pred, ball(12), (1, 1, 1)), reach=3)
    assert near == boundary_offset(MaskPair(ball(13), ball(12), (1, 1, 1)), reach=3)
    far = boundary_offset(MaskPair(pred, ball(12), (1, 1, 1)), reach=99)
    assert far > near + 0.1


def test_the_offset_within_reach_of_all_is_the_metric():
    random = np.random.default_rng(8)
    smooth = ndimage.gaussian_filter(random.normal(size=(2, 12, 20, 20)), (0, 2, 2, 2))
    pair = MaskPair(*(smooth > 0.02), (1.5, 1.0, 1.0))
    assert boundary_offset(pair, reach=99) == pytest.approx(BoundaryOffset().of(pair))


def test_thick_slices_that_lie_on_each_other_hide_no_offset():
    axes = [(np.arange(n) - n / 2) for n in (40, 40)]
    distance = np.hypot(*np.meshgrid(*axes, indexing="ij"))
    pred, ref = np.zeros((2, 8, 40, 40), dtype=bool)
    pred[2:6], ref[2:6] = distance < 10, distance < 12
    pair = MaskPair(pred, ref, (10.0, 1.0, 1.0))
    assert boundary_offset(pair, reach=3) == pytest.approx(-2, abs=0.25)
    assert BoundaryOffset().of(pair) > -0.7
    # A slice that only one of them has is an error.
    pred[6] = distance < 10
    longer = MaskPair(pred, ref, (10.0, 1.0, 1.0))
    assert boundary_offset(longer, reach=3) == boundary_offset(pair, reach=3)


def test_an_empty_mask_has_no_offset_and_no_dice():
    for pair in (
        MaskPair(ball(0), ball(5), (1, 1, 1)),
        MaskPair(ball(5), ball(0), (1, 1, 1)),
    ):
        assert np.isnan(boundary_offset(pair, reach=3))
        assert np.isnan(dice_after_shifts(pair, [-1.0, 0.0])).all()


@pytest.mark.parametrize(("margin", "spacing"), [(2, (1, 1, 1)), (-3, (1, 1, 1)), (2, (2, 1, 1))])
def test_moving_the_boundary_back_recovers_the_dice(margin, spacing):
    shape = tuple(int(40 / s) for s in spacing)
    pred, ref = (ball(r, shape=shape, spacing=spacing) for r in (12 + margin, 12))
    pair = MaskPair(pred, ref, spacing)
    shifts = np.arange(-16, 17) * 0.25
    dice = dice_after_shifts(pair, shifts)
    assert dice[16] == pytest.approx(Dice().of(pair))
    best = shifts[dice == dice.max()].mean()
    assert best == pytest.approx(-margin, abs=0.5)
    assert dice.max() > 0.97
    assert dice.max() > dice[16] + 0.1


def test_every_shift_is_that_of_a_mask_cut_out_of_a_distance_map():
    random = np.random.default_rng(7)
    smooth = ndimage.gaussian_filter(random.normal(size=(2, 12, 20, 20)), (0, 2, 2, 2))
    pred, ref = smooth > 0.02
    spacing = (3.0, 1.0, 1.0)
    signed = np.where(
        pred,
        0.5 - ndimage.distance_transform_edt(pred, spacing),
        ndimage.distance_transform_edt(~pred, spacing) - 0.5,
    )
    dice = dice_after_shifts(MaskPair(pred, ref, spacing), SHIFTS_MM)
    for shift, value in zip(SHIFTS_MM, dice, strict=True):
        moved = signed <= shift + 1e-4
        assert value == pytest.approx(2 * (moved & ref).sum() / (moved.sum() + ref.sum()))


# ---- what is measured of images and of networks


def scan(*, noise=0.005, blur=1.0, seed=0):
    """An image (1, 16, 40, 40) of smooth tissue with a structure in its middle."""
    random = np.random.default_rng(seed)
    tissue = ndimage.gaussian_filter(random.normal(size=(16, 40, 40)), 1.5) * 8
    mask = np.zeros(tissue.shape, dtype=bool)
    mask[4:12, 12:28, 12:28] = True
    tissue[mask] += 3
    image = ndimage.gaussian_filter(tissue, blur) + noise * random.normal(size=tissue.shape)
    return image[None].astype(np.float32), {"liver": mask}


def test_noise_and_blur_are_seen_where_they_are():
    plain, noisy, blurred = (appearance(*scan(**o)) for o in ({}, {"noise": 0.2}, {"blur": 2.5}))
    for axis in "zyx":
        assert noisy[f"0/noise_{axis}"] > plain[f"0/noise_{axis}"] + 1
        # Farther neighbours differ more, and the more so the smoother an image is.
        assert blurred[f"0/sharpness_{axis}"] > plain[f"0/sharpness_{axis}"] + 0.02
        assert noisy[f"0/sharpness_{axis}"] < plain[f"0/sharpness_{axis}"]


def test_what_is_inside_a_structure_moves_no_number_of_the_surroundings():
    image, masks = scan()
    changed = image.copy()
    changed[0, 6:10, 16:24, 16:24] -= 9
    before, after = appearance(image, masks), appearance(changed, masks)
    assert {name for name in before if before[name] != after[name]} <= {"0/level_liver"}


def test_the_level_of_a_structure_is_its_contrast_whatever_the_units():
    image, masks = scan()
    numbers, scaled = appearance(image, masks), appearance(image * 40 + 7, masks)
    around = image[0][~ndimage.binary_dilation(masks["liver"], iterations=2)]
    low, middle, high = np.quantile(around, [0.05, 0.5, 0.95])
    inside = np.median(image[0][ndimage.binary_erosion(masks["liver"])])
    assert numbers["0/level_liver"] == pytest.approx((inside - middle) / (high - low), rel=1e-5)
    for name in set(numbers) - {"0/low", "0/high"}:
        assert scaled[name] == pytest.approx(numbers[name], abs=1e-3)


def test_few_voxels_tell_no_level_and_a_full_image_still_has_numbers():
    image, masks = scan()
    tiny = np.zeros_like(masks["liver"])
    tiny[6:10, 18:22, 18:22] = True  # eight voxels are inside
    assert np.isnan(appearance(image, {"lesion": tiny})["0/level_lesion"])
    full = appearance(image, {"liver": np.ones_like(tiny)})
    assert np.isfinite([value for name, value in full.items()]).all()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_answers_of_the_first_filters_are_averaged_far_from_structures(dimensions):
    import torch
    from torch import nn

    from segshift.attribution.features import FilterAnswers
    from segshift.tasks import Semantic

    torch.manual_seed(0)
    convolution = nn.Conv2d if dimensions == 2 else nn.Conv3d
    first = convolution(1, 3, 3, padding=1)
    head = convolution(3, 2, 1)
    network = nn.Sequential(first, nn.LeakyReLU(), head).eval()
    task = Semantic(structures=["box"], metrics=[Dice()])
    # The first filter is the image itself, and what is bright in it is the box.
    image = 0.1 * torch.randn(2, 1, *(16,) * dimensions)
    image[(0, 0, *(slice(4, 7),) * dimensions)] = 1
    image[(1, 0, *(slice(9, 11),) * dimensions)] = 1
    with torch.no_grad():
        first.weight[0] = 0
        first.weight[(0, 0, *(1,) * dimensions)] = 1
        first.bias[0] = 0
        head.weight[:] = 0
        head.weight[1, 0] = 10
        head.bias[:] = torch.tensor([0.0, -5.0])
    with torch.inference_mode(), FilterAnswers(network, task) as filters:
        logits = network(image)
        network(image[:1])
        found = filters.taken()
        assert np.isnan(filters.taken()).all()  # taken once
        sums, voxels = np.zeros(3), 0
        for window in (0, 1, 0):
            mask = logits[window].argmax(0).numpy() > 0
            assert mask.sum() in (3**dimensions, 2**dimensions)
            far = ~ndimage.binary_dilation(mask, np.ones((5,) * dimensions))
            sums += first(image[window, None])[0].abs().numpy()[:, far].sum(axis=1)
            voxels += far.sum()
    assert found == pytest.approx(sums / voxels, rel=1e-4)
    assert not first._forward_hooks


# ---- the kinds, on tables whose truth is known


def measured(name, patients, *, images=0.0, larger=0.0, predicted_larger=0.0, habit_mm=0.0,
             bias_mm=0.2, dice=0.9, seed=0, cases=1, structures=("liver", "lesion")):  # fmt: skip
    """Lines as `measure` makes them, of a site that differs in what is said."""
    random = np.random.default_rng([seed, *name.encode()])
    lines = []
    for number in range(patients):
        person = random.normal()
        for visit in range(cases):
            line = {"set": name, "case": f"{name}-{number}-{visit}", "patient": f"{name}-{number}"}
            line |= {"site": name.removeprefix("site-")}
            for what, count in (("image/0/", 4), ("network/around/", 6)):
                line |= {f"{what}{i}": images + person + random.normal() for i in range(count)}
            for structure in structures:
                size = np.exp(3 + 0.3 * person + 0.3 * random.normal())
                line[f"volume_ml/reference/{structure}"] = size * np.exp(larger)
                line[f"volume_ml/predicted/{structure}"] = size * np.exp(predicted_larger)
                line[f"count/reference/{structure}"] = 2.0
                line[f"count/predicted/{structure}"] = 2.0
                offset = bias_mm - habit_mm + 0.3 * random.normal()
                line[f"offset_mm/{structure}"] = offset
                # Size explains a part, which is no habit: large ones are drawn further in.
                seen = np.log1p(size * np.exp(predicted_larger))
                line[f"offset_mm/{structure}"] = offset = offset - 0.8 * (seen - 3)
                for shift in SHIFTS_MM:
                    line[f"dice/{shift:g}/{structure}"] = dice - 0.04 * abs(shift + offset)
            lines.append(line)
    return pd.DataFrame(lines)


def alike(random, name, patients, *, cases):
    """Lines as `measure` makes them, of patients from one hospital, with skewed volumes."""
    owners = np.repeat(np.arange(patients), cases)
    n = len(owners)
    person = random.normal(size=(patients, 4))[owners]
    blur = 2 * random.normal(size=(n, 10))
    columns = {f"image/0/{i}": x for i, x in enumerate((person @ LOADINGS + blur).T)}
    columns |= {f"network/{i}": x for i, x in enumerate((person @ LOADINGS[:, ::-1] - blur).T)}
    size = np.exp(3 + person[:, 0] + random.normal(size=n))
    number = 1.0 + random.poisson(1.5, size=n)
    missed = random.random(n) < 0.2
    for who, factor, lost in (("reference", 1, 0), ("predicted", 0.9, missed)):
        columns[f"volume_ml/{who}/lesion"] = size * factor
        columns[f"count/{who}/lesion"] = number - lost
    offset = 0.5 - 0.3 * np.log(size) + 0.5 * random.normal(size=n)
    columns["offset_mm/lesion"] = offset
    for shift in (-1.0, -0.5, 0.0, 0.5, 1.0):
        columns[f"dice/{shift:g}/lesion"] = 0.95 - 0.03 * abs(shift + offset)
    who = [f"{name}-{patient}" for patient in owners]
    about = {"set": name, "case": np.arange(n), "patient": who, "site": name}
    return pd.DataFrame(about | columns)


def test_a_hospital_is_told_from_itself_in_one_of_twenty_draws_at_most(monkeypatch):
    """Where its patients have six cases each at home and one away, any of the three kinds."""
    monkeypatch.setattr("segshift.attribution.permutation.DRAWN", 999)
    shown = untold = 0
    for draw in range(400):
        random = np.random.default_rng(draw)
        home = alike(random, "in_domain", 14, cases=6)
        away = alike(random, "site-b", 14, cases=1)
        found = attributed(pd.concat([home, away]), train="a", seed=draw)["answer"]
        shown += (found == "yes").any()
        untold += (found == "unknown").any()
    assert shown <= 20
    assert untold == 0  # all three could have been shown


def answers(**options):
    """Of one target against in_domain, by kind."""
    tables = [measured("in_domain", 10), measured("site-b", 12, seed=1, **options)]
    return attributed(pd.concat(tables), train="a").set_index("kind")["answer"].to_dict()


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, []),
        ({"images": 3.0}, ["covariate"]),
        ({"larger": 1.0, "predicted_larger": 1.0}, ["prevalence"]),
        ({"habit_mm": 1.5}, ["concept"]),
        ({"habit_mm": -1.5}, ["concept"]),
        ({"images": 3.0, "habit_mm": 1.5}, ["covariate", "concept"]),
        # References alone: annotators draw more. Predictions alone: the network fails.
        ({"larger": 1.0}, []),
        ({"predicted_larger": 1.0}, []),
        ({"larger": 1.0, "predicted_larger": -1.0}, []),
        # Sure, but of less than a quarter of a voxel edge.
        ({"habit_mm": 0.2}, []),
    ],
)
def test_each_kind_is_told_apart(options, shown):
    found = answers(**options)
    assert [kind for kind, answer in found.items() if answer == "yes"] == shown
    assert set(found.values()) <= {"yes", "no"}


def test_two_visits_are_not_two_patients():
    tables = [measured("in_domain", 3, cases=5), measured("site-b", 3, cases=5, images=9.0)]
    found = attributed(pd.concat(tables), train="a").set_index("kind")
    assert found["p"]["covariate"] == pytest.approx(2 / 20)
    assert set(found["answer"]) == {"unknown"}


def test_of_too_few_patients_nothing_is_known():
    def told(home, away):
        tables = [measured("in_domain", home), measured("site-b", away, images=9.0)]
        return attributed(pd.concat(tables), train="a")

    assert set(told(3, 3)["answer"]) == {"unknown"}
    assert told(3, 3)["p_corrected"].isna().all()
    # What cannot be shown is not corrected for: 2 of 70 choices are as far apart.
    few = told(4, 4)
    assert few["answer"].tolist() == ["yes", "unknown", "unknown"]
    assert few["p_corrected"][0] == few["p"][0] == pytest.approx(2 / 70)
    # Of two structures even the best pattern of six signs is no p below 0.05 for three kinds.
    assert told(6, 6)["answer"].tolist() == ["yes", "no", "unknown"]


@pytest.mark.parametrize(
    ("sites", "least"), [(1, (4, 6, 8)), (3, (5, 6, 10)), (6, (5, 7, 11))], ids=str
)
def test_how_many_patients_each_kind_takes_is_what_the_page_says(sites, least, monkeypatch):
    """Of three structures, where in_domain and all sites of a run have as many patients."""
    monkeypatch.setattr("segshift.attribution.permutation.DRAWN", 4_999)
    fewest: dict[str, int] = {}
    for patients in range(4, max(least) + 1):
        home, away = (
            measured(name, patients, structures=("liver", "kidney", "lesion"))
            for name in ("in_domain", "site-b")
        )
        tests = [test(Sides(home=home, away=away, target="b")) for test in KINDS]
        possible = can_pass([test.smallest_p for test in tests] * sites)
        for test, enough in zip(tests, possible[:3], strict=True):
            if enough:
                fewest.setdefault(test.kind, patients)
    assert tuple(fewest.values()) == least
    page = (ROOT / "docs" / "attribution.md").read_text(encoding="utf-8")
    assert f"| {sites} | {' | '.join(map(str, least))} |" in page


def test_the_sites_of_a_run_are_corrected_for_together():
    home = measured("in_domain", 10)
    sites = [measured(f"site-{name}", 10, seed=1, images=0.7) for name in "bcd"]
    alone = [attributed(pd.concat([home, site]), train="a") for site in sites]
    run = attributed(pd.concat([home, *sites]), train="a")
    assert run["p"].tolist() == [p for each in alone for p in each["p"]]
    p = run["p"].to_numpy()
    order = np.argsort(p, kind="stable")
    expected = np.minimum(np.maximum.accumulate(p[order] * np.arange(9, 0, -1)), 1)
    assert run["p_corrected"].to_numpy()[order] == pytest.approx(expected)
    assert (run["p_corrected"] >= pd.concat(alone)["p_corrected"].to_numpy()).all()
    assert (run["answer"] == "yes").sum() < sum((a["answer"] == "yes").sum() for a in alone)


@pytest.mark.parametrize(
    ("smallest", "possible"),
    [
        ([], []),
        ([0.05], [True]),
        ([0.051], [False]),
        ([0.03, 0.03], [False, False]),  # of two tests each would have to have 0.025
        ([0.03, 0.04, 0.02], [False, False, True]),
        ([0.001, 0.02, 0.02], [True, False, False]),  # three would have to have 0.0167
        ([0.001, 0.02, 0.2], [True, True, False]),
        ([1.0, 0.01, 0.01, 0.01, 0.01, 0.01], [False, True, True, True, True, True]),
    ],
)
def test_tests_that_cannot_be_passed_are_not_counted(smallest, possible):
    """The largest set of k tests that all can have a p of 0.05 / k."""
    assert can_pass(smallest).tolist() == possible
    table = pd.DataFrame({"p": smallest, "smallest_p": smallest, "large": True})
    told = answered(table)
    assert (told["answer"] == "unknown").tolist() == [not each for each in possible]
    assert (told["answer"] == "yes").tolist() == possible  # all have the best p they can have
    assert told["p_corrected"].isna().tolist() == [not each for each in possible]


def test_what_is_sure_but_small_and_what_was_not_measured_is_no_yes():
    table = pd.DataFrame(
        {"p": [0.001, np.nan], "smallest_p": [0.001, 0.001], "large": [False, True]}
    )
    assert answered(table)["answer"].tolist() == ["no", "unknown"]
    assert answered(table)["p_corrected"][0] == 0.001


def test_a_structure_that_few_patients_have_hides_no_other():
    """Two and two patients are wholly apart in a third of all choices."""
    options = {"larger": 1.0, "predicted_larger": 1.0}
    home, away = measured("in_domain", 10), measured("b", 12, **options)
    for table in (home, away):
        lesions = [name for name in table if "lesion" in name and "predicted" not in name]
        table.loc[2:, lesions] = np.nan
    evidence = prevalence(Sides(home=home, away=away, target="b"))
    assert evidence.detail.startswith("volume of liver")
    assert evidence.p < 0.01


def test_who_has_a_structure_may_be_up_to_the_site():
    """All at home and three of twelve away: only those who have it are permuted."""
    home = measured("in_domain", 10, structures=("lesion",))
    away = measured("b", 12, structures=("lesion",), larger=9.0, predicted_larger=9.0)
    away.loc[3:, [name for name in away if "/reference/" in name]] = np.nan
    evidence = prevalence(Sides(home=home, away=away, target="b"))
    assert evidence.p == evidence.smallest_p == pytest.approx(2 / 286)  # of 13 patients choose 3
    assert evidence.statistic == 1


@pytest.mark.parametrize("at_home", [0.9, 0.5])
def test_badly_predicted_structures_tell_of_no_habit(at_home):
    home = measured("in_domain", 10, dice=at_home)
    away = measured("site-b", 12, seed=1, habit_mm=1.5, dice=0.5)
    found = attributed(pd.concat([home, away]), train="a")
    assert found["answer"].tolist() == ["no", "no", "unknown"]


def test_a_habit_is_measured_against_the_networks_own_bias():
    home = measured("in_domain", 10, bias_mm=-1.5)
    away = measured("b", 12, bias_mm=-1.5, habit_mm=2.0)
    evidence = concept(Sides(home=home, away=away, target="b"))
    assert evidence.statistic == pytest.approx(2.0, abs=0.3)
    assert "further outside" in evidence.detail
    # The boundary is moved by the habit alone, 0.04 Dice a mm; the bias stays.
    gained = float(re.findall(r"Dice by ([+\d.]+)", evidence.detail)[0])
    assert gained == pytest.approx(0.04 * 2.0, abs=0.01)
    # Two structures, and no choice of 22 patients or of 12 signs is further out.
    assert evidence.p == pytest.approx(2 * max(1 / (DRAWN + 1), 0.5**12))


def test_more_cases_of_each_patient_are_no_habit():
    """The offset is up to the size alone, on a line over its logarithm; home has six cases each."""
    random = np.random.default_rng(24)
    home, away = measured("in_domain", 10, cases=6), measured("b", 12)
    for table in (home, away):
        size = np.exp(random.normal(3, 1, len(table)))
        for structure in ("liver", "lesion"):
            table[f"volume_ml/predicted/{structure}"] = size
            table[f"offset_mm/{structure}"] = 0.5 - 0.4 * np.log(size)
    evidence = concept(Sides(home=home, away=away, target="b"))
    assert evidence.statistic == pytest.approx(0, abs=1e-9)
    assert evidence.p == 1


def test_a_patient_with_many_cases_does_not_say_how_well_a_structure_is_predicted():
    """Dice of 0.9 in nine patients and of 0.3 in all thirty cases of the tenth."""
    home, away = measured("in_domain", 9), measured("b", 12, habit_mm=1.5)
    bad = measured("in_domain", 1, cases=30, dice=0.3).assign(patient="the tenth")
    evidence = concept(Sides(home=pd.concat([home, bad]), away=away, target="b"))
    assert evidence.p < 0.01
    assert evidence.statistic == pytest.approx(1.5, abs=0.4)


def test_a_case_without_an_offset_is_not_counted():
    home, away = measured("in_domain", 10), measured("b", 12, habit_mm=2.0)
    whole = concept(Sides(home=home, away=away.iloc[1:], target="b"))
    away.loc[0, [name for name in away if name.startswith("offset_mm/")]] = np.nan
    assert concept(Sides(home=home, away=away, target="b")) == whole
    assert whole.p < 0.01
    assert "patients: 11)" in whole.detail


def test_no_p_is_made_of_what_is_no_number():
    with pytest.raises(AssertionError):
        p_values(np.array([np.nan, 1.0, 2.0]))


def test_an_offset_whose_removal_recovers_nothing_is_no_habit():
    home, away = measured("in_domain", 10), measured("b", 12, habit_mm=1.5)
    assert concept(Sides(home=home, away=away, target="b")).p < 0.01
    for column in [name for name in away if name.startswith("dice/")]:
        away[column] = 0.9 - 0.04 * abs(float(column.split("/")[1]))
    assert concept(Sides(home=home, away=away, target="b")).p == 1


def test_a_boundary_is_moved_by_what_other_patients_show_far_off():
    """Seven patients are moved by the one who is far off, that one by the seven."""
    home, away = measured("in_domain", 10), measured("b", 8)
    for structure in ("liver", "lesion"):
        away.loc[0, f"offset_mm/{structure}"] = -24.0
        away[f"volume_ml/predicted/{structure}"] = 20.0
    for column in [name for name in away if name.startswith("dice/")]:
        # Only the one who is far off would gain by being moved.
        shift = float(column.split("/")[1])
        away[column] = 0.9 - 0.04 * np.where(np.arange(8) == 0, abs(shift - 3), abs(shift))
    detail = concept(Sides(home=home, away=away, target="b")).detail
    gained = float(re.findall(r"Dice by ([-+\d.]+)", detail)[0])
    assert gained == pytest.approx((0 - 7 * 0.04 * 3) / 8, abs=0.006)


def test_p_of_both_is_the_larger_one_in_the_same_direction():
    home = measured("in_domain", 8)

    def p(**options):
        return prevalence(Sides(home=home, away=measured("b", 8, **options), target="b")).p

    both, reference = p(larger=1.0, predicted_larger=1.0), p(larger=1.0)
    predicted, against = p(predicted_larger=1.0), p(larger=1.0, predicted_larger=-1.0)
    assert both < 0.05 < min(reference, predicted)
    assert against == 1


def test_large_volumes_are_told_without_exponents():
    away = measured("b", 8, larger=5.0, predicted_larger=5.0)  # 20 ml times 150
    detail = prevalence(Sides(home=measured("in_domain", 8), away=away, target="b")).detail
    median = away[["volume_ml/reference/liver", "volume_ml/reference/lesion"]].median()
    told = re.findall(r"volume of \w+: median (\S+) ml against ([\d.]+) ml", detail)
    assert told
    assert told[0][0] in {f"{value:.0f}" for value in median}


def test_answers_do_not_depend_on_the_order_of_the_cases_or_the_other_sites():
    tables = [measured("in_domain", 10), measured("site-b", 12, images=0.5), measured("site-c", 9)]
    both = attributed(pd.concat(tables), train="a")
    alone = attributed(pd.concat(tables[:2]), train="a")
    corrected = ["p_corrected", "answer"]  # for the sites of a run together
    pd.testing.assert_frame_equal(
        both[both["set"] == "site-b"].drop(columns=corrected), alone.drop(columns=corrected)
    )
    shuffled = pd.concat([*tables]).sample(frac=1, random_state=0)
    again = attributed(shuffled, train="a")
    key = ["set", "kind"]
    pd.testing.assert_frame_equal(
        again.sort_values(key, ignore_index=True), both.sort_values(key, ignore_index=True)
    )


def test_what_was_never_annotated_at_a_site_shows_nothing():
    away = measured("site-b", 12, seed=1, larger=1.0, predicted_larger=1.0, habit_mm=1.5)
    unknown = [name for name in away if "/lesion" in name and "predicted" not in name]
    away[unknown] = np.nan
    alone = away.drop(columns=[name for name in away if "lesion" in name])
    home = measured("in_domain", 10)
    for table in (away, alone):
        some = home[[name for name in home if name in table]]
        found = attributed(pd.concat([some, table]), train="a").set_index("kind")
        assert found["answer"].tolist() == ["no", "yes", "yes"]
        assert "liver" in found["detail"]["prevalence"]
        assert "liver" in found["detail"]["concept"]
    away[[name for name in away if "/liver" in name and "predicted" not in name]] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = attributed(pd.concat([home, away]), train="a").set_index("kind")
    assert found["answer"].tolist() == ["no", "unknown", "unknown"]


def test_without_a_second_set_nothing_can_be_told():
    with pytest.raises(InputError, match="in_domain"):
        attributed(measured("in_domain", 5), train="a")
    with pytest.raises(InputError, match="in_domain"):
        attributed(measured("site-b", 5), train="a")


# ---- from a run to its answers


@pytest.fixture(scope="module")
def tiny_run(phantom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("attributed") / "run"
    overrides = [word for word in TINY_TRAINING if "steps" not in word]
    run.train(
        composed(*phantom, *overrides, "trainer.steps_per_epoch=20", "model=unet2d"),
        folder, command="", choices={},
    )  # fmt: skip
    return folder


def test_a_run_is_measured_and_answered_from_its_folder(tiny_run, capsys):
    main(["attribute", str(tiny_run)])
    said = capsys.readouterr().out
    answers = pd.read_csv(tiny_run / "attribution.csv")
    assert answers.columns.tolist() == list(COLUMNS)
    assert set(answers["train"]) == {trained_at(["alpha"])}
    sites = ["beta", "gamma", "delta"]
    assert sorted(answers["site"].unique()) == sorted(sites)
    assert answers.groupby("site")["kind"].nunique().tolist() == [3, 3, 3]
    # Two patients in in_domain cannot tell.
    assert set(answers["answer"]) == {"unknown"}
    assert "site-beta: nothing could be tested: covariate, prevalence, concept" in said
    table = pd.read_csv(tiny_run / "measurements.csv").set_index("case")
    rows = read_rows(tiny_run / "rows.csv")
    assert set(table.index) == set(rows["case"])
    # What is measured is what the run was scored on: the same Dice, where a mask has a boundary.
    dice = rows[rows["metric"] == "dice"].set_index(["case", "structure"])["value"]
    measured = {(case, s): table.loc[case, f"dice/0/{s}"] for case, s in dice.index}
    known = {key: value for key, value in measured.items() if not np.isnan(value)}
    assert len(known) > 10
    assert known == pytest.approx({key: dice[key] for key in known})
    assert all(dice[key] == 0 or np.isnan(dice[key]) for key in set(measured) - set(known))
    volumes = table.loc["alpha-001" if "alpha-001" in table.index else table.index[0]]
    assert volumes["volume_ml/reference/liver"] > 100
    assert table.filter(regex="^(image|network)/").notna().all().sum() > 10


def test_measuring_again_gives_the_same_answers(tiny_run):
    before = attribute(tiny_run)
    pd.testing.assert_frame_equal(attribute(tiny_run), before)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a folder"):
        attribute(tmp_path / "nothing")
    with pytest.raises(InputError, match="no checkpoint"):
        attribute(tmp_path)
    (tmp_path / "jobs.csv").touch()
    with pytest.raises(InputError, match="is a study; name one of its runs, .*jobs/"):
        attribute(tmp_path)


@pytest.fixture
def sides(tiny_run):
    return json.loads((tiny_run / "split.json").read_text())


@pytest.fixture
def asked(tiny_run, tmp_path, monkeypatch):
    """A function of sides and `data` that gives the cases by set that would be measured."""

    def sets_of(sides, **options):
        folder = tmp_path / "run"
        shutil.copytree(tiny_run, folder, dirs_exist_ok=True)
        (folder / "split.json").write_text(json.dumps(sides))
        found = {}

        def measure(run, sets, **_):
            found.update({name: {case.id for case in cases} for name, cases in sets.items()})
            return pd.concat([measured(name, 3) for name in sets])

        monkeypatch.setattr("segshift.attribution.measuring.measure", measure)
        attribute(folder, **options)
        return found

    return sets_of


def today(tmp_path, phantom, **patients):
    """The config of the cohort as it is now, with other numbers of patients."""
    words = [f"data.cohort.sites.{site}.patients={count}" for site, count in patients.items()]
    return composed(*phantom, *words, f"data.cohort.folder={tmp_path / 'today'}")


def test_who_is_judged_is_what_the_run_says_not_what_a_new_split_would(
    asked, sides, tiny_run, phantom, tmp_path
):
    config = today(tmp_path, phantom, alpha=12)
    again = build.split_of(config, build.cohort_of(config)).tests["in_domain"]
    assert {case.id for case in again} - set(sides["in_domain"])
    found = asked(sides, data=config.data)
    told = read_rows(tiny_run / "rows.csv")
    assert found == {name: set(told.loc[told["set"] == name, "case"]) for name in found}
    assert set(found) == sides.keys() - {"train", "val"}


def test_a_case_that_is_gone_is_named(asked, sides, phantom, tmp_path):
    with pytest.raises(InputError, match=r"'site-beta' names 1 case.*does not have.*'beta-003'"):
        asked(sides, data=today(tmp_path, phantom, beta=2).data)


def test_patients_who_were_learned_from_are_not_judged(asked, sides):
    sides["in_domain"].append(learned := sides["train"].pop())
    with pytest.raises(InputError, match=f"trained or chosen on the patient.*{learned}"):
        asked(sides)


@pytest.mark.parametrize("name", ["prevalence-liver-1", "labels-truth", "guideline-other"])
def test_sets_of_in_domains_own_patients_are_no_second_sample(asked, sides, name, capsys):
    sides[name] = sides["in_domain"][:1]
    assert name not in asked(sides)
    assert f"left out: {name} judge(s) patients of in_domain" in capsys.readouterr().out
    own = {key: sides[key] for key in ("train", "val", "in_domain", name)}
    with pytest.raises(InputError, match=f"leave_site_out.*{name} judge.s. patients of in_domain"):
        asked(own)


def test_a_run_of_one_site_has_no_shift_to_tell(asked, sides):
    with pytest.raises(InputError, match="tested on in_domain; .*leave_site_out"):
        asked({key: sides[key] for key in ("train", "val", "in_domain")})


def test_a_run_that_does_not_say_who_was_judged(tiny_run, tmp_path):
    shutil.copytree(tiny_run / "checkpoints", tmp_path / "checkpoints")
    with pytest.raises(InputError, match="has no split.json"):
        attribute(tmp_path)


@pytest.mark.parametrize(
    ("patients", "there"),
    [
        ({"in_domain": "ab", "site-b": "cd"}, True),
        ({"in_domain": "ab", "vendor-ge": "cd"}, True),  # whatever the set is called
        ({"in_domain": "ab"}, False),
        ({"site-a": "ab", "site-b": "cd"}, False),
        ({"in_domain": "ab", "prevalence-liver-0.2": "ab", "site-of-labels": "a"}, False),
        ({}, False),
    ],
)
def test_there_is_something_to_ask_where_a_set_has_other_patients(tmp_path, patients, there):
    sets = {name: [Case(p, p, "x", ()) for p in own] for name, own in patients.items()}
    write_cases(tmp_path / "cases.csv", sets)
    assert has_target(tmp_path) is there


def test_the_answers_start_without_torch():
    code = "import sys, segshift.attribution; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_experiment_asks_for_every_site_of_a_seed(tiny_run, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "attribution.py", f"run={tiny_run}", "seeds=0",
         "patients=2", "redraws=1", f"folder={tmp_path}"],
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    lines = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| ")]
    counts = {line[0].strip(): line[1:] for line in lines[1:5]}
    assert set(counts) == {"beta", "gamma", "delta", "alpha2"}
    # Two patients a site show nothing, which is right for the second alpha alone.
    assert [counts[site][1].strip() for site in ("beta", "alpha2")] == ["0", "1"]
    assert "seed 0 beta    covariate unknown" in done.stdout
