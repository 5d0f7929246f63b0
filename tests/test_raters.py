"""Other raters: read as the label is, stored beside it, and handed to whoever evaluates."""

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import make_case
from store_inputs import plan_for

from segshift import shifts
from segshift.cohort import read_manifest
from segshift.cohort.checks import load_label, load_raters
from segshift.data import CohortDataModule
from segshift.data.cleaning import store_size
from segshift.data.datamodule import CaseDataset
from segshift.data.store import store_cases, store_sets
from segshift.errors import InputError
from segshift.plan import View, check_cases
from segshift.splits import SetKey, evaluation_sets
from segshift.splits.labels import relabelled

SHAPE = (8, 16, 16)
# What the drawn values 0, 1, 2 and 3 of a file mean under `liver=2 gut=3 background=1`.
MEANING = np.array([0, 0, 1, 2], np.uint8)
DRAWN = {"label": 0, "label_2": 1, "label_3": 2}
COLUMNS = "id,patient,site,image,label_3,label,label_2,label_rib,structures"
RULES = "liver=2 gut=3 rib=nonzero background=1"


@pytest.fixture
def values():
    """What the three drew, (D, H, W) each, and a rib that has a file of its own."""
    random = np.random.default_rng(3)
    rib = np.zeros(SHAPE, np.uint8)
    rib[2, 3, 4:9] = 255
    return [random.integers(0, 4, SHAPE).astype(np.uint8) for _ in range(3)], rib


@pytest.fixture
def manifest(values, tmp_path):
    """Case a has three raters and a rib, b the first and the third, c the first alone."""
    labels, rib = values
    for name, number in DRAWN.items():
        nib.save(nib.Nifti1Image(labels[number].T, np.eye(4)), tmp_path / f"{name}.nii")
    nib.save(nib.Nifti1Image(rib.T, np.eye(4)), tmp_path / "rib.nii")
    for name in "abc":
        image = np.random.default_rng(ord(name)).normal(0, 1, SHAPE[::-1])
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), tmp_path / f"{name}.nii")
    lines = (
        f"a,a,here,a.nii,label_3.nii,label.nii,label_2.nii,rib.nii,{RULES}",
        f"b,b,here,b.nii,label_3.nii,label.nii,,,{RULES}",
        f"c,c,here,c.nii,,label.nii,,,{RULES}",
    )
    path = tmp_path / "m.csv"
    path.write_text("\n".join([COLUMNS, *lines]) + "\n")
    return path


def wanted_of(values, names, *, with_rib):
    labels, rib = values
    index = {name: MEANING[labels[DRAWN[name]]] for name in names}
    return {name: np.where(rib * with_rib, 3, drawn) for name, drawn in index.items()}


def same(found, wanted):
    assert list(found) == list(wanted)
    for name, label in found.items():
        assert label.dtype == np.uint8
        np.testing.assert_array_equal(label, wanted[name])


@pytest.mark.parametrize(
    ("rater", "names"),
    [
        (1, [["label_2", "label_3"], ["label_3"], []]),
        (3, [["label", "label_2"], ["label"], None]),
        ("majority", [["label", "label_2", "label_3"], ["label", "label_3"], []]),
        ("staple", [["label", "label_2", "label_3"], ["label", "label_3"], []]),
    ],
)
def test_all_but_the_one_who_drew_the_label(manifest, values, rater, names):
    if None in names:  # c has no such rater
        lines = manifest.read_text().splitlines()[:-1]
        manifest.write_text("\n".join(lines) + "\n")
    cases = read_manifest(manifest, rater=rater).cases
    for case, own in zip(cases, [each for each in names if each is not None], strict=True):
        same(load_raters(case), wanted_of(values, own, with_rib=case.id == "a"))


def test_one_at_random_leaves_the_others(manifest):
    case = read_manifest(manifest, rater="random").cases[0]
    taken = next(n for n, p in case.annotation.rater_files.items() if p == case.annotation.label)
    assert list(load_raters(case)) == sorted({*DRAWN} - {taken})


def test_another_label_leaves_the_first(manifest, values):
    cohort = read_manifest(manifest)
    (again,) = relabelled(cohort, cohort.cases, "label_2")
    wanted = wanted_of(values, ["label", "label_3"], with_rib=True)
    same(load_raters(again), wanted)
    label = wanted_of(values, ["label_2"], with_rib=True)["label_2"]
    np.testing.assert_array_equal(load_label(again), label)


