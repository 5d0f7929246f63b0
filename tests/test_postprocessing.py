"""Post-processing: hand-made masks, and choices that validation cases justify or do not."""

import importlib.util
import json
import sys
from dataclasses import asdict

import numpy as np
import pytest
from conftest import ROOT
from scipy import ndimage
from scipy.stats import binomtest

from segshift.errors import InputError
from segshift.postprocessing import (
    Choice,
    Effect,
    JudgedCase,
    ReferenceComponents,
    Rule,
    chosen_rules,
    common_rules,
    effects,
    merged,
    postprocessed,
    read_rules,
    reference_components,
    rules_from_dict,
    told,
)
from segshift.postprocessing.judging import REMOVALS
from segshift.postprocessing.rules import FILL, LARGEST, MINIMUM
from segshift.units import Units

MM3 = MINIMUM["mm3"]
MM = (2.0, 1.0, 1.0)


def rule(kind, value=None):
    return Rule(rule=kind, value=value, score_before=0.5, score_after=0.6, patients=9)


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
    assert (after(blobs(), {"a": (rule(MM3, mm3),)}) == 1).sum() == left


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
    assert (after(labels, {"a": (rule(MM3, 54.0), rule(FILL))}) == 1).sum() == 27


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


def judged(labels, *masks, patient="p", counted=None):
    everywhere = np.ones(labels.shape, bool)
    return JudgedCase(
        patient=patient,
        labels=labels,
        references=masks,
        counted=everywhere if counted is None else counted,
        spacing_mm=MM,
    )


def box() -> np.ndarray:
    """What is true of `blobs`: the box of 27 voxels (54 mm3) without its hole, and no speck."""
    truth = np.zeros((7, 9, 9), bool)
    truth[1:4, 1:4, 1:4] = True
    return truth


def scores_of(labels, *masks, **options):
    """Selection scores (2, candidates) of the last structure of one case."""
    return effects(judged(labels, *masks, **options), exclusive=True)[-1].scores


class TestSelectionScore:
    def test_it_is_dice_where_the_reference_has_the_structure(self):
        scores = scores_of(blobs(), box())
        assert scores[0, 0] == pytest.approx(2 * 26 / (28 + 27))
        assert scores[0, 1] == scores[0, -1] == pytest.approx(2 * 26 / (26 + 27))
        assert scores[0, REMOVALS.index(100.0)] == 0  # nothing is left
        assert scores[1, 0] == pytest.approx(2 * 27 / (29 + 27))
        assert scores[1, 1] == 1

    def test_elsewhere_it_is_one_if_nothing_is_predicted_else_zero(self):
        nothing = np.zeros((7, 9, 9), bool)
        predicted = scores_of(blobs(), nothing)
        assert predicted[0].tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0]  # the box has 52 mm3
        (effect,) = effects(judged(np.zeros_like(blobs()), nothing), exclusive=True)
        assert (effect.scores == 1).all()
        assert not effect.there

    def test_a_missed_structure_is_zero_whatever_is_done(self):
        (effect,) = effects(judged(np.zeros_like(blobs()), box()), exclusive=True)
        assert (effect.scores == 0).all()
        assert effect.there

    def test_a_structure_that_is_not_annotated_is_in_no_score(self):
        assert effects(judged(blobs(), None, None), exclusive=True) == [None, None]

    def test_voxels_that_nobody_decided_on_do_not_count(self):
        truth, counted = box(), np.ones((7, 9, 9), bool)
        truth[2, 2, 2] = False
        counted[5] = False  # where the speck is
        assert scores_of(blobs(), truth, counted=counted)[0, 0] == 1
        decided_nowhere = np.zeros_like(counted)
        (effect,) = effects(judged(blobs(), box(), counted=decided_nowhere), exclusive=True)
        assert (effect.scores == 1).all()
        assert not effect.there

    def test_a_hole_that_another_structure_holds_is_not_filled(self):
        labels = blobs()
        labels[2, 2, 2] = 2
        scores = scores_of(labels, box())
        np.testing.assert_array_equal(scores[0], scores[1])

    def test_it_is_what_the_rules_do(self):
        random = np.random.default_rng(1)
        truth = ndimage.gaussian_filter(random.random((10, 24, 24)), 3) > 0.5
        noisy = (truth ^ (random.random(truth.shape) > 0.9)).astype(np.uint8)
        scores = scores_of(noisy, truth)
        for place, removal in enumerate(REMOVALS):
            kind = LARGEST if removal == LARGEST else MM3
            removals = (rule(kind, None if kind == LARGEST else removal or 0.0),)
            for row, rules in enumerate((removals, (*removals, rule(FILL)))):
                mask = after(noisy, {"a": rules}) == 1
                dice = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
                assert scores[row, place] == pytest.approx(dice)


