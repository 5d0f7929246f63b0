"""Label maps: what values mean at each site, several files, several raters."""

import numpy as np
import pytest
from conftest import save_nifti

from segshift.cohort import read_manifest, write_manifest
from segshift.cohort.checks import IGNORED, check_headers, load_label
from segshift.cohort.consensus import combined
from segshift.errors import InputError

VALUES = np.array([[[0, 1, 2], [3, 7, 9]]], dtype=np.uint8)  # (z, y, x)


def manifest(folder, lines, columns="id,patient,site,image,label"):
    """Lines of a CSV, every file of theirs with the values above unless it was saved before."""
    path = folder / "m.csv"
    path.write_text("\n".join([columns, *lines]) + "\n")
    for line in lines:
        for name in line.split(","):
            if name.endswith(".nii") and not (folder / name).is_file():
                save_nifti(folder / name, VALUES)
    return path


TWO_SITES = ("a,p,dijon,a.nii,al.nii", "b,q,toronto,b.nii,bl.nii")


def labels(cohort):
    return [load_label(case).ravel().tolist() for case in cohort.cases]


def test_a_rule_may_differ_between_sites_and_merge_values(tmp_path):
    rules = {
        "cavity": {"dijon": 3, "toronto": [1, 2]},
        "wall": 7,
        "ignore": 9,
        "background": {"dijon": [1, 2], "toronto": 3},
    }
    cohort = read_manifest(manifest(tmp_path, TWO_SITES), structures=rules)
    assert cohort.structures == ("cavity", "wall")
    assert labels(cohort) == [[0, 0, 0, 1, 2, IGNORED], [0, 1, 1, 0, 2, IGNORED]]
    assert all(all(case.annotation.annotated) for case in cohort.cases)


def test_a_structure_may_be_annotated_at_one_site_only(tmp_path):
    rules = {"cavity": 3, "wall": {"dijon": 7, "toronto": None}, "background": [1, 2, 9]}
    rules["background"] = {"dijon": [1, 2, 9], "toronto": [1, 2, 7, 9]}
    cohort = read_manifest(manifest(tmp_path, TWO_SITES), structures=rules)
    assert [case.annotation.annotated for case in cohort.cases] == [(True, True), (True, False)]
    assert labels(cohort)[1] == [0, 0, 0, 1, 0, 0]
    del rules["wall"]["toronto"]  # what is not named is not annotated
    assert read_manifest(tmp_path / "m.csv", structures=rules).cases == cohort.cases


def test_more_structures_than_class_indices_are_refused(tmp_path):
    path = manifest(tmp_path, TWO_SITES)
    most = {f"s{value}": value for value in range(1, 255)}
    assert len(read_manifest(path, structures=most).structures) == 254
    with pytest.raises(InputError, match="has 255 structures, more than 254"):
        read_manifest(path, structures={**most, "one_more": 255})


def test_values_far_apart_are_told_apart(tmp_path):
    save_nifti(tmp_path / "al.nii", np.array([[[0, 5, 2**30]]], dtype=np.int32))
    save_nifti(tmp_path / "a.nii", np.zeros((1, 1, 3), dtype=np.float32))
    rules = {"far": 2**30, "background": 5}
    cohort = read_manifest(manifest(tmp_path, TWO_SITES[:1]), structures=rules)
    assert labels(cohort) == [[0, 0, 1]]


def test_every_value_but_0_is_one_structure(tmp_path):
    save_nifti(tmp_path / "al.nii", np.array([[[0, 1, 60000]]], dtype=np.uint16))
    save_nifti(tmp_path / "a.nii", np.zeros((1, 1, 3), dtype=np.float32))
    cohort = read_manifest(manifest(tmp_path, TWO_SITES[:1]), structures={"nucleus": "nonzero"})
    assert labels(cohort) == [[0, 1, 1]]


