"""Post-processing: hand-made masks, and choices that validation cases justify or do not."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import ndimage

from segshift.errors import InputError
from segshift.postprocessing import (
    FILL,
    LARGEST,
    MINIMUM,
    REMOVALS,
    JudgedCase,
    Rule,
    chosen_rules,
    common_rules,
    effects,
    postprocessed,
    read_rules,
    rules_from_dict,
)

MM = (2.0, 1.0, 1.0)


def rule(kind, value=None):
    return Rule(rule=kind, value=value, dice_before=0.5, dice_after=0.6, n=3)


def blobs() -> np.ndarray:
    """Structure 1: a hollow box of 26 voxels and a speck of 2; structure 2: a lone voxel."""
    labels = np.zeros((7, 9, 9), np.uint8)
    labels[1:4, 1:4, 1:4] = 1
    labels[2, 2, 2] = 0
    labels[5, 6:8, 6] = 1
    labels[5, 1, 7] = 2
    return labels


def after(labels, rules, **options):
    exclusive = {"structures": ("a", "b"), "exclusive": True} | options
    return postprocessed(labels, rules, MM, **exclusive)


def test_the_largest_component_stays_and_other_structures_are_left_alone():
    result = after(blobs(), {"a": (rule(LARGEST),)})
    assert (result == 1).sum() == 26
    assert (result == 2).sum() == 1
    assert (result[5] == 1).sum() == 0


@pytest.mark.parametrize(("mm3", "left"), [(4.0, 28), (4.1, 26), (52.0, 26), (52.1, 0)])
def test_components_smaller_than_the_volume_go(mm3, left):
    assert (after(blobs(), {"a": (rule(MINIMUM, mm3),)}) == 1).sum() == left


def test_a_component_holds_together_by_a_corner():
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = 1
    assert (after(labels, {"a": (rule(LARGEST),)}) == 1).sum() == 2


def test_holes_are_filled_but_not_over_another_structure():
    labels = blobs()
    assert (after(labels, {"a": (rule(FILL),)}) == 1).sum() == 29
    labels[2, 2, 2] = 2
    np.testing.assert_array_equal(after(labels, {"a": (rule(FILL),)}), labels)


def test_a_hole_in_a_single_slice_is_one_within_it():
    labels = np.ones((1, 5, 5), np.uint8)
    labels[0, 2, 2] = 0
    assert (after(labels, {"a": (rule(FILL),)}) == 1).all()


def test_filling_comes_before_volumes_are_compared():
    labels = blobs()
    assert (after(labels, {"a": (rule(MINIMUM, 54.0), rule(FILL))}) == 1).sum() == 27


def test_without_rules_or_voxels_nothing_changes():
    labels = blobs()
    assert after(labels, {}) is labels
    assert after(labels, {"a": ()}) is labels
    empty = np.zeros((2, 3, 3), np.uint8)
    np.testing.assert_array_equal(after(empty, {"a": (rule(LARGEST), rule(FILL))}), empty)


def test_regions_are_bits_and_may_be_filled_over_each_other():
    outer = np.zeros((5, 5, 5), bool)
    outer[1:4, 1:4, 1:4] = True
    outer[2, 2, 2] = False
    core = np.zeros_like(outer)
    core[2, 2, 2] = core[0, 0, 0] = True
    labels = outer.astype(np.uint8) | core.astype(np.uint8) << 1
    result = after(labels, {"a": (rule(FILL),), "b": (rule(LARGEST),)}, exclusive=False)
    assert (result & 1).sum() == 27
    assert (result >> 1 & 1).sum() == 1
    assert result.dtype == labels.dtype


def test_the_largest_component_agrees_with_scipy_on_noise():
    noise = (np.random.default_rng(0).random((12, 20, 20)) > 0.85).astype(np.uint8)
    found, _ = ndimage.label(noise, structure=np.ones((3, 3, 3)))
    expected = found == np.bincount(found[found > 0]).argmax()
    np.testing.assert_array_equal(after(noise, {"a": (rule(LARGEST),)}) == 1, expected)


@pytest.mark.parametrize("shape", [(12, 20, 20), (1, 30, 30)])
def test_filled_holes_agree_with_scipy_on_noise(shape):
    noise = (np.random.default_rng(0).random(shape) > 0.35).astype(np.uint8)
    holes = ndimage.binary_fill_holes(noise[0])[None] if shape[0] == 1 else None
    expected = ndimage.binary_fill_holes(noise) if holes is None else holes
    assert expected.sum() > noise.sum()
    np.testing.assert_array_equal(after(noise, {"a": (rule(FILL),)}) == 1, expected)


def judged(labels, *masks, counted=None):
    everywhere = np.ones(labels.shape, bool)
    return JudgedCase(
        labels=labels,
        references=masks,
        counted=everywhere if counted is None else counted,
        spacing_mm=MM,
    )


def chosen(cases):
    return chosen_rules([effects(case, exclusive=True) for case in cases], structures=("a", "b"))


def test_what_helps_is_kept_with_its_gain_and_the_mildest_of_equals():
    truth = np.zeros((7, 9, 9), bool)
    truth[1:4, 1:4, 1:4] = True
    rules = chosen([judged(blobs(), truth, None)])
    first, second = rules["a"]
    assert (first.rule, first.value, first.n) == (MINIMUM, 10.0, 1)  # as good as the largest
    assert first.dice_before == pytest.approx(2 * 26 / (28 + 27))
    assert first.dice_after == second.dice_before == pytest.approx(2 * 26 / (26 + 27))
    assert (second.rule, second.value, second.dice_after) == (FILL, None, 1.0)
    assert rules["b"] == ()  # not annotated


def test_what_is_promised_is_what_the_rules_do():
    random = np.random.default_rng(1)
    truth = ndimage.gaussian_filter(random.random((10, 24, 24)), 3) > 0.5
    noisy = (truth ^ (random.random(truth.shape) > 0.9)).astype(np.uint8)
    rules = chosen([judged(noisy, truth, None)])
    mask = after(noisy, rules) == 1
    dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
    assert rules["a"]
    assert dice == pytest.approx(rules["a"][-1].dice_after)


def test_no_gain_is_promised_for_a_hole_that_another_structure_holds():
    labels, truth = blobs(), np.zeros((7, 9, 9), bool)
    truth[1:4, 1:4, 1:4] = True
    labels[2, 2, 2] = 2
    assert [each.rule for each in chosen([judged(labels, truth, None)])["a"]] == [MINIMUM]


def test_what_does_not_help_on_average_is_left():
    """The two-voxel speck is false in one case and true in two."""
    box, both = blobs(), blobs() == 1
    alone = both.copy()
    alone[5] = False
    alone[2, 2, 2] = both[2, 2, 2] = False
    assert chosen([judged(box, m, None) for m in (both, both, alone)])["a"] == ()
    assert chosen([judged(box, both, None), *[judged(box, alone, None)] * 2])["a"]


def test_a_missed_case_counts_and_an_empty_one_does_not():
    labels, truth = blobs(), np.zeros((7, 9, 9), bool)
    truth[1:4, 1:4, 1:4] = True
    missed = judged(np.zeros_like(labels), truth, None)
    empty = judged(np.zeros_like(labels), np.zeros_like(truth), None)
    (first, _) = chosen([judged(labels, truth, None), missed, empty])["a"]
    assert first.n == 2
    assert first.dice_before == pytest.approx(26 / (28 + 27))


def test_a_false_structure_that_goes_is_a_gain():
    nothing = np.zeros((7, 9, 9), bool)
    ((only,),) = [r for r in chosen([judged(blobs(), None, nothing)]).values() if r]
    assert (only.rule, only.dice_before, only.dice_after) == (MINIMUM, 0.0, 1.0)


def test_voxels_that_nobody_decided_on_do_not_count():
    truth = np.zeros((7, 9, 9), bool)
    truth[1:4, 1:4, 1:4] = True
    truth[2, 2, 2] = False
    counted = np.ones_like(truth)
    counted[5] = False  # where the speck is
    assert chosen([judged(blobs(), truth, None, counted=counted)])["a"] == ()


def test_rules_go_through_json_and_an_ensemble_does_what_all_its_members_do():
    mine = {"a": (rule(MINIMUM, 30.0), rule(FILL)), "b": (rule(LARGEST),)}
    theirs = {"a": (rule(MINIMUM, 10.0),), "b": ()}
    written = json.dumps({name: [asdict(each) for each in rules] for name, rules in mine.items()})
    assert rules_from_dict(json.loads(written)) == mine
    assert common_rules([mine, theirs]) == {"a": (rule(MINIMUM, 10.0),), "b": ()}
    assert common_rules([mine]) == mine


def test_filling_is_judged_without_a_removal_that_is_not_done():
    table = np.full((2, len(REMOVALS)), 0.4)
    table[:, 0] = 0.5, 0.48
    table[:, 1] = 0.5009, 0.5025  # too little a gain, and filling on top of it
    assert chosen_rules([[table]], structures=("a",)) == {"a": ()}


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "postprocessing.json").write_text('{"a": [{"rule": 1}]}')
    with pytest.raises(InputError, match="postprocessing.json is not what a run wrote"):
        read_rules(tmp_path / "run" / "checkpoints" / "best.ckpt")
