"""Whom a network is chosen on, and how many patients it learns from."""

import json
from pathlib import Path

import pytest
from conftest import composed
from hypothesis import given
from hypothesis import strategies as st
from test_splits import (
    FRACTIONS,
    assert_disjoint,
    case,
    cohort,
    cohorts,
    ids,
    patients,
    shuffled,
    sides,
    tagged,
)

from segshift import build
from segshift.announcement import announcement
from segshift.errors import InputError
from segshift.splits import (
    Split,
    by_column,
    from_file,
    kfold,
    leave_site_out,
    limited,
    random,
    selected,
    single_source,
)


def away(whole, seed=0, sites_out=1):
    """A split that leaves the first sites by name out."""
    return leave_site_out(whole, seed=seed, held_out=list(whole.sites[:sites_out]), **FRACTIONS)


def test_source_val_is_the_split_itself():
    split = away(cohort({"dijon": [1] * 6, "oslo": [1] * 6}))
    assert selected(split, rule="source_val", seed=0) is split


def written(split: Split, path: Path) -> str:
    path.write_text(json.dumps({name: sorted(ids(cases)) for name, cases in sides(split).items()}))
    return str(path)


@pytest.mark.parametrize("rule", ["oracle", "leave_one_site_out"])
def test_what_a_rule_has_drawn_is_not_chosen_on_by_another(rule, tmp_path):
    """By a column, so that the oracle's targets lie at training sites."""
    whole = tagged({"dijon": [1] * 9, "oslo": [1] * 9}, vendor=["ge", "siemens", "philips"])
    split = by_column(whole, seed=0, column="vendor", values="ge", **FRACTIONS)
    chosen = selected(split, rule=rule, seed=0)
    path = written(chosen, tmp_path / "split.json")
    (tmp_path / "config.yaml").write_text(f"seed: 0\nselection: {rule}\n")
    read = from_file(whole, path=path, seed=0, val_fraction=0.2)
    assert read == chosen
    for again in ("source_val", "oracle", "leave_one_site_out"):
        with pytest.raises(InputError, match=f"selection={rule} has drawn val of this split bef"):
            selected(read, rule=again, seed=0)


@pytest.mark.parametrize("config", ["selection: source_val", "- a list", "{", "", None])
def test_a_file_of_no_rule_may_be_chosen_from_by_each(config, tmp_path):
    whole = cohort({"dijon": [1] * 6, "oslo": [1] * 6})
    path = written(away(whole), tmp_path / "split.json")
    if config is not None:
        (tmp_path / "config.yaml").write_text(config)
    read = from_file(whole, path=path, seed=0, val_fraction=0.2)
    assert selected(read, rule="source_val", seed=0) == away(whole)


def test_a_file_alone_does_not_choose_at_a_new_site_either(tmp_path):
    whole = cohort({"dijon": [1] * 6, "lima": [1] * 6, "oslo": [1] * 6})
    path = written(selected(away(whole), rule="oracle", seed=0), tmp_path / "mine.json")
    read = from_file(whole, path=path, seed=0, val_fraction=0.2)
    with pytest.raises(
        InputError, match=r"judged as a new one, but val has 2 of \['dijon'\] alone.*=oracle"
    ):
        selected(read, rule="source_val", seed=0)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_source_val_is_content_with_sites_too_small_to_be_on_every_side(size):
    whole = cohort({**{f"s{n:02}": [1] * size for n in range(30)}, "a": [1] * 4})
    for split in (away(whole), kfold(whole, seed=0, folds=4, fold=1, val_fraction=0.2)):
        assert selected(split, rule="source_val", seed=0) is split


def test_source_val_takes_a_patient_of_two_sites_of_which_one_is_learned_from():
    val = (case("1", "p", "dijon"), case("2", "p", "oslo"))
    tests = {"in_domain": (case("3", "t", "dijon"),), "site-oslo": (case("5", "u", "oslo"),)}
    split = Split((case("4", "q", "dijon"),), val, tests)
    assert selected(split, rule="source_val", seed=0) is split
    with pytest.raises(InputError, match=r"has 1 of \['oslo'\] alone"):
        selected(Split(split.train, val[1:], tests), rule="source_val", seed=0)


