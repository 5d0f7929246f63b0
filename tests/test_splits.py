"""Splits keep patients apart, whatever the cohort looks like."""

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT, SPLIT_FILE, composed
from hypothesis import given
from hypothesis import strategies as st

from segshift import build
from segshift.cohort import Annotation, Case, Cohort
from segshift.errors import InputError
from segshift.shifts import Identity
from segshift.splits import (
    Split,
    by_column,
    evaluation_sets,
    from_file,
    kfold,
    leave_site_out,
    random,
    single_source,
)

FRACTIONS = {"val_fraction": 0.2, "test_fraction": 0.3}


def case(name: str, patient: str, site: str) -> Case:
    return Case(name, patient, site, (Path(f"{name}.nii.gz"),), Annotation(Path("l.nii.gz"), (1,)))


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


def ids(cases) -> set[str]:
    return {c.id for c in cases}


def patients(cases) -> set[str]:
    return {c.patient for c in cases}


def shuffled(whole: Cohort, shuffle) -> Cohort:
    mixed = list(whole.cases)
    shuffle.shuffle(mixed)
    return replace(whole, cases=tuple(mixed))


def assert_disjoint(split: Split) -> None:
    """No patient on two of train, validation and all tests together."""
    groups = [split.train, split.val, [c for cases in split.tests.values() for c in cases]]
    found = [patients(cases) for cases in groups]
    assert all(found)
    assert sum(map(len, found)) == len(set().union(*found))


def assert_sound(split: Split, whole: Cohort) -> None:
    counted = Counter(c.id for cases in sides(split).values() for c in cases)
    assert counted == Counter(c.id for c in whole.cases)  # every case once
    found = [patients(cases) for cases in sides(split).values()]
    assert all(found)
    assert sum(map(len, found)) == len(set().union(*found))


def by_site(cases) -> Counter[str]:
    """How many patients of each site."""
    return Counter(dict(sorted({(c.patient, c.site) for c in cases})).values())


def assert_in_proportion(taken: Counter[str], there: Counter[str]) -> None:
    """Of each site its share of all that are taken, but for less than one patient."""
    share = taken.total() / there.total()
    assert all(abs(taken[site] - share * size) < 1 for site, size in there.items())


@given(cohorts, st.integers(0, 5))
def test_random_is_sound_and_takes_of_sites_in_proportion(whole, seed):
    split = random(whole, seed=seed, val_fraction=0.2, test_fraction=0.3)
    assert_sound(split, whole)
    there, test, val = (by_site(x) for x in (whole.cases, split.tests["in_domain"], split.val))
    assert test.total() == round(0.3 * there.total())
    assert val.total() == round(0.2 * there.total())
    assert_in_proportion(test, there)
    assert by_site(split.train).keys() == there.keys()


@pytest.mark.parametrize(("val", "test"), [(0.05, 0.9), (0.3, 0.6), (0.8, 0.1), (0.01, 0.01)])
def test_fractions_are_of_all_patients(val, test):
    whole = cohort({"dijon": [1] * 40, "oslo": [2] * 60})
    split = random(whole, seed=0, val_fraction=val, test_fraction=test)
    found = by_site(split.tests["in_domain"]), by_site(split.val)
    assert [sizes.total() for sizes in found] == [round(100 * test), round(100 * val)]
    for sizes in found:
        assert_in_proportion(sizes, Counter(dijon=40, oslo=60))


@pytest.mark.parametrize(
    ("size", "train", "val", "test"),
    [(1, 18, 4, 8), (2, 36, 9, 15), (3, 54, 14, 22), (4, 72, 18, 30)],
)
def test_many_small_sites_give_the_fractions(size, train, val, test):
    sites = {f"s{n:02}": [1] * size for n in range(30)}
    fractions = {"val_fraction": 0.15, "test_fraction": 0.25}
    home = random(cohort(sites), seed=0, **fractions)
    away = cohort({**sites, "away": [1] * 5})
    for split in (
        home,
        leave_site_out(away, seed=0, held_out="away", **fractions),
        by_column(away, seed=0, column="site", values="away", **fractions),
    ):
        assert (split.train, split.val, split.tests["in_domain"]) == (
            home.train, home.val, home.tests["in_domain"],
        )  # fmt: skip
    assert [len(home.train), len(home.val), len(home.tests["in_domain"])] == [train, val, test]
    assert len(by_site(home.train)) == (30 if size > 1 else 18)  # each site is learned from
    first = by_site(random(cohort(sites), seed=1, **fractions).tests["in_domain"])
    assert size == 4 or first != by_site(home.tests["in_domain"])  # which sites is drawn


