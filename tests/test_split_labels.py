"""Splits that look at labels: parts of another case mix, and other labels of the same images."""

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from conftest import composed, reannotated, save_nifti
from hypothesis import given
from hypothesis import strategies as st
from test_splits import FRACTIONS, assert_disjoint, case, cohort, ids, patients

from segshift import build
from segshift.cohort import Annotation, Case, Cohort, read_manifest, write_manifest
from segshift.cohort.checks import load_label
from segshift.errors import InputError
from segshift.splits import concept, from_file, leave_site_out, mix, prevalence, random
from segshift.splits.parts import largest_part, reach

SPACING_MM = (4.0, 2.5, 1.0)  # (z, y, x): 0.01 ml
VOXEL_ML = 0.01
TOLERANCE = 0.01


def best(cases, sums, low, high, apart):
    """The size of the largest part, among all 2^n of them."""
    parts = np.array([*product([0, 1], repeat=cases.shape[1])])[1:]
    of_sites = parts @ cases.T
    sizes = of_sites.sum(axis=1)
    means = (parts @ sums) / sizes
    shares = of_sites / sizes[:, None]
    off = np.abs(shares - cases.sum(axis=1) / cases.sum()).max(axis=1)
    # The solver's tolerance: what is this near to an end is inside or outside as it likes.
    edge = 1e-6 * max(abs(low), abs(high))
    return tuple(
        sizes[(means >= low - e) & (means <= high + e) & (off <= apart + np.sign(e) * 1e-6)].max(
            initial=0
        )
        for e in (-edge, edge)
    )


def counts(pool):
    """(S, P) of pairs of a site and a number of cases."""
    cases = np.zeros((3, len(pool)), dtype=int)
    for place, (site, number) in enumerate(pool):
        cases[site, place] = number
    return cases[cases.any(axis=1)]


pools = st.lists(
    st.tuples(st.integers(0, 2), st.integers(1, 4)).flatmap(
        lambda patient: st.tuples(st.just(patient), st.integers(0, patient[1]))
    ),
    min_size=1, max_size=7,
)  # fmt: skip


@given(pools, st.floats(0, 1), st.sampled_from([0.03, 0.11, 0.4, 1.0]))
def test_no_larger_part_has_the_share(pool, share, apart):
    cases, sums = counts([patient for patient, _ in pool]), np.array([has for _, has in pool])
    low, high = share - TOLERANCE, share + TOLERANCE
    chosen = largest_part(cases, sums.astype(float), low=low, high=high, site_tolerance=apart)
    surely, perhaps = best(cases, sums, low, high, apart)
    if chosen is None:
        assert surely == 0
    else:
        size = cases[:, chosen].sum()
        assert surely <= size <= perhaps
        assert low - 1e-6 <= sums[chosen].sum() / size <= high + 1e-6
        off = cases[:, chosen].sum(axis=1) / size - cases.sum(axis=1) / cases.sum()
        assert np.abs(off).max() <= apart + 1e-6


@given(
    st.lists(st.tuples(st.integers(1, 3), st.floats(0, 500)), min_size=1, max_size=9),
    st.floats(0.1, 400),
)
def test_no_larger_part_has_the_mean_volume(pool, target):
    cases = np.array([[n for n, _ in pool]])
    sums = cases[0] * np.array([volume for _, volume in pool])
    low, high = target * (1 - TOLERANCE), target * (1 + TOLERANCE)
    chosen = largest_part(cases, sums, low=low, high=high, site_tolerance=0)
    surely, perhaps = best(cases, sums, low, high, 1)
    assert surely <= (0 if chosen is None else cases[0, chosen].sum()) <= perhaps


def test_of_patients_alike_the_first_are_taken():
    """20 of 30 cases have it; half of 20 do, and of either kind the first ten."""
    sums, cases = np.array([1.0, 0.0, 1.0] * 10), np.ones((1, 30), dtype=int)
    chosen = largest_part(cases, sums, low=0.5, high=0.5, site_tolerance=0)
    assert chosen.sum() == 20
    assert chosen[sums == 0].all()
    nothing = largest_part(cases, sums, low=0, high=0, site_tolerance=0)
    assert nothing.tolist() == (sums == 0).tolist()
    assert chosen[sums == 1].tolist() == [True] * 10 + [False] * 10


def test_what_the_shares_of_the_sites_allow():
    """Half of the cases are of each site; all have it at one, none at the other."""
    cases = np.kron(np.eye(2, dtype=int), np.ones(10, dtype=int))
    has = cases[0].astype(float)
    assert reach(cases, has, site_tolerance=0.1) == pytest.approx((0.4, 0.6))
    assert reach(cases, has, site_tolerance=1.0) == pytest.approx((0, 1))
    assert reach(cases[:1, :10], np.arange(10.0), site_tolerance=0) == pytest.approx((0, 9))
    assert largest_part(cases, has, low=0.69, high=0.71, site_tolerance=0.1) is None
    assert largest_part(cases, has, low=0.59, high=0.61, site_tolerance=0.1).sum() == 15