class TestReferenceComponents:
    def test_the_smallest_and_the_most(self):
        found = reference_components(blobs() == 1, MM)
        assert found == ReferenceComponents(smallest={"mm3": 4.0}, most=2)
        alone = reference_components(blobs() == 2, MM)
        assert alone == ReferenceComponents(smallest={"mm3": 2.0}, most=1)
        assert merged([found, alone]) == ReferenceComponents(smallest={"mm3": 2.0}, most=2)

    def test_a_case_without_the_structure_changes_nothing(self):
        found = reference_components(blobs() == 1, MM)
        without = reference_components(blobs() == 3, MM)
        assert merged([without, found]) == merged([found]) == found
        assert merged([without]) == merged([]) == without

    @pytest.mark.parametrize("shape", [(12, 20, 20), (1, 30, 30), (1, 1, 9), (1, 3, 3), (5, 1, 3)])
    @pytest.mark.parametrize("seed", range(5))
    def test_they_agree_with_scipy_on_noise(self, shape, seed):
        noise = np.random.default_rng(seed).random(shape) > 0.5 + 0.45 * (shape[0] == 12)
        noise[..., 0] = noise[..., -1] = True
        labelled, count = ndimage.label(noise, structure=np.ones((3, 3, 3)))
        least = min(np.bincount(labelled.ravel())[1:])
        found = reference_components(noise, MM)
        # Of a picture the area counts, of a volume the thickness of 2 mm too.
        flat = [axis for axis in range(3) if shape[axis] == 1]
        voxel = 2.0 / MM[flat[0]] if flat else 2.0
        unit = Units(flat=bool(flat)).small_size
        assert found == ReferenceComponents(smallest={unit: voxel * least}, most=count)

    def test_a_row_of_lone_voxels(self):
        row = np.array([[[True, False, True]]])
        assert reference_components(row, MM) == ReferenceComponents(smallest={"mm2": 1.0}, most=2)


HUGE = ReferenceComponents(smallest={"mm3": 1e6}, most=1)  # every candidate may be tried
LOW, HIGH = REMOVALS.index(30.0), REMOVALS.index(300.0)


def effect(patient, before, *, there=True, filled=0.0, unit="mm3", **candidates):
    """Scores `before`, or those of candidates by name: `low` (30 mm3), `high`, `largest`."""
    scores = np.full((2, len(REMOVALS)), before)
    places = {"low": LOW, "high": HIGH, "largest": len(REMOVALS) - 1}
    for name, value in candidates.items():
        scores[:, places[name]] = value
    scores[1] += filled
    return Effect(patient=str(patient), there=there, scores=scores, unit=unit)


def chosen(effects, references=HUGE) -> Choice:
    return chosen_rules(
        [[effect] for effect in effects], structures=("a",), references=[references]
    )


def names(choice: Choice) -> list[str]:
    return [str(rule) for rule in choice.rules["a"]]


def helped(count, **options):
    """Patients who all gain alike by either removal."""
    gains = {"low": 0.7, "high": 0.7} | options
    return [effect(patient, 0.5, **gains) for patient in range(count)]