@pytest.mark.parametrize("size", [1, 2, 3])
def test_folds_of_many_small_sites_leave_patients_to_choose_on(size):
    whole = cohort({f"s{n:02}": [1] * size for n in range(30)})
    for fold in range(4):
        split = kfold(whole, seed=0, folds=4, fold=fold, val_fraction=0.1)
        outside = 30 * size - len(split.tests["in_domain"])
        assert outside == pytest.approx(0.75 * 30 * size, abs=1)
        assert len(split.val) == round(0.1 * outside)


def test_a_lone_patient_is_learned_from_while_others_have_enough():
    whole = cohort({"big": [1] * 40, **{f"s{n}": [1] for n in range(10)}})
    split = random(whole, seed=0, val_fraction=0.15, test_fraction=0.25)
    assert [len(split.train), len(split.val), len(split.tests["in_domain"])] == [30, 8, 12]
    assert len(by_site(split.train)) == 11


def test_every_site_has_an_order_of_its_own():
    whole = cohort({f"s{n}": [1] * 8 for n in range(20)})
    held = random(whole, seed=0, val_fraction=0.25, test_fraction=0.25).tests["in_domain"]
    places = [
        tuple(c.patient.split("-")[1] for c in held if c.site == site) for site in whole.sites
    ]
    assert {len(numbers) for numbers in places} == {2}
    assert len(set(places)) > 10  # of 28 pairs


@given(cohorts, st.integers(2, 5), st.integers(0, 3))
def test_kfold_tests_every_patient_once(whole, folds, seed):
    splits = [kfold(whole, seed=seed, folds=folds, fold=f, val_fraction=0.2) for f in range(folds)]
    for split in splits:
        assert_sound(split, whole)
    tested = Counter(c.id for split in splits for c in split.tests["in_domain"])
    assert tested == Counter(c.id for c in whole.cases)
    sizes = [by_site(split.tests["in_domain"]) for split in splits]
    assert max(s.total() for s in sizes) - min(s.total() for s in sizes) <= 1
    for site in whole.sites:
        assert max(s[site] for s in sizes) - min(s[site] for s in sizes) <= 1


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
    mixed = shuffled(whole, shuffle)
    for rule, options in (
        (random, FRACTIONS),
        (kfold, {"folds": 3, "fold": 1, "val_fraction": 0.2}),
        (leave_site_out, {"held_out": whole.sites[0], **FRACTIONS}),
        (by_column, {"column": "site", "values": whole.sites[0], **FRACTIONS}),
    ):
        assert rule(whole, seed=1, **options) == rule(mixed, seed=1, **options)


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
        (["oslo", "oslo"], r"split.held_out=\['oslo', 'oslo'\] names a site twice"),
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


@pytest.mark.parametrize(
    "name",
    ["gap", "worst_site", "shift", "worst_shift", "train", "val", "", "..", ".", "a/b", "a\\b"],
)
def test_a_set_is_not_called_what_something_else_is(name):
    sides = ((case(letter, letter, "dijon"),) for letter in "abc")
    train, val, test = sides
    with pytest.raises(InputError, match=re.escape(repr(name))):
        Split(train, val, {"in_domain": test, name: test})


@pytest.mark.parametrize("options", [{"folds": 1, "fold": 0}, {"folds": 3, "fold": 3}])
def test_wrong_folds(options):
    with pytest.raises(InputError, match="numbered 0 to folds - 1"):
        kfold(cohort({"dijon": [1] * 5}), seed=0, val_fraction=0.2, **options)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 7])
