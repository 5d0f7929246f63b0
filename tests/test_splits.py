"""Splits keep patients apart, whatever the cohort looks like."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segshift.cohort import Case, Cohort
from segshift.errors import InputError
from segshift.shifts import Identity
from segshift.splits import Split, evaluation_sets, kfold, leave_site_out, random


def case(name: str, patient: str, site: str) -> Case:
    return Case(name, patient, site, (Path(f"{name}.nii.gz"),), Path("l.nii.gz"), (1,))


def cohort(sizes: dict[str, list[int]]) -> Cohort:
    """Per site a list of patients, each with that many cases."""
    return Cohort(
        "c",
        ("image",),
        ("s",),
        tuple(
            case(f"{site}-{p}-{c}", f"{site}-{p}", site)
            for site, patients in sizes.items()
            for p, cases in enumerate(patients)
            for c in range(cases)
        ),
    )


cohorts = st.dictionaries(
    st.sampled_from(["dijon", "toronto", "oslo", "lima"]),
    st.lists(st.integers(1, 3), min_size=3, max_size=9),
    min_size=2,
    max_size=4,
).map(cohort)


def sides(split: Split) -> dict[str, tuple[Case, ...]]:
    return {"train": split.train, "val": split.val, **split.tests}


def assert_sound(split: Split, whole: Cohort) -> None:
    counted = Counter(c.id for cases in sides(split).values() for c in cases)
    assert counted == Counter(c.id for c in whole.cases)  # every case once
    patients = [{c.patient for c in cases} for cases in sides(split).values()]
    assert all(patients)
    assert sum(map(len, patients)) == len(set().union(*patients))


@given(cohorts, st.integers(0, 5))
def test_random_is_sound_and_every_site_is_on_every_side(whole, seed):
    split = random(whole, seed=seed, val_fraction=0.2, test_fraction=0.3)
    assert_sound(split, whole)
    for cases in sides(split).values():
        assert {c.site for c in cases} == set(whole.sites)


@given(cohorts, st.integers(2, 5), st.integers(0, 3))
def test_kfold_tests_every_patient_once(whole, folds, seed):
    splits = [kfold(whole, seed=seed, folds=folds, fold=f, val_fraction=0.2) for f in range(folds)]
    for split in splits:
        assert_sound(split, whole)
    tested = Counter(c.id for split in splits for c in split.tests["in_domain"])
    assert tested == Counter(c.id for c in whole.cases)
    sizes = [len({c.patient for c in split.tests["in_domain"]}) for split in splits]
    assert max(sizes) - min(sizes) <= 1


@given(cohorts, st.data())
def test_a_held_out_site_is_seen_by_nobody(whole, data):
    held_out = data.draw(
        st.lists(
            st.sampled_from(whole.sites), min_size=1, max_size=len(whole.sites) - 1, unique=True
        )
    )
    split = leave_site_out(whole, seed=0, held_out=held_out, val_fraction=0.2, test_fraction=0.3)
    assert_sound(split, whole)
    for site in held_out:
        expected = {c.id for c in whole.cases if c.site == site}
        assert {c.id for c in split.tests[f"site-{site}"]} == expected
    home = [c for name in ("train", "val") for c in sides(split)[name]]
    assert not {c.site for c in (*home, *split.tests["in_domain"])} & set(held_out)


@given(cohorts, st.randoms(use_true_random=False))
def test_order_does_not_matter(whole, shuffle):
    mixed = list(whole.cases)
    shuffle.shuffle(mixed)
    options = {"seed": 1, "val_fraction": 0.2, "test_fraction": 0.3}
    shuffled = Cohort(whole.name, whole.channels, whole.structures, tuple(mixed))
    assert random(whole, **options) == random(shuffled, **options)


def test_the_seed_matters():
    whole = cohort({"dijon": [1] * 20})
    options = {"val_fraction": 0.2, "test_fraction": 0.3}
    assert random(whole, seed=0, **options) != random(whole, seed=1, **options)


def test_a_site_may_be_given_as_a_word():
    whole = cohort({"dijon": [1] * 5, "oslo": [1] * 5})
    options = {"seed": 0, "val_fraction": 0.2, "test_fraction": 0.2}
    assert leave_site_out(whole, held_out="oslo", **options) == leave_site_out(
        whole, held_out=["oslo"], **options
    )


@pytest.mark.parametrize(
    ("held_out", "message"),
    [
        ("paris", r"unknown site\(s\) \['paris'\]; this cohort has \['dijon', 'oslo'\]"),
        ([], "names no site"),
        (["dijon", "oslo"], "leaves no site to train on"),
    ],
)
def test_wrong_sites_are_named(held_out, message):
    whole = cohort({"dijon": [1] * 5, "oslo": [1] * 5})
    with pytest.raises(InputError, match=message):
        leave_site_out(whole, seed=0, held_out=held_out, val_fraction=0.2, test_fraction=0.2)


def test_a_patient_at_two_sites_cannot_be_left_out():
    whole = cohort({"dijon": [1] * 5, "oslo": [1] * 5})
    moved = Cohort("c", ("image",), ("s",), (*whole.cases, case("again", "dijon-0", "oslo")))
    with pytest.raises(InputError, match=r"\['dijon-0'\] are both in the training sites and in"):
        leave_site_out(moved, seed=0, held_out="oslo", val_fraction=0.2, test_fraction=0.2)


@pytest.mark.parametrize(
    ("train", "val", "tests", "message"),
    [
        ("", "b", {"t": "c"}, "'train' empty"),
        ("a", "", {"t": "c"}, "'val' empty"),
        ("a", "b", {"t": ""}, "'t' empty"),
        ("a", "b", {}, "no evaluation set"),
        ("a", "a", {"t": "c"}, r"\['a'\] are both in train and in val"),
        ("a", "b", {"t": "a"}, r"\['a'\] are both in train and in test"),
        ("a", "b", {"t": "cb"}, r"\['b'\] are both in val and in test"),
    ],
)
def test_a_split_refuses_leaks_and_empty_sets(train, val, tests, message):
    def cases(letters: str) -> tuple[Case, ...]:
        return tuple(case(f"{letter}1", letter, "dijon") for letter in letters)

    with pytest.raises(InputError, match=message):
        Split(cases(train), cases(val), {name: cases(t) for name, t in tests.items()})


@pytest.mark.parametrize("options", [{"folds": 1, "fold": 0}, {"folds": 3, "fold": 3}])
def test_wrong_folds(options):
    with pytest.raises(InputError, match="numbered 0 to folds - 1"):
        kfold(cohort({"dijon": [1] * 5}), seed=0, val_fraction=0.2, **options)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 7])
def test_wrong_fractions(fraction):
    with pytest.raises(InputError, match="between 0 and 1"):
        random(cohort({"dijon": [1] * 5}), seed=0, val_fraction=0.2, test_fraction=fraction)


def test_too_few_patients_for_three_sides():
    with pytest.raises(InputError, match="empty"):
        random(cohort({"dijon": [4]}), seed=0, val_fraction=0.2, test_fraction=0.2)


def test_evaluation_sets_are_named_after_their_shift():
    tests = {"in_domain": (case("a", "a", "s"),), "site-oslo": (case("b", "b", "s"),)}
    noise = Identity(name="noise", severity=3)
    names = [s.name for s in evaluation_sets(tests, [Identity(), noise])]
    assert names == ["in_domain", "site-oslo", "in_domain+noise3", "site-oslo+noise3"]