@pytest.fixture(scope="module")
def lumps(tmp_path_factory) -> Cohort:
    """60 patients of one case at two sites; the n-th has n voxels of `lump`, every third none."""
    folder = tmp_path_factory.mktemp("lumps")
    affine = np.diag([*reversed(SPACING_MM), 1.0])
    cases = []
    for n in range(60):
        image, label = np.zeros((2, 8, 8), np.float32), np.zeros((2, 8, 8), np.uint8)
        label.ravel()[: n if n % 3 else 0] = 7
        label.ravel()[-1] = 4
        files = [
            save_nifti(folder / f"{kind}{n}.nii.gz", array, affine)
            for kind, array in (("image", image), ("label", label))
        ]
        site = ("dijon", "oslo")[n % 2]
        cases.append(Case(f"c{n}", f"p{n}", site, (files[0],), Annotation(files[1], (4, 7))))
    write_manifest(folder / "m.csv", cases, channels=["image"], structures=["spot", "lump"])
    return read_manifest(folder / "m.csv")


HALF = {"seed": 0, "val_fraction": 0.2, "test_fraction": 0.5}


def voxels(one: Case) -> int:
    return int(one.id[1:]) * (int(one.id[1:]) % 3 > 0)


def test_parts_with_another_share_or_volume(lumps):
    split = prevalence(lumps, structure="lump", prevalence=[0.2, 0.75], volume_ml=0.3, **HALF)
    plain = random(lumps, **HALF)
    pool = plain.tests["in_domain"]
    assert (split.train, split.val, split.tests["in_domain"]) == (plain.train, plain.val, pool)
    assert [*split.tests] == [
        "in_domain", "prevalence-lump-0.2", "prevalence-lump-0.75", "volume-lump-0.3",
    ]  # fmt: skip
    cases = np.ones(len(pool), dtype=int)
    counts = np.array([voxels(one) for one in pool])
    for share in (0.2, 0.75):
        part = split.tests[f"prevalence-lump-{share}"]
        assert ids(part) <= ids(pool)
        has = np.mean([voxels(one) > 0 for one in part])
        assert abs(has - share) <= TOLERANCE + 1e-9
        with_it, without = int((counts > 0).sum()), int((counts == 0).sum())
        sizes = [
            k + m for k in range(with_it + 1) for m in range(without + 1)
            if k + m and abs(k / (k + m) - share) <= TOLERANCE + 1e-9
        ]  # fmt: skip
        assert len(part) == max(sizes)
        assert len({one.site for one in part}) == 2
    mean_ml = np.mean([voxels(one) for one in split.tests["volume-lump-0.3"]]) * VOXEL_ML
    assert mean_ml == pytest.approx(0.3, rel=TOLERANCE)
    whole_ml = np.mean(counts) * VOXEL_ML
    assert (
        prevalence(lumps, structure="lump", volume_ml=whole_ml, **HALF).tests[
            f"volume-lump-{whole_ml:.12g}"
        ]
        == pool
    )
    assert len(cases) == 30


def test_sites_keep_their_shares_where_one_has_more_lesions(lumps):
    """At dijon one in five has it, at oslo every one."""
    present = [one for one in lumps.cases if voxels(one)]
    absent = [one for one in lumps.cases if not voxels(one)]
    home = [(one, "dijon") for one in (*present[:4], *absent[:16])]
    home += [(one, "oslo") for one in present[4:24]]
    moved = replace(lumps, cases=tuple(replace(one, site=site) for one, site in home))
    fractions = {"seed": 0, "val_fraction": 0.1, "test_fraction": 0.8}
    options = {"structure": "lump", **fractions}
    pool = random(moved, **fractions).tests["in_domain"]
    at_dijon = np.mean([one.site == "dijon" for one in pool])
    assert at_dijon == 0.5
    split = prevalence(moved, prevalence=[0.5, 0.55], tolerance=0.02, **options)
    for share in (0.5, 0.55):
        part = split.tests[f"prevalence-lump-{share}"]
        assert abs(np.mean([voxels(one) > 0 for one in part]) - share) <= 0.02
        assert abs(np.mean([one.site == "dijon" for one in part]) - at_dijon) <= 0.05
    with pytest.raises(
        InputError, match=r"'dijon': 0.5, 'oslo': 0.5.* reach values from 0.45 to 1"
    ) as told:
        prevalence(moved, prevalence=0.2, **options)
    wider = re.search(
        r"Take split.tolerance=(\S+) or split.site_tolerance=(\S+), or", str(told.value)
    )
    for name, width in zip(("tolerance", "site_tolerance"), wider.groups(), strict=True):
        assert prevalence(moved, prevalence=0.2, **options, **{name: float(width)})