def test_wrong_fractions(fraction):
    with pytest.raises(InputError, match="between 0 and 1"):
        random(cohort({"dijon": [1] * 5}), seed=0, val_fraction=0.2, test_fraction=fraction)


def test_fractions_that_leave_nobody():
    with pytest.raises(
        InputError, match=r"val_fraction=0.5 and split.test_fraction=0.5 .* below 1"
    ):
        random(cohort({"dijon": [1] * 5}), seed=0, val_fraction=0.5, test_fraction=0.5)


def test_too_few_patients_for_three_sides():
    with pytest.raises(InputError, match="empty"):
        random(cohort({"dijon": [4]}), seed=0, val_fraction=0.2, test_fraction=0.2)


def test_evaluation_sets_are_told_apart_by_name_and_shift_whatever_they_are_called():
    tests = {"in_domain": (case("a", "a", "s"),), "site-A+B 3": (case("b", "b", "s"),)}
    noise = Identity(name="noise", severity=3)
    keys = [s.key for s in evaluation_sets(tests, [noise])]
    assert keys == [
        ("in_domain", "", 0),
        ("site-A+B 3", "", 0),
        ("in_domain", "noise", 3),
        ("site-A+B 3", "noise", 3),
    ]


@given(cohorts, st.integers(2, 3), st.integers(0, 3), st.data())
def test_a_single_source_judges_its_patients_once_and_all_others_always(whole, folds, seed, data):
    source = data.draw(st.sampled_from(whole.sites))
    splits = [
        single_source(whole, seed=seed, source=source, folds=folds, fold=f, val_fraction=0.2)
        for f in range(folds)
        if len(patients(c for c in whole.cases if c.site == source)) >= 2 * folds
    ]
    for split in splits:
        assert_sound(split, whole)
        assert {c.site for c in (*split.train, *split.val)} == {source}
        for site in set(whole.sites) - {source}:
            assert ids(split.tests[f"site-{site}"]) == {c.id for c in whole.cases if c.site == site}
    own = Counter(c.id for split in splits for c in split.tests["in_domain"])
    if splits:
        assert own == Counter(c.id for c in whole.cases if c.site == source)


def test_a_single_source_is_split_alike_whatever_other_sites_there_are():
    options = {"seed": 2, "source": "dijon", "folds": 3, "fold": 1, "val_fraction": 0.2}
    many = single_source(cohort({"dijon": [2] * 9, "oslo": [1] * 5, "a": [3]}), **options)
    alone = single_source(cohort({"dijon": [2] * 9}), **options)
    assert set(alone.tests) == {"in_domain"}
    assert set(many.tests) == {"in_domain", "site-oslo", "site-a"}
    assert (many.train, many.val) == (alone.train, alone.val)
    assert many.tests["in_domain"] == alone.tests["in_domain"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "paris"}, r"split.source=paris: the sites are \['dijon', 'oslo'\]"),
        ({"source": "oslo", "folds": 6}, r"split.folds=6, but c has 5 patient\(s\) at \['oslo'\]"),
        ({"source": "oslo", "fold": 4}, "split.fold=4 of split.folds=4"),
        ({"source": "oslo", "val_fraction": 2}, "split.val_fraction=2: .* between 0 and 1"),
    ],
)
def test_wrong_sources(options, message):
    whole = cohort({"dijon": [1] * 5, "oslo": [1] * 5})
    options = {"folds": 4, "fold": 0, "val_fraction": 0.2} | options
    with pytest.raises(InputError, match=message):
        single_source(whole, seed=0, **options)


def test_a_patient_at_the_source_and_elsewhere_is_refused():
    whole = cohort({"dijon": [1] * 5, "oslo": [1] * 5})
    moved = replace(whole, cases=(*whole.cases, case("again", "dijon-0", "oslo")))
    for source in whole.sites:
        with pytest.raises(InputError, match=r"\['dijon-0'\] are both in the training sites and"):
            single_source(moved, seed=0, source=source, folds=2, fold=0, val_fraction=0.2)