def test_structures_in_files_of_their_own(tmp_path):
    for name, mask in (("axon.nii", VALUES == 1), ("myelin.nii", (VALUES == 2) | (VALUES == 3))):
        save_nifti(tmp_path / name, 255 * mask.astype(np.uint8))
    path = manifest(
        tmp_path,
        ["a,p,here,a.nii,axon.nii,myelin.nii", "b,q,here,b.nii,axon.nii,"],
        columns="id,patient,site,image,label_axon,label_myelin",
    )
    cohort = read_manifest(path)
    assert cohort.structures == ("axon", "myelin")
    assert labels(cohort) == [[0, 1, 2, 2, 0, 0], [0, 1, 0, 0, 0, 0]]
    assert [case.annotation.annotated for case in cohort.cases] == [(True, True), (True, False)]
    alone = read_manifest(path, structures={"myelin": "nonzero"})
    assert load_label(alone.cases[0]).ravel().tolist() == [0, 0, 1, 1, 0, 0]
    with pytest.raises(InputError, match="'b' has no label"):
        load_label(alone.cases[1])
    save_nifti(tmp_path / "myelin.nii", np.zeros((2, 2, 2), dtype=np.uint8))
    with pytest.raises(InputError, match=r"'a'.*myelin\.nii has shape"):
        check_headers(cohort.cases[0])


def test_a_manifest_keeps_all_of_it(tmp_path):
    path = manifest(
        tmp_path,
        [
            "a,p,dijon,a.nii,al.nii,al2.nii,rib.nii,liver=1|2 rib=nonzero gut=none ignore=9,x",
            "b,q,oslo,b.nii,bl.nii,,,liver=3 rib=none gut=7 background=1|2|9,y",
        ],
        columns="id,patient,site,image,label,label_2,label_rib,structures,guideline",
    )
    cohort = read_manifest(path, rater="majority")
    known = [case.annotation.annotated for case in cohort.cases]
    assert known == [(True, True, False), (True, False, True)]
    assert [case.tags for case in cohort.cases] == [{"guideline": "x"}, {"guideline": "y"}]
    write_manifest(
        tmp_path / "again.csv", cohort.cases, channels=["image"], structures=cohort.structures
    )
    assert read_manifest(tmp_path / "again.csv", rater="majority").cases == cohort.cases


def test_images_without_labels_are_a_cohort_too(tmp_path):
    lines = ("a,p,here,a.nii,", "b,q,here,b.nii,")
    cohort = read_manifest(manifest(tmp_path, lines))
    assert cohort.structures == ()
    assert not any(case.annotation.paths for case in cohort.cases)
    with pytest.raises(InputError, match="nothing says what the label's values mean"):
        read_manifest(manifest(tmp_path, (lines[0], "b,q,here,b.nii,bl.nii")))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"cavity": {"dijn": 3}}, r"cavity.*\['dijn'\].*\['dijon', 'toronto'\]"),
        ({"cavity": 3, "wall": [3, 4]}, "needs its own"),
        ({"cavity": 3, "ignore": 3}, "needs its own"),
        ({"cavity": "nonzero", "wall": 2}, "nonzero"),
        ({"cavity": 0}, "from 1"),
        ({"cavity": "some"}, "nonzero"),
        ({"cavity": {"dijon": {"a": 1}}}, "mapping within"),
        ({"ignore": 3}, "name"),
        ({"cavity": 1, "wall": {"dijon": None}}, r"'wall' is annotated in not one of the 2"),
    ],
)
def test_a_wrong_rule_is_refused(tmp_path, rules, message):
    with pytest.raises(InputError, match=message):
        read_manifest(manifest(tmp_path, TWO_SITES), structures=rules)


def test_a_value_that_means_nothing_is_named_with_what_to_do(tmp_path):
    cohort = read_manifest(manifest(tmp_path, TWO_SITES), structures={"cavity": 3})
    with pytest.raises(InputError, match=r"'a'.*\[1, 2, 7, 9\].*`ignore`.*`background`"):
        load_label(cohort.cases[0])


