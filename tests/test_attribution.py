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
from segshift.attribution.kinds import prevalence
from segshift.attribution.offset import boundary_offset, dice_after_shifts
from segshift.attribution.permutation import (
    DRAWN,
    choices,
    family_p,
    kernel,
    mmd,
    rank_differences,
    share_at_least,
    smallest_share,
)
from segshift.cli import main
from segshift.cohort import Case
from segshift.errors import InputError
from segshift.metrics import BoundaryOffset, Dice, MaskPair
from segshift.results import read_rows, trained_at, write_cases

SHIFTS_MM = np.arange(-12, 13) * 0.25


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
    similar = -np.abs(values[:, None] - values)
    statistics = mmd(similar, members)
    assert smallest_share(statistics) == pytest.approx(least)
    assert share_at_least(statistics) >= smallest_share(statistics)


def test_several_ranked_quantities_have_a_larger_smallest_p_than_one():
    members = choices(5, 5)
    values = np.random.default_rng(9).normal(size=(10, 8))
    one, eight = (family_p(rank_differences(values[:, :n], members))[1] for n in (1, 8))
    assert one == pytest.approx(2 / 252)
    assert eight == pytest.approx(8 * one, rel=0.3)


# ---- MMD


def slow_mmd(similar, first):
    n, m = first, len(similar) - first
    within_x = sum(similar[i][j] for i in range(n) for j in range(n)) / n**2
    within_y = sum(similar[i][j] for i in range(n, n + m) for j in range(n, n + m)) / m**2
    across = sum(similar[i][j] for i in range(n) for j in range(n, n + m)) / (n * m)
    return within_x + within_y - 2 * across


def test_mmd_is_that_of_a_slow_double_loop_in_every_choice():
    features = np.random.default_rng(0).normal(size=(7, 3))
    similar = kernel(features)
    found = mmd(similar, choices(3, 4))
    for value, chosen in zip(found, itertools.combinations(range(7), 3), strict=True):
        order = [*chosen, *(i for i in range(7) if i not in chosen)]
        assert value == pytest.approx(slow_mmd(similar[np.ix_(order, order)], 3))


def test_the_kernel_is_gaussian_of_the_median_distance_and_ignores_units():
    features = np.random.default_rng(1).normal(size=(6, 2))
    scaled = (features - features.mean(axis=0)) / features.std(axis=0)
    squares = np.array([[((a - b) ** 2).sum() for b in scaled] for a in scaled])
    width = np.median([squares[i, j] for i in range(6) for j in range(i)])
    assert np.allclose(kernel(features), np.exp(-squares / width))
    assert np.allclose(kernel(features * [1000, 0.01] + 5), kernel(features))


def test_constant_and_unknown_features_tell_nobody_apart():
    features = np.random.default_rng(2).normal(size=(6, 2))
    more = np.column_stack([features, np.full(6, 3.0)])
    assert np.allclose(kernel(more), kernel(features))
    unknown, filled = features.copy(), features.copy()
    unknown[2, 0] = np.nan
    filled[2, 0] = np.median(np.delete(features[:, 0], 2))
    assert np.allclose(kernel(unknown), kernel(filled))
    assert np.allclose(kernel(np.ones((4, 2))), 1)


def test_p_of_equal_samples_is_uniform_and_of_others_is_small():
    random = np.random.default_rng(3)
    members = choices(5, 5)
    null = [share_at_least(mmd(kernel(random.normal(size=(10, 4))), members)) for _ in range(400)]
    assert stats.kstest(null, "uniform").pvalue > 0.01
    assert 0.02 < np.mean(np.array(null) <= 0.05) < 0.08
    apart = random.normal(size=(10, 4)) + np.repeat([[0], [3]], 5, axis=0)
    assert share_at_least(mmd(kernel(apart), members)) == pytest.approx(2 / 252)


def test_mmd_sees_a_spread_that_no_mean_shows():
    random = np.random.default_rng(4)
    members = choices(20, 20)
    values = random.normal(size=(40, 2)) * np.repeat([[1], [5]], 20, axis=0)
    assert share_at_least(mmd(kernel(values), members)) < 0.01


# ---- ranks


def test_rank_differences_are_those_of_a_mann_whitney_test():
    values = np.random.default_rng(5).normal(size=(9, 1))
    differences = rank_differences(values, choices(4, 5))
    p = np.mean(np.abs(differences) >= np.abs(differences[0]) - 1e-10)
    expected = stats.mannwhitneyu(values[:4, 0], values[4:, 0], method="exact").pvalue
    assert p == pytest.approx(expected)
    assert np.sign(differences[0, 0]) == np.sign(
        stats.rankdata(values)[4:].mean() - stats.rankdata(values)[:4].mean()
    )


def test_unknown_values_have_no_rank_and_constants_no_difference():
    values = np.array([[1.0, 7, np.nan], [2, 7, np.nan], [np.nan, 7, 1], [9, 7, 2], [8, 7, 3]])
    differences = rank_differences(values, choices(2, 3))
    of_known = rank_differences(values[[0, 1, 3, 4]], choices(2, 2))
    assert differences[0, 0] == pytest.approx(of_known[0, 0])
    assert differences[0, 1] == 0
    assert differences[0, 2] == 0  # nobody at home has it


def test_p_of_a_family_is_corrected_for_its_size():
    random = np.random.default_rng(6)
    members = choices(6, 6)
    families = [rank_differences(random.normal(size=(12, 8)), members) for _ in range(400)]
    assert 0.02 < np.mean([family_p(each)[0].min() <= 0.05 for each in families]) < 0.08
    # Of one alone it is the plain p.
    one = families[0][:, :1]
    assert family_p(one)[0] == np.mean(np.abs(one) >= np.abs(one[0]) - 1e-10)


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
             bias_mm=0.2, dice=0.9, seed=0, cases=1):  # fmt: skip
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
            for structure in ("liver", "lesion"):
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
    few = attributed(
        pd.concat([measured("in_domain", 4), measured("site-b", 4, images=9.0)]), train="a"
    )
    assert set(few["answer"]) == {"unknown"}
    enough = attributed(
        pd.concat([measured("in_domain", 4), measured("site-b", 6, images=9.0)]), train="a"
    )
    # Of two structures even the best pattern of six signs is no p below 0.05 for three kinds.
    assert enough["answer"].tolist() == ["yes", "no", "unknown"]


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


def test_a_case_without_an_offset_is_not_counted():
    home, away = measured("in_domain", 10), measured("b", 12, habit_mm=2.0)
    whole = concept(Sides(home=home, away=away.iloc[1:], target="b"))
    away.loc[0, [name for name in away if name.startswith("offset_mm/")]] = np.nan
    assert concept(Sides(home=home, away=away, target="b")) == whole
    assert whole.p < 0.01
    assert "patients: 11)" in whole.detail


def test_no_p_is_made_of_what_is_no_number():
    with pytest.raises(AssertionError):
        share_at_least(np.array([np.nan, 1.0, 2.0]))


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
    pd.testing.assert_frame_equal(both[both["set"] == "site-b"], alone)
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