@given(cohorts, st.integers(0, 5))
def test_source_val_is_content_with_every_rule(whole, seed):
    for split in (
        away(whole, seed),
        random(whole, seed=seed, **FRACTIONS),
        kfold(whole, seed=seed, folds=2, fold=1, val_fraction=0.2),
    ):
        assert selected(split, rule="source_val", seed=0) is split


@given(cohorts, st.integers(0, 5))
def test_the_oracle_takes_a_quarter_of_every_target_out_of_all_sets(whole, seed):
    split = away(whole, sites_out=len(whole.sites) - 1)
    oracle = selected(split, rule="oracle", seed=seed)
    assert_disjoint(oracle)
    assert oracle.train == split.train
    assert oracle.tests["in_domain"] == split.tests["in_domain"]
    for name in split.tests.keys() - {"in_domain"}:
        before, after = patients(split.tests[name]), patients(oracle.tests[name])
        taken = before - after
        assert after < before
        assert len(taken) == max(1, round(len(before) / 4))
        assert taken <= patients(oracle.val)
        assert ids(oracle.tests[name]) == {c.id for c in split.tests[name] if c.patient in after}
    everyone = set().union(*(patients(cases) for cases in split.tests.values()))
    assert patients(oracle.val) <= everyone


@given(cohorts, st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_choice_does_not_depend_on_the_order(whole, seed, shuffle):
    mixed = shuffled(whole, shuffle)
    for rule, sites_out in (("oracle", 1), ("leave_one_site_out", 0)):
        one, other = (
            away(c, sites_out=1) if sites_out else random(c, seed=0, **FRACTIONS)
            for c in (whole, mixed)
        )
        assert selected(one, rule=rule, seed=seed) == selected(other, rule=rule, seed=seed)


def test_a_target_stays_chosen_alike_beside_another_one():
    sizes = {"dijon": [1] * 6, "lima": [1] * 8, "oslo": [2] * 9}
    few, many = (
        selected(
            leave_site_out(cohort(sizes), seed=0, held_out=out, **FRACTIONS), rule="oracle", seed=3
        )
        for out in (["oslo"], ["oslo", "lima"])
    )
    assert few.tests["site-oslo"] == many.tests["site-oslo"]


@given(cohorts, st.integers(0, 5), st.data())
def test_one_training_site_chooses_and_the_others_learn(whole, seed, data):
    split = random(whole, seed=0, **FRACTIONS)
    site = data.draw(st.none() | st.sampled_from(whole.sites))
    chosen = selected(split, rule="leave_one_site_out", seed=seed, site=site)
    assert_disjoint(chosen)
    (judge,) = {c.site for c in chosen.val}
    assert site in (None, judge)
    assert ids(chosen.val) == {c.id for c in (*split.train, *split.val) if c.site == judge}
    assert ids(chosen.train) == {c.id for c in split.train if c.site != judge}
    home = split.tests["in_domain"]
    assert chosen.tests == {"in_domain": tuple(c for c in home if c.site != judge)}


def test_the_site_that_chooses_is_in_domain_no_more_and_the_targets_stay():
    whole = cohort({"a": [1] * 12, "b": [1] * 12, "away": [1] * 4})
    split = leave_site_out(whole, seed=0, held_out="away", **FRACTIONS)
    chosen = selected(split, rule="leave_one_site_out", seed=0, site="b")
    assert {c.site for c in split.tests["in_domain"]} == {"a", "b"}
    assert {c.site for c in chosen.tests["in_domain"]} == {"a"}
    assert chosen.tests["site-away"] == split.tests["site-away"]


def test_nobody_left_in_domain_is_an_error():
    split = Split(
        (case("1", "p", "a"), case("2", "q", "b")),
        (case("3", "r", "a"),),
        {"in_domain": (case("4", "s", "b"),)},
    )
    with pytest.raises(InputError, match=r"chooses on b, and all 1 case.*selection_site of \['a',"):
        selected(split, rule="leave_one_site_out", seed=0, site="b")
    assert selected(split, rule="leave_one_site_out", seed=0, site="a").tests == split.tests


def test_who_is_in_domain_does_not_depend_on_how_many_are_learned_from():
    whole = cohort({"a": [1] * 12, "b": [1] * 12})
    split = random(whole, seed=0, **FRACTIONS)
    one = limited(split, patients=1, seed=0)
    assert len({c.site for c in one.train}) == 1
    assert one.tests == split.tests


def test_every_site_is_drawn_by_some_seed():
    split = random(cohort({name: [1] * 5 for name in ("a", "b", "c")}), seed=0, **FRACTIONS)
    drawn = {
        selected(split, rule="leave_one_site_out", seed=seed).val[0].site for seed in range(20)
    }
    assert drawn == {"a", "b", "c"}


def test_a_patient_of_two_sites_leaves_training_with_the_site_that_chooses():
    train = (case("1", "p", "dijon"), case("2", "p", "oslo"), case("3", "q", "oslo"))
    split = Split(train, (case("4", "v", "dijon"),), {"in_domain": (case("5", "t", "oslo"),)})
    chosen = selected(split, rule="leave_one_site_out", seed=0, site="dijon")
    assert ids(chosen.val) == {"1", "4"}
    assert ids(chosen.train) == {"3"}
    assert chosen.tests == split.tests


TWO = {"dijon": [1] * 6, "oslo": [1] * 6}


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        (away(cohort(TWO)), {"rule": "best"}, "selection=best: known are source_val, oracle, leav"),
        (away(cohort(TWO)), {"rule": "oracle", "site": "oslo"}, "selection_site=oslo goes with"),
        (random(cohort(TWO), seed=0, **FRACTIONS), {"rule": "oracle"}, "this split has none"),
        (
            away(cohort({"dijon": [3], "oslo": [1] * 6})), {"rule": "oracle"},
            "needs 2 patients in site-dijon.*'dijon-0' alone",
        ),
        (
            away(cohort(TWO)), {"rule": "leave_one_site_out"},
            r"2 or more training sites, which are \['oslo'\]",
        ),
        (
            random(cohort(TWO), seed=0, **FRACTIONS),
            {"rule": "leave_one_site_out", "site": "paris"}, r"selection_site=paris.*'dijon', 'os",
        ),
        (
            Split(
                (case("1", "a", "s"),), (case("2", "b", "s"),),
                {"in_domain": (case("3", "c", "s"),), "labels-x": (case("3", "c", "s"),)},
            ),
            {"rule": "oracle"}, "in_domain and labels-x judge the same patients",
        ),
        (
            Split(
                (case("1", "a", "s"), case("2", "b", "t")), (case("3", "c", "s"),),
                {"in_domain": (case("4", "d", "s"),), "labels-x": (case("4", "d", "s"),)},
            ),
            {"rule": "leave_one_site_out"}, "in_domain and labels-x judge the same patients",
        ),
    ],
)  # fmt: skip
def test_wrong_choices(split, options, message):
    with pytest.raises(InputError, match=message):
        selected(split, seed=0, **options)