def test_patients_stay_whole(lumps):
    """Two cases each, of one site; so no part has one of them alone."""
    pairs = tuple(replace(one, patient=f"{n % 2}-{n // 4}") for n, one in enumerate(lumps.cases))
    split = prevalence(
        replace(lumps, cases=pairs), structure="lump", prevalence=0.9, tolerance=0.02, **HALF
    )
    assert_disjoint(split)
    part = split.tests["prevalence-lump-0.9"]
    assert 0 < len(part) < len(split.tests["in_domain"])
    assert ids(part) == {
        one.id for one in split.tests["in_domain"] if one.patient in patients(part)
    }


def test_parts_do_not_depend_on_the_order(lumps):
    options = {"structure": "lump", "prevalence": 0.4, "volume_ml": 0.1} | HALF
    turned = replace(lumps, cases=lumps.cases[::-1])
    assert prevalence(turned, **options) == prevalence(lumps, **options)


def test_what_is_not_annotated_is_in_no_part(lumps):
    blind = tuple(
        reannotated(one, values=(4, None), ignore_values=(7,)) if n < 30 else one
        for n, one in enumerate(lumps.cases)
    )
    split = prevalence(replace(lumps, cases=blind), structure="lump", prevalence=0.5, **HALF)
    part = split.tests["prevalence-lump-0.5"]
    assert part
    assert all(int(one.id[1:]) >= 30 for one in part)


def test_a_structure_that_nobody_annotates_is_told_before_a_label_is_read(lumps, monkeypatch):
    monkeypatch.setattr(mix, "_sizes", lambda *_, **__: pytest.fail("labels are read"))
    blind = tuple(reannotated(one, values=(4, None), ignore_values=(7,)) for one in lumps.cases)
    with pytest.raises(InputError, match="split.structure=lump: no case of in_domain annotates"):
        prevalence(replace(lumps, cases=blind), structure="lump", prevalence=0.5, **HALF)


def test_sites_can_be_left_out_as_well(lumps):
    split = prevalence(lumps, structure="lump", prevalence=0.5, held_out="oslo", **HALF)
    plain = leave_site_out(lumps, held_out="oslo", **HALF)
    assert {name: split.tests[name] for name in plain.tests} == plain.tests
    assert {one.site for one in split.tests["prevalence-lump-0.5"]} == {"dijon"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"structure": "lamp"}, r"split.structure=lamp: m has \['spot', 'lump'\]"),
        ({"structure": "lump"}, "takes split.prevalence"),
        (
            {"structure": "lump", "prevalence": [1.5]},
            r"split.prevalence=\[1.5\]: numbers from 0 to",
        ),
        ({"structure": "lump", "volume_ml": -1}, "split.volume_ml=-1: numbers from 0 up"),
        ({"structure": "lump", "prevalence": "half"}, "numbers from 0 to 1"),
        ({"structure": "lump", "prevalence": 0, "tolerance": 2}, r"split.tolerance=\[2\]: numbers"),
        (
            {"structure": "spot", "prevalence": 0.5},
            "reach values from 1 to 1. Take split.tolerance=0.5",
        ),
        (
            {"structure": "lump", "volume_ml": 9},
            "split.volume_ml=9: no part of the 30 .* from 0 to .*another",
        ),
    ],
)
def test_wrong_mixes(lumps, options, message):
    with pytest.raises(InputError, match=message):
        prevalence(lumps, **options, **HALF)


def test_another_raters_label_is_judged_alone(tmp_path):
    """`label` and `label_2` differ by known voxels; who has no second label is not in the set."""
    cases = []
    for n in range(8):
        files = {}
        for kind, count in (("image", 0), ("label", n), ("second", n + 10), ("third", n + 20)):
            array = np.zeros((2, 8, 8), np.float32 if kind == "image" else np.uint8)
            array.ravel()[:count] = 7
            files[kind] = save_nifti(tmp_path / f"{kind}{n}.nii.gz", array)
        raters = (files["second"],) if n % 2 else ()
        tags = {"third": f"third{n}.nii.gz", "vendor": "ge"}
        drawn = Annotation(files["label"], (7,), raters=raters, consensus="majority")
        cases.append(Case(f"c{n}", f"p{n}", "s", (files["image"],), drawn, tags))
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["lump"])

    def counts(set_):
        return {one.id: int((load_label(one) == 1).sum()) for one in set_}

    for rater in (1, "majority"):
        whole = read_manifest(tmp_path / "m.csv", rater=rater)
        split = concept(whole, labels=["label_2", "third"], **HALF)
        plain = random(whole, **HALF)
        assert (split.train, split.val) == (plain.train, plain.val)
        judged = plain.tests["in_domain"]
        assert split.tests["in_domain"] == judged
        second, third = counts(split.tests["labels-label_2"]), counts(split.tests["labels-third"])
        numbers = sorted(int(one.id[1:]) for one in judged)
        assert second == {f"c{n}": n + 10 for n in numbers if n % 2}
        assert third == {f"c{n}": n + 20 for n in numbers}
    reference = read_manifest(tmp_path / "m.csv", rater=1)
    back = concept(reference, labels="label", **HALF).tests["labels-label"]
    assert counts(back) == {one.id: int(one.id[1:]) for one in back}
    for wrong in ("vendor", "vendour"):
        with pytest.raises(InputError, match=rf"split.labels={wrong} names no label file.*'third'"):
            concept(reference, labels=wrong, **HALF)


