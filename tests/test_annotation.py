"""What a label is made of: every part counts, in the store and in studies, wherever it lies."""

import hashlib
import shutil
from dataclasses import fields, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import make_case, reannotated, save_nifti
from store_inputs import plan_for
from test_images import save_series

from segshift.cohort import Annotation, Case, Cohort
from segshift.data.store import store_cases
from segshift.splits import Split
from segshift.study.identity import hashes, identity

SHAPE = (8, 16, 16)
# Another value of each field of an annotation; a new field needs a line here.
OTHER_ANNOTATION = {
    "label": lambda place: place / "three.nii.gz",
    "values": lambda _: ((), 9),
    "files": lambda _: (None, None),
    "ignore_values": lambda _: (7, 6),
    "background_values": lambda _: (),
    "raters": lambda place: (place / "three.nii.gz",),
    "consensus": lambda _: "staple",
    "rater_files": lambda place: {"label": place / "one.nii.gz"},
}
# Of each field of a case; and whether it changes the store's key. The identity it always does.
OTHER_CASE = {
    "id": (lambda _: "b", True),
    "patient": (lambda _: "q", False),
    "site": (lambda _: "there", False),
    "images": (lambda place: (place / "two.nii.gz",), True),
    "annotation": (lambda place: Annotation(place / "one.nii.gz", (5, 9)), True),
    "tags": (lambda _: {"spacing_mm": "", "vendor": "south"}, False),
    "maps": (lambda _: None, True),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with files of labels that differ: three with the value 5, own.nii.gz with 9."""
    folder = tmp_path_factory.mktemp("labels")
    for number, name in enumerate(("one", "two", "three", "own"), start=1):
        label = np.zeros(SHAPE, np.uint8)
        label[number : number + 3, 4:9, 4:10] = 9 if name == "own" else 5
        save_nifti(folder / f"{name}.nii.gz", label)
    return folder


def full(folder: Path) -> Case:
    """A case that has something in each of its fields, also in those of its annotation."""
    annotation = Annotation(
        label=folder / "one.nii.gz",
        values=(5, 9),
        files=(None, folder / "own.nii.gz"),
        ignore_values=(7,),
        background_values=(8,),
        raters=(folder / "two.nii.gz",),
        consensus="majority",
        rater_files={
            "label": folder / "one.nii.gz",
            "label_2": folder / "two.nii.gz",
            "label_3": folder / "three.nii.gz",
        },
    )
    image = save_nifti(folder / "image.nii.gz", np.arange(2048.0, dtype="f4").reshape(SHAPE))
    maps = nib.Nifti1Image(np.ones((*SHAPE[::-1], 3), np.float32), np.eye(4))
    nib.save(maps, folder / "maps.nii.gz")
    tags = {"spacing_mm": "", "vendor": "north"}
    return Case("a", "p", "here", (image,), annotation, tags, folder / "maps.nii.gz")


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    folder = tmp_path_factory.mktemp("others")
    return [make_case(folder, name) for name in ("val", "test")]


@pytest.fixture
def both_of(place, others, tmp_path):
    """A function: the store's name of a case, and the identity of a study that trains on it."""
    plan = plan_for([full(place)], crop="none")

    def both(case: Case) -> tuple[str, str]:
        val, test = others
        split = Split((case,), (val,), {"in_domain": (test,)})
        cohort = Cohort("c", ("image",), ("box", "core"), (case, *others))
        (entry,) = store_cases([case], plan, folder=tmp_path / "store", quiet=True)
        return entry.folder.name, identity({}, cohort, split, hashes(tmp_path / "store"))

    return both


class TestWhatCounts:
    """The store's key and a study's identity."""

    @pytest.mark.parametrize("name", [each.name for each in fields(Annotation)])
    def test_every_field_of_an_annotation(self, name, place, both_of):
        case = full(place)
        changed = OTHER_ANNOTATION[name](place)
        assert changed != getattr(case.annotation, name)
        before, after = both_of(case), both_of(reannotated(case, **{name: changed}))
        assert after[0] != before[0]
        assert after[1] != before[1]

    @pytest.mark.parametrize("name", [each.name for each in fields(Case)])
    def test_every_field_of_a_case(self, name, place, both_of):
        change, in_store = OTHER_CASE[name]
        before = both_of(full(place))
        after = both_of(replace(full(place), **{name: change(place)}))
        assert (after[0] != before[0]) == in_store
        assert after[1] != before[1]

    def test_a_voxel_size_in_the_manifest_is_part_of_both(self, place, both_of):
        before = both_of(full(place))
        after = both_of(replace(full(place), tags={"spacing_mm": "1;1;1", "vendor": "north"}))
        assert not set(after) & set(before)

    def test_the_same_content_elsewhere_is_the_same(self, place, both_of, tmp_path):
        before = both_of(full(place))
        moved = tmp_path / "moved"
        shutil.copytree(place, moved)
        assert both_of(full(moved)) == before
        labels = {**full(moved).annotation.rater_files, "label_2": moved / "named otherwise.nii.gz"}
        (moved / "two.nii.gz").rename(labels["label_2"])
        for drawn in (labels, dict(reversed(labels.items()))):
            again = reannotated(full(moved), raters=(labels["label_2"],), rater_files=drawn)
            assert both_of(again) == before

    @pytest.mark.parametrize("name", ["one", "two", "three", "own", "image", "maps"])
    def test_what_is_in_each_file(self, name, place, both_of, tmp_path):
        before = both_of(full(place))
        shutil.copytree(place, tmp_path / "own")
        case, file = full(tmp_path / "own"), tmp_path / "own" / f"{name}.nii.gz"
        image = nib.load(file)
        voxels = np.asanyarray(image.dataobj).copy()
        voxels[1, 1, 1] = 9 if name == "own" else 5
        nib.save(nib.Nifti1Image(voxels, image.affine), file)
        assert not set(both_of(case)) & set(before)

    def test_two_raters_who_drew_the_same_are_still_two(self, place, both_of, tmp_path):
        """The hashes are equal whichever is the label, but the other one has another name."""
        twin = tmp_path / "twin.nii.gz"
        shutil.copy(place / "one.nii.gz", twin)
        columns = {"label": place / "one.nii.gz", "label_2": twin}
        case = reannotated(full(place), raters=(), consensus="", rater_files=columns)
        assert not set(both_of(case)) & set(both_of(reannotated(case, label=twin)))

    def test_a_series_is_its_slices_whatever_their_names(self, tmp_path):
        voxels = np.random.default_rng(0).integers(0, 99, (6, 5, 4))
        first = save_series(tmp_path / "s", voxels, np.eye(4))
        second = shutil.copytree(first, tmp_path / "t")
        for number, file in enumerate(sorted(second.iterdir())):
            file.rename(second / f"{9 - number}.ima")

        def described(label: Path) -> dict:
            annotation = Annotation(label, (1,), rater_files={"label": label})
            return annotation.described(lambda f: hashlib.sha256(f.read_bytes()).hexdigest())

        assert len(set(described(first)["label"])) == 4
        assert described(second) == described(first)
        file = next(second.iterdir())
        file.write_bytes(file.read_bytes()[:-2] + b"ab")
        assert described(second)["label"] != described(first)["label"]
        assert described(second)["rater_files"] != described(first)["rater_files"]