@given(cohorts, st.integers(0, 5))
def test_fewer_patients_are_among_more_and_nothing_else_changes(whole, seed):
    split = random(whole, seed=seed, **FRACTIONS)
    there = len(patients(split.train))
    before: set[str] = set()
    for count in range(1, there + 1):
        fewer = limited(split, patients=count, seed=seed)
        assert_disjoint(fewer)
        learned = patients(fewer.train)
        assert len(learned) == count
        assert before < learned
        assert fewer.train == tuple(c for c in split.train if c.patient in learned)
        assert (fewer.val, fewer.tests) == (split.val, split.tests)
        before = learned
    assert fewer == split


@given(cohorts, st.integers(0, 5))
def test_fewer_patients_have_the_sites_in_their_shares(whole, seed):
    """Seat by seat to the site with the largest size / (2 seats + 1): Webster's own procedure."""
    split = random(whole, seed=seed, **FRACTIONS)
    sizes = {site: len(patients(c for c in split.train if c.site == site)) for site in whole.sites}
    seats = dict.fromkeys(sorted(sizes), 0)
    for count in range(1, sum(sizes.values()) + 1):
        seats[max(seats, key=lambda site: sizes[site] / (2 * seats[site] + 1))] += 1
        train = limited(split, patients=count, seed=seed).train
        assert {s: len(patients(c for c in train if c.site == s)) for s in seats} == seats