class TestGuards:
    """Each of what is refused here would be chosen without the one guard that is told."""

    def test_what_passes_is_kept_with_its_gain_and_the_mildest_of_the_best(self):
        choice = chosen(helped(8, filled=0.1))
        removal, filling = choice.rules["a"]
        assert (removal.rule, removal.value, removal.patients) == (MM3, 30.0, 8)
        assert (removal.score_before, removal.score_after) == pytest.approx((0.5, 0.7))
        assert (filling.rule, filling.value, filling.patients) == (FILL, None, 8)
        assert (filling.score_before, filling.score_after) == pytest.approx((0.7, 0.8))
        assert choice.reasons == {}
        assert names(chosen(helped(8, high=0.8))) == ["min_volume_mm3 300"]
        assert names(chosen(helped(8, largest=0.8))) == ["largest_component"]

    @pytest.mark.parametrize("gain", [{}, {"low": 0.5, "high": 0.5, "filled": 0.2}])
    def test_eight_patients_have_the_structure(self, gain):
        without = [effect(f"without {n}", 0.0, there=False, low=1.0, filled=1) for n in range(9)]
        assert names(chosen([*helped(8, **gain), *without]))
        choice = chosen([*helped(7, **gain), *helped(7, **gain), *without])  # two cases each
        assert choice.rules["a"] == ()
        assert choice.reasons["a"] == "7 validation patients have it, at least 8 are needed"
        assert chosen(helped(1)).reasons["a"].startswith("1 validation patient has it, ")

    def test_no_volume_is_removed_that_a_true_component_has(self):
        assert names(chosen(helped(8), ReferenceComponents(smallest={"mm3": 30.0}, most=1)))
        choice = chosen(helped(8), ReferenceComponents(smallest={"mm3": 29.9}, most=1))
        assert choice.rules["a"] == ()
        both = helped(8, high=0.8)
        assert names(chosen(both, ReferenceComponents(smallest={"mm3": 299.9}, most=1))) == [
            "min_volume_mm3 30"
        ]

    def test_the_largest_alone_stays_only_where_every_reference_is_one_component(self):
        gains = helped(8, low=0.5, high=0.5, largest=0.7)
        assert names(chosen(gains, ReferenceComponents(smallest={"mm3": 2.0}, most=1)))
        choice = chosen(gains, ReferenceComponents(smallest={"mm3": 2.0}, most=2))
        assert choice.rules["a"] == ()
        assert choice.reasons["a"] == (
            "no rule raises its validation score by more than 0.001 (no removal is tried: a "
            "reference component has only 2 mm3)"
        )

    def test_holes_are_filled_whatever_the_components(self):
        gains = helped(8, low=0.5, high=0.5, filled=0.2)
        assert names(chosen(gains, ReferenceComponents(smallest={"mm3": 2.0}, most=2))) == [FILL]

    @pytest.mark.parametrize("done", ["low", "filled"])
    def test_a_gain_is_more_than_its_standard_error(self, done):
        def gaining(*gains):
            gains = [*gains, *[0.0] * (8 - len(gains))]
            add = [g if done == "filled" else 0.5 + g for g in gains]
            return [effect(patient, 0.5, **{done: g}) for patient, g in enumerate(add)]

        # Of gains x, x and six 0 the mean is 0.25 x, its error x sqrt(1.5 / 7 / 8) = 0.16 x.
        assert names(chosen(gaining(0.04, 0.04)))
        # Of x and seven 0 both are x / 8: what one patient gains alone is chance.
        for gain in (0.1, 0.2, 0.3, 0.4, 1 / 3):
            choice = chosen(gaining(gain))
            assert choice.rules["a"] == ()
            assert "not by more than the standard error" in choice.reasons["a"]
        # Four gain 0.04 and three lose it: mean 0.005, error sqrt((7 x 0.0016 - 0.0002) / 7 / 8).
        gains = gaining(0.04, 0.04, -0.04, 0.04, -0.04, 0.04, -0.04)
        assert (
            chosen(gains)
            .reasons["a"]
            .endswith("by 0.005, not by more than the standard error of 0.014")
        )

    @pytest.mark.parametrize("done", ["low", "filled"])
    def test_fewer_than_a_tenth_of_the_cases_lose_much(self, done):
        def with_losses(count, *, losing, loss):
            gains = [0.2] * (count - losing) + [-loss] * losing
            add = [g if done == "filled" else 0.5 + g for g in gains]
            return [effect(patient, 0.5, **{done: g}) for patient, g in enumerate(add)]

        assert names(chosen(with_losses(11, losing=1, loss=0.06)))
        choice = chosen(with_losses(10, losing=1, loss=0.06))
        assert choice.rules["a"] == ()
        assert choice.reasons["a"].endswith(
            "takes more than 0.05 from 1 of its 10 validation cases"
        )
        assert names(chosen(with_losses(10, losing=1, loss=0.04)))
        assert chosen(with_losses(30, losing=3, loss=0.06)).rules["a"] == ()

    @pytest.mark.parametrize("done", ["low", "filled"])
    def test_a_gain_that_is_no_gain_is_left(self, done):
        def alike(gain):
            gain = gain if done == "filled" else 0.5 + gain
            return [effect(patient, 0.5, **{done: gain}) for patient in range(8)]

        assert names(chosen(alike(0.0012)))
        assert chosen(alike(0.0009)).reasons == {
            "a": "no rule raises its validation score by more than 0.001"
        }

    def test_a_patients_cases_are_averaged_first(self):
        """One patient's twenty cases gain what eight others lose."""
        one = [effect("often", 0.5, low=0.7) for _ in range(20)]
        others = [effect(patient, 0.5, low=0.46) for patient in range(8)]
        assert chosen([*one, *others]).rules["a"] == ()
        gaining = [effect(patient, 0.5, low=0.54) for patient in range(8)]
        harmed = [effect("often", 0.5, low=0.46) for _ in range(20)]
        (kept,) = chosen([*gaining, *harmed]).rules["a"]
        assert kept.score_after == pytest.approx((8 * 0.54 + 0.46) / 9)

    def test_a_stronger_candidate_that_is_refused_leaves_a_milder_one(self):
        """300 mm3 gains most but takes a tenth of the cases; 30 mm3 takes none."""
        cases = [*helped(9, low=0.6, high=0.8), effect(9, 0.5, low=0.5, high=0.0)]
        assert names(chosen(cases)) == ["min_volume_mm3 30"]

    def test_a_stronger_candidate_that_leads_by_chance_leaves_the_milder_one(self):
        """By what one patient gains 300 mm3 is ahead; by what two gain it is more than chance."""
        for ahead, kept in ((1, 30), (2, 300)):
            high = [0.8] * ahead + [0.7] * (8 - ahead)
            cases = [effect(n, 0.5, low=0.7, high=gain, filled=0.1) for n, gain in enumerate(high)]
            choice = chosen(cases)
            assert names(choice) == [f"min_volume_mm3 {kept}", FILL]
            filling = choice.rules["a"][1]  # on top of what is done, not of what leads
            assert filling.score_after - filling.score_before == pytest.approx(0.1)

    def test_filling_is_judged_without_a_removal_that_is_not_done(self):
        """Too little a gain by removal, and filling that would help on top of it alone."""
        cases = [effect(patient, 0.5, low=0.5009, filled=-0.02) for patient in range(8)]
        for one in cases:
            one.scores[1, LOW] = 0.5025
        assert chosen(cases).rules == {"a": ()}

    def test_empty_references_count_for_every_candidate(self):
        """Four false structures that go make the mean, four that were never there belong to it."""
        have = [effect(patient, 0.5) for patient in range(8)]
        false = [effect(f"false {n}", 0.0, there=False, low=1.0) for n in range(4)]
        empty = [effect(f"empty {n}", 1.0, there=False) for n in range(4)]
        (kept,) = chosen([*have, *false, *empty]).rules["a"]
        assert (kept.score_before, kept.score_after) == (0.5, 0.75)
        assert kept.patients == 8

    def test_structures_are_chosen_by_themselves(self):
        cases = [[None, one] for one in helped(8)]
        choice = chosen_rules(cases, structures=("a", "b"), references=[HUGE, HUGE])
        assert [*map(str, choice.rules["b"])] == ["min_volume_mm3 30"]
        assert choice.rules["a"] == ()
        assert choice.reasons == {"a": "0 validation patients have it, at least 8 are needed"}