VENDORS = ("ge", "siemens", "a/b+c")


def tagged(sizes: dict[str, list[int]], **cells: list[str]) -> Cohort:
    """A cohort whose patients have the cells of these columns in turn."""
    whole = cohort(sizes)
    place = {p: i for i, p in enumerate(dict.fromkeys(c.patient for c in whole.cases))}

    def tags(case: Case) -> dict[str, str]:
        return {name: texts[place[case.patient] % len(texts)] for name, texts in cells.items()}

    return replace(whole, cases=tuple(replace(c, tags=tags(c)) for c in whole.cases))


@given(st.lists(st.integers(1, 3), min_size=9, max_size=20), st.integers(0, 3), st.data())
def test_values_of_a_column_are_held_out(sizes, seed, data):
    whole = tagged({"dijon": sizes, "oslo": [1] * 9}, vendor=list(VENDORS))
    held = data.draw(st.lists(st.sampled_from(VENDORS), min_size=1, max_size=2, unique=True))
    split = by_column(whole, seed=seed, column="vendor", values=held, **FRACTIONS)
    assert_sound(split, whole)
    names = {"ge": "vendor-ge", "siemens": "vendor-siemens", "a/b+c": "vendor-a_b+c"}
    assert set(split.tests) == {"in_domain", *(names[vendor] for vendor in held)}
    for vendor in held:
        expected = {c.id for c in whole.cases if c.tags["vendor"] == vendor}
        assert ids(split.tests[names[vendor]]) == expected
    assert {c.site for c in split.tests["in_domain"]} == {"dijon", "oslo"}  # stratified


def test_site_is_a_column_too():
    whole = cohort({"dijon": [1] * 6, "oslo": [2] * 6})
    by_name = by_column(whole, seed=0, column="site", values="oslo", **FRACTIONS)
    assert by_name == leave_site_out(whole, seed=0, held_out="oslo", **FRACTIONS)


@pytest.mark.parametrize(
    ("value", "held"), [(3, {"3", "3.0"}), (3.0, {"3", "3.0"}), ("3.0", {"3.0"}), (1.5, {"1.5"})]
)
def test_a_number_means_all_that_is_written_for_it(value, held):
    whole = tagged({"dijon": [1] * 12}, tesla=["3", "3.0", "1.5", "7"])
    split = by_column(whole, seed=0, column="tesla", values=value, **FRACTIONS)
    (name,) = split.tests.keys() - {"in_domain"}
    assert name == f"tesla-{min(held)}"
    assert {c.tags["tesla"] for c in split.tests[name]} == held


def test_true_and_false_are_words():
    whole = tagged({"dijon": [1] * 8}, contrast=["True", "false"])
    split = by_column(whole, seed=0, column="contrast", values=True, **FRACTIONS)
    assert {c.tags["contrast"] for c in split.tests["contrast-True"]} == {"True"}