@pytest.mark.parametrize(
    ("array", "shift", "told"),
    [
        (np.zeros((8, 16, 15), np.uint8), 0, r"label_2\.nii has shape \(8, 16, 15\)"),
        (np.zeros(SHAPE, np.uint8), 5, r"label_2\.nii .* lie elsewhere"),
        (np.full(SHAPE, 9, np.uint8), 0, r"label_2\.nii holds the value\(s\) \[9\]"),
        (None, 0, r"label_2\.nii: there is no such file"),
    ],
)
def test_a_file_that_does_not_fit_is_named(manifest, tmp_path, array, shift, told):
    (tmp_path / "label_2.nii").unlink()
    if array is not None:
        affine = np.eye(4)
        affine[0, 3] = shift
        nib.save(nib.Nifti1Image(array.T, affine), tmp_path / "label_2.nii")
    cohort = read_manifest(manifest)
    cases = cohort.cases
    whole = plan_for([cases[2]], structures=cohort.structures)
    with pytest.raises(InputError, match=f"case 'a': .*{told}"):
        load_raters(cases[0])
    with pytest.raises(InputError, match=f"case 'a': .*{told}"):
        store_cases(cases[:1], whole, folder=tmp_path / "store", quiet=True)
    if "value" not in told:  # what a header tells is told before anything is read
        for check in (lambda: plan_for(cases), lambda: check_cases(cases, whole)):
            with pytest.raises(InputError, match=f"case 'a': .*{told}"):
                check()


PLAIN, FLIPPED = SetKey("x"), SetKey("x", "flip_yx", 1)


@pytest.fixture
def entries(manifest, tmp_path):
    """Stored for another grid than the cases' own."""
    cohort = read_manifest(manifest)
    plan = plan_for(cohort.cases, structures=cohort.structures, spacing_mm=(2.0, 1.0, 1.5))
    sets = evaluation_sets({"x": cohort.cases}, [shifts.Flip(1, ["y", "x"])])
    return store_sets(sets, plan, folder=tmp_path / "store", quiet=True)


def test_they_are_stored_on_the_cases_own_grid(entries, values, tmp_path):
    for entry, own in zip(entries[PLAIN], (["label_2", "label_3"], ["label_3"], []), strict=True):
        same(entry.raters(), wanted_of(values, own, with_rib=entry.case.id == "a"))
        assert all(isinstance(label, np.memmap) for label in entry.raters().values())
        assert (entry.folder / "raters.npy").exists() == bool(own)
    assert entries[PLAIN][0].image().shape == (1, 4, 16, 11)
    assert store_size(tmp_path / "store").entries == 3


def test_they_are_in_the_evaluation_item_of_images_as_acquired(entries):
    plain, flipped = (CaseDataset(entries[key], counted=True)[0] for key in (PLAIN, FLIPPED))
    assert list(plain["raters"]) == ["label_2", "label_3"]
    for label in plain["raters"].values():
        assert (label.dtype, label.shape) == (torch.uint8, SHAPE)
    assert flipped["raters"] == {}  # nobody has drawn on a corrupted image
    assert CaseDataset(entries[PLAIN], counted=True)[2]["raters"] == {}


def test_a_loader_hands_them_out_and_they_stay_on_the_cpu(entries, values):
    plain = entries[PLAIN]
    module = CohortDataModule(
        train=plain, val=plain[:1], tests={PLAIN: plain}, view=View((4, 8, 8)), batch=1,
        steps_per_epoch=1, foreground_share=0.0, workers=0, seed=0,
    )  # fmt: skip
    item = next(iter(module.test_dataloader()[0]))
    wanted = wanted_of(values, ["label_2", "label_3"], with_rib=True)
    same({name: label.numpy() for name, label in item["raters"].items()}, wanted)
    moved = module.transfer_batch_to_device(item, torch.device("meta"), 0)
    assert moved["image"].device.type == "meta"
    assert {label.device.type for label in moved["raters"].values()} == {"cpu"}


def test_a_manifest_of_one_rater_knows_no_other(tmp_path):
    case = make_case(tmp_path, "a")
    assert case.annotation.others == load_raters(case) == {}