def test_the_file_of_a_run_with_other_labels_has_them_again(phantom, tmp_path):
    config = composed(*phantom, "split=concept", "split.labels=[truth]")
    whole = build.cohort_of(config)
    split = concept(whole, labels=["truth"], **HALF)
    delta = [one for one in split.tests["labels-truth"] if one.site == "delta"]
    assert delta
    for one in delta:  # annotated outside the truth: the concept shift of that site
        drawn = next(c for c in whole.cases if c.id == one.id)
        assert (load_label(drawn) > 0).sum() > 1.1 * (load_label(one) > 0).sum()
    sides = {"train": split.train, "val": split.val, **split.tests}
    path = tmp_path / "split.json"
    path.write_text(json.dumps({name: [c.id for c in cases] for name, cases in sides.items()}))
    assert from_file(whole, path=str(path), seed=0, val_fraction=0.2) == split


def lines(sizes: dict[str, int], **guidelines: range) -> Cohort:
    """Per site patients with an image, and one line of it for each guideline that drew it."""
    cases = []
    for one in cohort({site: [1] * size for site, size in sizes.items()}).cases:
        number = int(one.patient.split("-")[1])
        cases += [
            replace(one, id=f"{one.id}-{name}", tags={"guideline": name})
            for name, drew in guidelines.items()
            if number in drew
        ]
    return Cohort("c", ("image",), ("s",), tuple(cases))


@given(st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_same_images_under_another_guideline(seed, shuffle):
    sizes = {"dijon": 12, "oslo": 9}
    whole = lines(sizes, reference=range(12), generous=range(12), strict=range(2))
    options = {"seed": seed, "column": "guideline", "trained": "reference"} | FRACTIONS
    split = concept(whole, **options)
    assert_disjoint(split)
    plain = random(lines(sizes, reference=range(12)), seed=seed, **FRACTIONS)
    assert (split.train, split.val) == (plain.train, plain.val)
    judged = split.tests["in_domain"]
    assert judged == plain.tests["in_domain"]
    again = split.tests["guideline-generous"]
    assert {c.images for c in again} == {c.images for c in judged}
    assert {c.tags["guideline"] for c in again} == {"generous"}
    assert patients(split.tests.get("guideline-strict", ())) == {
        c.patient for c in judged if c.patient.split("-")[1] in ("0", "1")
    }
    mixed = list(whole.cases)
    shuffle.shuffle(mixed)
    assert concept(replace(whole, cases=tuple(mixed)), **options) == split


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "takes split.labels=.*not labels=None column=None trained=None"),
        ({"column": "guideline"}, "trained=None"),
        ({"labels": "x", "column": "guideline", "trained": "reference"}, "takes split.labels"),
        (
            {"column": "guideline", "trained": "mine"},
            r"split.trained=mine: 'guideline' has \['generous', 'reference'\]",
        ),
        ({"column": "rules", "trained": "mine"}, r"split.column=rules: the columns of c are"),
        ({"labels": "truth"}, r"names no label file of in_domain; the columns of c are \['guidel"),
    ],
)
def test_wrong_concepts(options, message):
    whole = lines({"dijon": 9}, reference=range(9), generous=range(9))
    with pytest.raises(InputError, match=message):
        concept(whole, seed=0, **options, **FRACTIONS)


def test_other_images_are_no_concept_shift():
    whole = lines({"dijon": 12}, reference=range(6), generous=range(6, 12))
    with pytest.raises(InputError, match="not an image of in_domain has lines with 'reference' an"):
        concept(whole, seed=0, column="guideline", trained="reference", **FRACTIONS)
    alone = replace(whole, cases=whole.cases[:6])
    with pytest.raises(InputError, match=r"'guideline' has \['reference'\]; it takes one of them"):
        concept(alone, seed=0, column="guideline", trained="reference", **FRACTIONS)


def test_the_paths_of_a_cohort_are_relative_to_its_manifest(lumps):
    assert lumps.folder == Path(lumps.cases[0].images[0]).parent
    assert case("a", "a", "s").annotation.rater_files == {}