@pytest.mark.parametrize(
    ("low", "high", "name", "held"),
    [
        (500, 2000, "tr_ms-500..2000", {"500", "2000", "1e3"}),
        (None, 500, "tr_ms-..500", {"500", "30"}),
        (1000.0, None, "tr_ms-1000.0..", {"1e3", "2000"}),
    ],
)
def test_a_range_with_both_ends(low, high, name, held):
    whole = tagged({"dijon": [1] * 20}, tr_ms=["500", "2000", "1e3", "30"])
    split = by_column(whole, seed=0, column="tr_ms", low=low, high=high, **FRACTIONS)
    assert_sound(split, whole)
    assert set(split.tests) == {"in_domain", name}
    assert {c.tags["tr_ms"] for c in split.tests[name]} == held


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "maker", "values": "x"}, r"split.column=maker: the columns of c are \['gap', "),
        ({"column": "vendor"}, r"takes split.values.*'vendor' has \['ge', 'siemens'\]"),
        ({"column": "vendor", "values": "ge", "low": 1}, "takes split.values"),
        ({"column": "vendor", "values": ["ge", "esaote"]}, r"a case has \['esaote'\].*'siemens'\]"),
        ({"column": "vendor", "values": []}, r"split.values=\[\].*\['ge', 'siemens'\]"),
        ({"column": "vendor", "values": ["ge", "siemens"]}, "no value of 'vendor' is left"),
        ({"column": "vendor", "values": ["ge", "ge"]}, "two of them are the same set"),
        ({"column": "vendor", "low": 3}, r"no number in 10 case\(s\), such as 'dijon-0-0' with"),
        ({"column": "tr_ms", "low": 3, "high": 4}, "not a case lies there; 'tr_ms' goes from 5 to"),
        ({"column": "tr_ms", "low": "3"}, "split.low='3': a number, or null"),
        ({"column": "tr_ms", "low": 0}, "no value of 'tr_ms' is left"),
        ({"column": "gap", "values": "1"}, r"split.column=gap is empty in 5 case\(s\), \['dijon-1"),
        ({"column": "odd", "low": 0}, "no number in 5 case.* with 'inf'"),
    ],
)
def test_wrong_columns(options, message):
    whole = tagged(
        {"dijon": [1] * 10}, vendor=["ge", "siemens"], tr_ms=["5", "9"], gap=["1", " "],
        odd=["inf", "1"],
    )  # fmt: skip
    with pytest.raises(InputError, match=message):
        by_column(whole, seed=0, **options, **FRACTIONS)


def test_values_that_differ_in_marks_only_are_not_one_set():
    whole = tagged({"dijon": [1] * 9}, vendor=["a/b", "a\\b", "c"])
    with pytest.raises(InputError, match="two of them are the same set"):
        by_column(whole, seed=0, column="vendor", values=["a/b", "a\\b"], **FRACTIONS)


def test_a_patient_with_both_values_is_refused():
    whole = tagged({"dijon": [2] * 9}, vendor=["ge", "siemens"])
    first = replace(whole.cases[0], tags={"vendor": "siemens"})
    moved = replace(whole, cases=(first, *whole.cases[1:]))
    with pytest.raises(InputError, match=r"\['dijon-0'\] are both in the other values of 'vendor'"):
        by_column(moved, seed=0, column="vendor", values="siemens", **FRACTIONS)