@pytest.fixture(scope="module")
def simulation():
    """The module bench/postprocessing.py, which is no part of a package."""
    file = ROOT / "bench" / "postprocessing.py"
    spec = importlib.util.spec_from_file_location("postprocessing_bench", file)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SMALL", "DISTANT", "ORGAN_2"])
def test_choices_seldom_harm_and_costly_distant_blobs_are_removed(simulation, name):
    """Not more than 3 % of the draws and not fewer than 60 %, as far as 60 draws can say."""
    home = getattr(simulation, name)
    draws = [
        simulation.drawn(home, home, patients=16, seed=1, number=number) for number in range(60)
    ]
    harmed = sum(draw.harmed for draw in draws)
    assert binomtest(harmed, len(draws), 0.03, alternative="greater").pvalue > 0.01
    if home.distant:
        costly = [draw for draw in draws if draw.costly]
        removed = sum(draw.removes for draw in costly)
        assert len(costly) >= 40
        assert binomtest(removed, len(costly), 0.6, alternative="less").pvalue > 0.01


def test_rules_go_through_json_and_an_ensemble_does_what_all_its_members_do():
    mine = {"a": (rule(MM3, 30.0), rule(FILL)), "b": (rule(LARGEST),)}
    theirs = {"a": (rule(MM3, 10.0),), "b": ()}
    written = json.dumps(asdict(Choice(rules=mine, reasons={"c": "3 validation patients"})))
    assert rules_from_dict(json.loads(written)) == mine
    assert common_rules([mine, theirs]) == {"a": (rule(MM3, 10.0),), "b": ()}
    assert common_rules([mine]) == mine


def test_people_are_told_what_is_done_and_why_nothing_is():
    rules = {"b": (), "a": (rule(MM3, 30.0), rule(FILL)), "c": (), "d": ()}
    choice = Choice(rules=rules, reasons={"b": "why", "c": "another", "d": "why"})
    assert told(choice) == (
        "a: min_volume_mm3 30, score 0.500 to 0.600, 9 validation patients have it; "
        "a: fill_holes, score 0.500 to 0.600, 9 validation patients have it; b, d: why; "
        "c: another"
    )


@pytest.mark.parametrize("content", ['{"rules": {"a": [{"rule": 1}]}}', '{"a": []}', "[]"])
def test_a_damaged_record_is_named(content, tmp_path):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "postprocessing.json").write_text(content)
    with pytest.raises(InputError, match="postprocessing.json is not what a run wrote"):
        read_rules(tmp_path / "run" / "checkpoints" / "best.ckpt")