class TestRaters:
    COLUMNS = "id,patient,site,image,label,label_2,label_3,structures"
    LINES = (
        "a,p,here,a.nii,r1.nii,r2.nii,r3.nii,liver=1 gut=2",
        "b,q,here,b.nii,r1.nii,,r3.nii,liver=1 gut=2",
    )

    @pytest.fixture
    def path(self, tmp_path):
        drawn = {"r1": [0, 1, 1, 2, 0, 1], "r2": [0, 1, 2, 2, 1, 2], "r3": [0, 1, 2, 0, 1, 0]}
        for name, values in drawn.items():
            save_nifti(tmp_path / f"{name}.nii", np.array(values, np.uint8).reshape(1, 2, 3))
        return manifest(tmp_path, self.LINES, self.COLUMNS)

    def test_one_of_them(self, path):
        cohort = read_manifest(path, rater=3)
        assert labels(cohort) == [[0, 1, 2, 0, 1, 0]] * 2
        with pytest.raises(InputError, match=r"'b' has no label in the column 'label_2'.*label_3"):
            read_manifest(path, rater=2)

    def test_one_at_random_is_the_same_every_time(self, path):
        chosen, again = (
            [case.annotation.label.stem for case in read_manifest(path, rater="random").cases]
            for _ in range(2)
        )
        assert chosen == again
        assert chosen[1] in ("r1", "r3")
        lines = [f"c{i}{self.LINES[0][1:]}" for i in range(40)]
        many = read_manifest(manifest(path.parent, lines, self.COLUMNS), rater="random")
        assert {case.annotation.label.stem for case in many.cases} == {"r1", "r2", "r3"}

    def test_the_majority_wins_and_a_tie_goes_to_the_lowest(self, path):
        both = labels(read_manifest(path, rater="majority"))
        assert both[0] == [0, 1, 2, 2, 1, 0]  # the last voxel has three opinions
        assert both[1] == [0, 1, 1, 0, 0, 0]

    def test_staple_trusts_the_raters_that_agree(self, path):
        random = np.random.default_rng(0)
        truth = (random.random((4, 12, 12)) < 0.3).astype(np.uint8)
        noisy = [np.where(random.random(truth.shape) < share, 1 - truth, truth) for share in
                 (0.05, 0.05, 0.45, 0.45, 0.45)]  # fmt: skip
        noisy = [label.astype(np.uint8) for label in noisy]
        wrong = {way: np.mean(combined(noisy, way) != truth) for way in ("majority", "staple")}
        assert wrong["staple"] < 0.7 * wrong["majority"]
        assert len(labels(read_manifest(path, rater="staple"))[0]) == 6

    def test_an_unknown_way_is_refused(self, path):
        for wrong in (0, "all", 1.5, True):
            with pytest.raises(InputError, match=r"data\.rater"):
                read_manifest(path, rater=wrong)


def test_an_empty_label_is_no_annotation_beside_a_file_of_its_own(tmp_path):
    save_nifti(tmp_path / "cell.nii", (VALUES == 7).astype(np.uint8))
    path = manifest(
        tmp_path,
        ["a,p,here,a.nii,al.nii,cell.nii", "b,q,here,b.nii,,cell.nii"],
        columns="id,patient,site,image,label,label_cell",
    )
    rules = {"nucleus": 1, "cell": "nonzero", "background": [2, 3, 7, 9]}
    cohort = read_manifest(path, structures=rules)
    assert [case.annotation.annotated for case in cohort.cases] == [(True, True), (False, True)]
    save_nifti(tmp_path / "cell.nii", np.array([[[0, 1, 128], [255, 0, 0]]], dtype=np.uint8))
    alone = {"cell": {"here": "nonzero"}, "ignore": 128}
    ignoring = read_manifest(path, structures=alone).cases[1]
    assert load_label(ignoring).ravel().tolist() == [0, 1, IGNORED, 1, 0, 0]
    strict = read_manifest(path, structures={"cell": 255}).cases[1]
    with pytest.raises(InputError, match=r"cell\.nii holds the value\(s\) \[1, 128\]"):
        load_label(strict)


def test_sites_that_yaml_takes_for_numbers(tmp_path):
    lines = ("a,p,1,a.nii,al.nii", "b,q,2,b.nii,bl.nii")
    rules = {"cavity": {1: 3, 2: 7}, "background": [1, 2, 9]}
    cohort = read_manifest(manifest(tmp_path, lines), structures=rules, sites=[1, 2])
    assert [case.annotation.values for case in cohort.cases] == [(3,), (7,)]


@pytest.mark.parametrize("labelled_first", [True, False])
def test_labelled_and_unlabelled_lines_in_one_manifest(tmp_path, labelled_first):
    lines = ["a,p,here,a.nii,,", "b,q,here,b.nii,bl.nii,liver=1"]
    lines = lines[::-1] if labelled_first else lines
    cohort = read_manifest(manifest(tmp_path, lines, "id,patient,site,image,label,structures"))
    assert cohort.structures == ("liver",)
    known = {case.id: case.annotation.annotated for case in cohort.cases}
    assert known == {"a": (False,), "b": (True,)}
    write_manifest(
        tmp_path / "again.csv", cohort.cases, channels=["image"], structures=cohort.structures
    )
    assert read_manifest(tmp_path / "again.csv").cases == cohort.cases


def test_staple_of_labels_with_ignored_voxels_ends():
    label = np.array([0, 1, IGNORED, 2] * 10, dtype=np.uint8).reshape(1, 4, 10)
    assert combined([label, label, label], "staple").tolist() == label.tolist()