class TestFromFile:
    def read(self, tmp_path, whole, content, **options):
        path = tmp_path / "split.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return from_file(whole, path=str(path), **{"seed": 0, "val_fraction": 0.2} | options)

    @given(cohorts, st.integers(0, 3))
    def test_a_runs_own_file_gives_its_split_again(self, tmp_path_factory, whole, seed):
        folder = tmp_path_factory.mktemp("file")
        split = leave_site_out(whole, seed=seed, held_out=whole.sites[0], **FRACTIONS)
        content = {name: [c.id for c in cases][::-1] for name, cases in sides(split).items()}
        assert self.read(folder, whole, content, seed=9) == split

    @given(cohorts, st.integers(0, 3), st.randoms(use_true_random=False))
    def test_a_fold_of_nnunet(self, tmp_path_factory, whole, seed, shuffle):
        folder = tmp_path_factory.mktemp("file")
        names = sorted({c.patient for c in whole.cases})
        folds = [
            {
                "train": [c.id for c in whole.cases if names.index(c.patient) % 3 != fold],
                "val": [c.id for c in whole.cases if names.index(c.patient) % 3 == fold],
            }
            for fold in range(3)
        ]
        split = self.read(folder, whole, folds, fold=1, seed=seed)
        assert_sound(split, whole)
        assert ids(split.tests["in_domain"]) == set(folds[1]["val"])
        assert ids((*split.train, *split.val)) == set(folds[1]["train"])
        shuffle.shuffle(folds[1]["train"])
        mixed = shuffled(whole, shuffle)
        assert self.read(folder, mixed, folds, fold=1, seed=seed) == split

    def test_cases_that_are_not_named_are_in_no_set(self, tmp_path):
        whole = cohort({"dijon": [1] * 5})
        content = {"train": ["dijon-0-0"], "val": ["dijon-1-0"], "mine": ["dijon-2-0"]}
        split = self.read(tmp_path, whole, content)
        assert {name: ids(cases) for name, cases in sides(split).items()} == {
            name: set(named) for name, named in content.items()
        }

    @pytest.mark.parametrize(
        ("content", "options", "message"),
        [
            ("{", {}, "is not JSON"),
            (3, {}, "should map 'train', 'val' and sets to ids of cases; it is int"),
            ({"training": []}, {}, r"it is \['training'\]"),
            ({"train": ["dijon-0-0"], "val": ["dijon-1-0"]}, {}, "no evaluation set"),
            ({"train": ["dijon-0-0"], "val": ["x"], "t": []}, {}, r"'val' names 1 case.*\['x'\]"),
            ({"train": "dijon-0-0", "val": [], "t": []}, {}, "'train' should be a list of ids"),
            ({"train": [], "val": ["dijon-0-0"] * 2, "t": []}, {}, "more than once"),
            ({"train": [], "val": [], "a/b": []}, {}, r"split.json: .*'a/b'.*which part the keys"),
            ({"train": [], "val": [], "t": []}, {}, r"split.json: the split .*'train' empty"),
            (
                {"train": ["dijon-0-0"], "val": ["dijon-1-0"], "t": ["dijon-0-1"]}, {},
                r"\['dijon-0'\] are both in train and in test",
            ),
            ({"train": [], "val": [], "t": []}, {"fold": 0}, "split.fold=0: .* one split, without"),
            ([{"train": [], "val": []}], {}, "split.fold=None: .* has the folds 0 to 0; name one"),
            ([{"train": [], "val": []}], {"fold": 1}, "split.fold=1: .* has the folds 0 to 0"),
            ([{"train": [], "val": [], "test": []}], {"fold": 0}, r"has \['test'\] beside"),
            (
                [{"train": ["dijon-0-0", "dijon-1-0", "dijon-2-0"], "val": ["dijon-0-1"]}],
                {"fold": 0}, r"\['dijon-0'\] are both in (train|val) and in test",
            ),
        ],
    )  # fmt: skip
    def test_wrong_files(self, tmp_path, content, options, message):
        with pytest.raises(InputError, match=message):
            self.read(tmp_path, cohort({"dijon": [2] * 5}), content, **options)

    def test_no_file(self, tmp_path):
        with pytest.raises(InputError, match="there is no such file"):
            from_file(
                cohort({"dijon": [1]}), path=str(tmp_path / "x.json"), seed=0, val_fraction=0.2
            )


LINES = re.findall(r"`python train.py (split=[^`]*)`", (ROOT / "docs" / "splits.md").read_text())


def test_every_split_has_a_command_in_its_table():
    there = sorted(path.stem for path in (ROOT / "conf" / "split").glob("*.yaml"))
    assert sorted(line.split()[0].removeprefix("split=") for line in LINES) == there


@pytest.mark.parametrize("line", LINES)
def test_the_commands_of_the_page_make_splits(line, phantom, workplace):
    line = line.replace("SPLIT.json", str(workplace / SPLIT_FILE))
    config = composed(
        *phantom, "data.cohort.sites.alpha.patients=16", "data.cohort.sites.gamma.patients=5",
        *line.split(),
    )  # fmt: skip
    cohort = build.cohort_of(config)
    split = build.split_of(build.resolved(config), cohort)
    assert_disjoint(split)
    assert ids([*split.train, *split.val]) <= ids(cohort.cases)


@pytest.mark.parametrize("split", ["single_source", "by_column", "prevalence", "from_file"])
def test_what_only_the_user_can_give_is_asked_for(split, phantom):
    key = {"single_source": "source", "by_column": "column", "prevalence": "structure"}.get(
        split, "path"
    )
    with pytest.raises(InputError, match=f"split.{key} is required: add split.{key}=..."):
        build.experiment(composed(*phantom, f"split={split}"))