@pytest.mark.parametrize("count", [0, 5, 2.0, True, "2"])
def test_wrong_numbers_of_patients(count):
    split = kfold(cohort({"dijon": [2] * 9}), seed=0, folds=2, fold=0, val_fraction=0.2)
    assert len(patients(split.train)) == 3
    with pytest.raises(InputError, match=f"train_patients={count}: a whole number from 1 to 3"):
        limited(split, patients=count, seed=0)


class TestOptions:
    """The rules as top-level options of train.py."""

    def parts(self, phantom, *overrides):
        return build.experiment(composed(*phantom, *overrides))

    def test_they_are_applied_in_turn_and_told(self, phantom):
        plain = self.parts(phantom, "split=random")
        parts = self.parts(
            phantom, "split=random", "selection=leave_one_site_out", "selection_site=beta",
            "train_patients=3",
        )  # fmt: skip
        assert {c.site for c in parts.split.val} == {"beta"}
        assert len(parts.split.train) == 3
        home = plain.split.tests["in_domain"]
        assert parts.split.tests == {"in_domain": tuple(c for c in home if c.site != "beta")}
        told = announcement(parts)
        assert "selection leave_one_site_out on beta" in told
        unused = len(parts.cohort.cases) - sum(
            map(len, (parts.split.train, parts.split.val, *parts.split.tests.values()))
        )
        assert unused > 0
        assert f"; {unused} in no set" in told
        assert "in no set" not in announcement(plain)

    def test_the_split_of_an_oracles_run_is_not_source_val(self, phantom, tmp_path):
        split = self.parts(phantom, "split=leave_site_out", "selection=oracle").split
        path = tmp_path / "split.json"
        path.write_text(json.dumps({n: [c.id for c in cases] for n, cases in sides(split).items()}))
        with pytest.raises(InputError, match="val has 3 of .'beta', 'delta', 'gamma'. alone"):
            self.parts(phantom, "split=from_file", f"split.path={path}")

    def test_the_splits_seed_draws_not_the_runs(self, phantom):
        options = ("split=leave_site_out", "selection=oracle")
        one, other, third = (
            self.parts(phantom, *options, f"seed={seed}", f"split.seed={split_seed}").split
            for seed, split_seed in ((0, 0), (1, 0), (0, 1))
        )
        assert one == other
        assert one != third

    def test_the_default_is_source_val_with_all_patients(self, phantom):
        config = composed(*phantom)
        assert config.selection == "source_val"
        assert config.train_patients is None

    def test_a_source_without_enough_patients(self, phantom):
        with pytest.raises(InputError, match="train_patients=99: a whole number from 1 to"):
            self.parts(phantom, "train_patients=99")


def test_a_single_source_has_no_site_to_leave_out():
    split = single_source(cohort(TWO), seed=0, source="oslo", folds=3, fold=0, val_fraction=0.2)
    with pytest.raises(InputError, match="2 or more training sites"):
        selected(split, rule="leave_one_site_out", seed=0)
