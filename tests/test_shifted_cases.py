"""Cases under shifts: read once for all of them, and nothing shifted on disk."""

import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from conftest import ROOT, make_case, reannotated, save_nifti
from omegaconf import OmegaConf
from scipy import ndimage
from store_inputs import plan_for

from segshift import shifts
from segshift.cohort import read_manifest, write_manifest
from segshift.cohort.checks import load_case
from segshift.data import store, stored
from segshift.data.cleaning import clean, store_size
from segshift.data.datamodule import CaseDataset
from segshift.data.preprocessing import left_out, preprocessed_image
from segshift.data.store import store_cases, store_sets
from segshift.errors import InputError
from segshift.seeds import generator
from segshift.shifts import Acquisition
from segshift.splits import SetKey, evaluation_sets

FLIP = shifts.Flip(1, ["z", "x"])
SUITE = [
    part(severity)
    for part in (shifts.RicianNoise, shifts.Contrast, shifts.Gibbs, shifts.Rotation)
    for severity in (1, 4)
] + [FLIP]


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    return tuple(make_case(folder, f"c{i}", shape=(8, 16, 16 + i)) for i in range(3))


def sets_of(cases, suite=SUITE):
    return evaluation_sets({"in_domain": cases[:2], "site-x": cases[2:]}, suite)


def seen(cases, folder, suite=SUITE, **options):
    return store_sets(sets_of(cases, suite), plan_for(cases, **options), folder=folder, quiet=True)


@pytest.fixture
def reads(monkeypatch):
    """The cases whose files are read."""
    loaded = []
    monkeypatch.setattr(store, "load_case", lambda case: loaded.append(case.id) or load_case(case))
    return loaded


def test_every_set_is_there_plain_and_under_every_shift(cases):
    keys = [each.key for each in sets_of(cases)]
    assert keys[:2] == [("in_domain", "", 0), ("site-x", "", 0)]
    assert keys[2:5] == [("in_domain", "rician_noise", 1), ("site-x", "rician_noise", 1),
                         ("in_domain", "rician_noise", 4)]  # fmt: skip
    assert len(set(keys)) == 2 * 10


def test_a_case_is_read_once_for_nine_shifts(cases, tmp_path, reads):
    tested = seen(cases, tmp_path)
    for entries in tested.values():
        for entry in entries:
            entry.shown()
    assert sorted(reads) == ["c0", "c1", "c2"]
    seen(cases, tmp_path)
    assert len(reads) == 3
    seen(cases, tmp_path, [shifts.Blur(3)])  # another suite needs no other reading
    assert len(reads) == 3


def test_a_raw_image_is_hashed_once_for_nine_shifts(cases, tmp_path):
    before = stored._identity.cache_info().misses
    for entries in seen(cases, tmp_path).values():
        for entry in entries:
            entry.shown()
    assert stored._identity.cache_info().misses - before == len(cases)


def test_the_raw_image_joins_an_entry_that_lacks_it(cases, tmp_path, reads):
    (plain, *_) = store_cases(cases, plan_for(cases), folder=tmp_path, quiet=True)
    made = (plain.folder / "image.npy").stat().st_mtime_ns
    assert not (plain.folder / "raw.npy").exists()
    assert seen(cases, tmp_path)[SetKey("in_domain")][0].folder == plain.folder
    np.testing.assert_array_equal(plain.raw(), load_case(cases[0]).image)
    assert (plain.folder / "image.npy").stat().st_mtime_ns == made
    assert sorted(reads) == ["c0", "c0", "c1", "c1", "c2", "c2"]
    assert not list(tmp_path.glob("*.draft"))


def test_nothing_shifted_is_on_disk(cases, tmp_path):
    entries = [entry for entries in seen(cases, tmp_path).values() for entry in entries]
    before = {path: path.stat().st_size for path in tmp_path.rglob("*.npy")}
    assert len(before) == 3 * 5  # image, label, reference, landmarks and raw
    for entry in entries:
        entry.shown()
    assert {path: path.stat().st_size for path in tmp_path.rglob("*.npy")} == before


def test_a_shifted_case_is_what_reading_and_shifting_it_gives(cases, tmp_path):
    plan = plan_for(cases, spacing_mm=(1.0, 0.8, 0.8))
    tested = store_sets(sets_of(cases), plan, folder=tmp_path, quiet=True)
    for each in sets_of(cases)[2:]:
        for case, entry in zip(each.cases, tested[each.key], strict=True):
            volume, shown = load_case(case), entry.shown()
            identity = hashlib.sha256(volume.image.tobytes()).hexdigest()
            streams = [generator(0, "shift", each.shift.name, identity) for _ in range(2)]
            acquisition = Acquisition(volume.spacing_mm, case.tags)
            image = each.shift(volume.image, acquisition=acquisition, random=streams[0])
            wanted, box = preprocessed_image(image, plan, spacing_mm=volume.spacing_mm)
            assert shown.image.tobytes() == wanted.tobytes()
            assert shown.box == box
            if each.shift.name in ("rotation", FLIP.name):
                turned = each.shift.turned_label(
                    volume.label, acquisition=acquisition, random=streams[1]
                )
                np.testing.assert_array_equal(shown.reference, turned)
                if each.shift.severity > 1:
                    assert not np.array_equal(shown.reference, volume.label)
            else:
                np.testing.assert_array_equal(shown.reference, volume.label)


def test_the_loader_gives_the_shifted_image_and_the_turned_reference(cases, tmp_path):
    tested = seen(cases, tmp_path)
    plain, flipped = (
        CaseDataset(tested[key], counted=True)[0]
        for key in (SetKey("in_domain"), SetKey("in_domain", FLIP.name, 1))
    )
    np.testing.assert_array_equal(flipped["label"][0], plain["label"][0].flip(0, 2))
    np.testing.assert_allclose(flipped["image"][0], plain["image"][0].flip(0, 2), atol=1e-5)
    assert flipped["case"] == plain["case"] == "c0"
    assert flipped["spacing"] == plain["spacing"]


def test_the_same_case_is_corrupted_alike_in_every_store(cases, tmp_path):
    one, other = (
        seen(cases, tmp_path / name)[SetKey("in_domain", "rician_noise", 4)] for name in "ab"
    )
    assert one[0].shown().image.tobytes() == other[0].shown().image.tobytes()
    assert not np.array_equal(one[0].shown().image, one[1].shown().image[..., :16])


def test_an_image_with_a_line_for_each_guideline_is_corrupted_alike(cases, tmp_path):
    lines = (cases[0], replace(reannotated(cases[0], values=(9, 5)), id="c0-generous"), cases[2])
    tested = seen(lines, tmp_path, [shifts.RicianNoise(4)])[SetKey("in_domain", "rician_noise", 4)]
    one, other = (entry.shown() for entry in tested)
    assert one.image.tobytes() == other.image.tobytes()
    assert not np.array_equal(one.reference, other.reference)


@pytest.mark.parametrize(
    ("values", "kind"),
    [((0, 255), np.uint8), ((-1000, 3000), np.int16), ((0, 60000), np.uint16),
     ((0, 0.5), np.float32), ((0, 3e9), np.float32)],
)  # fmt: skip
@pytest.mark.filterwarnings("error")  # of a cast that cannot be
def test_the_raw_image_is_as_small_as_its_numbers_allow(tmp_path, values, kind):
    case = make_case(tmp_path, "a")
    save_nifti(case.images[0], np.resize(np.array(values, np.float32), (8, 16, 16)))
    entry = store_sets(
        evaluation_sets({"x": (case,)}, [shifts.Blur(1)]), plan_for([case]), folder=tmp_path / "s",
        quiet=True,
    )[SetKey("x")][0]  # fmt: skip
    raw = np.load(entry.folder / "raw.npy")
    assert raw.dtype == kind
    np.testing.assert_array_equal(np.unique(entry.raw()), np.array(values, np.float32))
    assert entry.raw().dtype == np.float32


@dataclass(frozen=True, slots=True)
class Told:
    """A shift of another package, which says what it was told."""

    severity: int
    name: str = "told"

    def __call__(self, image, *, acquisition, random):
        factor = float(acquisition.tags["factor"])
        return image * 0 + factor * acquisition.maps[0] + acquisition.spacing_mm[0]


def test_a_shift_is_told_spacing_tags_and_maps_through_the_manifest(tmp_path):
    case = make_case(tmp_path, "a")
    maps = np.stack([np.full((8, 16, 16), n, np.float32) for n in (1, 2, 3)])
    maps[0, 4:] = 5
    save_nifti(tmp_path / "maps" / "a.nii.gz", maps)
    header, line = "id,patient,site,image,label,maps,factor,structures", "box=5 core=9"
    (tmp_path / "m.csv").write_text(
        f"{header}\na,a,here,{case.images[0]},{case.annotation.label},maps/a.nii.gz,7,{line}\n"
    )
    cohort = read_manifest(tmp_path / "m.csv")
    (told,) = cohort.cases
    assert dict(told.tags) == {"factor": "7"}
    write_manifest(tmp_path / "n.csv", [told], channels=["image"], structures=["box", "core"])
    assert read_manifest(tmp_path / "n.csv").cases[0] == told
    entry = seen((told, told, told), tmp_path / "s", [Told(1)])[SetKey("in_domain", "told", 1)][0]
    image = entry.shift(
        entry.plain.raw(), random=None,
        acquisition=Acquisition((1.0, 1.0, 1.0), told.tags, entry.plain.maps()),
    )  # fmt: skip
    assert sorted(np.unique(image)) == [8, 36]
    wanted, _ = preprocessed_image(image, plan_for([told]), spacing_mm=(1, 1, 1))
    np.testing.assert_array_equal(entry.shown().image, wanted)
    assert store_size(tmp_path / "s").entries == 1
    assert clean(tmp_path / "s").entries == 1  # with raw and maps it is still an entry of ours
    save_nifti(tmp_path / "maps" / "a.nii.gz", maps[:, :4])
    with pytest.raises(InputError, match=r"case 'a'.*maps.*\(3, 4, 16, 16\).*\(3, 8, 16, 16\)"):
        seen((told, told, told), tmp_path / "s", [Told(1)])
    maps[1, 0] = np.nan
    save_nifti(tmp_path / "maps" / "a.nii.gz", maps)
    with pytest.raises(
        InputError, match=r"case 'a'.*maps.*256 values that are not finite; write 0"
    ):
        seen((told, told, told), tmp_path / "s", [Told(1)])


@dataclass(frozen=True, slots=True)
class Broken:
    """A shift of another package that does not keep to what a shift is."""

    change: Callable[[np.ndarray], np.ndarray]
    turn: Callable[[np.ndarray], np.ndarray] = np.copy
    name: str = "broken"
    severity: int = 2

    def __call__(self, image, *, acquisition, random):
        return self.change(image)

    def turned_label(self, label, *, acquisition, random):
        return self.turn(label)


@pytest.mark.parametrize(
    ("shift", "told"),
    [
        (Broken(lambda image: image[:, :, ::2]), r"image .*\(1, 8, 16, 16\).*\(1, 8, 8, 16\)"),
        (Broken(lambda image: image * np.nan), "image .* 2048 values that are not finite"),
        (Broken(np.copy, lambda label: label[:1]), r"label .*\(8, 16, 16\).*\(1, 16, 16\)"),
    ],
)
def test_a_shift_that_breaks_its_contract_is_named(cases, tmp_path, shift, told):
    entry = seen(cases, tmp_path, [shift])[SetKey("in_domain", "broken", 2)][0]
    with pytest.raises(InputError, match=f"shift broken, severity 2, .*{told}"):
        entry.shown()


MR = [
    getattr(shifts, entry["_target_"].rpartition(".")[2])
    for entry in OmegaConf.load(ROOT / "conf/shift/mr.yaml").suite
]


@pytest.fixture(scope="module")
def brains(tmp_path_factory):
    """A brain without its skull, plain and under shifts of severity 1, by the set's name."""
    folder, random = tmp_path_factory.mktemp("brains"), np.random.default_rng(0)
    y, x = np.meshgrid(np.arange(48) - 25, np.arange(48) - 22, indexing="ij")
    texture = ndimage.gaussian_filter(random.normal(500, 400, (8, 48, 48)), (0, 1, 1))
    case = make_case(folder, "brain", shape=texture.shape)
    save_nifti(case.images[0], np.where(y**2 + (0.8 * x) ** 2 < 14**2, texture, 0))
    plan = plan_for([case])
    assert (plan.crop, plan.normalisation[0].nonzero) == ("nonzero", True)
    suite = [*(part(1) for part in (*MR, shifts.Rotation)), shifts.Flip(1, ["x"])]
    sets = evaluation_sets({"x": (case,)}, suite)
    entries = store_sets(sets, plan, folder=folder / "s", quiet=True)
    return {name: entry.shown() for name, (entry,) in entries.items()}


class TestZerosAround:
    """Whoever took the skull away did so after the acquisition."""

    @pytest.mark.parametrize("name", [part.name for part in MR])
    def test_the_tissue_is_on_the_scale_of_the_plain_image(self, brains, name):
        plain, shown = brains[SetKey("x")], brains[SetKey("x", name, 1)]
        assert shown.box == plain.box
        brain = plain.image != 0
        np.testing.assert_array_equal(shown.image[~brain], 0)
        assert shown.image[brain].mean() == pytest.approx(0, abs=1e-4)
        assert shown.image[brain].std() == pytest.approx(1, abs=1e-4)
        if name not in ("inversion", "bias_field"):
            assert np.corrcoef(shown.image[brain], plain.image[brain])[0, 1] > 0.8

    @pytest.mark.parametrize("empty", [0, 2])  # voxels at every side
    def test_holes_are_filled_as_in_the_whole_image(self, cases, empty):
        tissue = np.random.default_rng(0).random((6, 12, 12)) < 0.7
        image = np.pad(tissue, empty)
        filled = ndimage.binary_fill_holes(image)
        assert (filled != image).any()
        plan = plan_for(cases, crop="nonzero")
        rules = tuple(replace(rule, nonzero=True) for rule in plan.normalisation)
        plan = replace(plan, normalisation=rules)
        np.testing.assert_array_equal(left_out(image[None].astype(np.float32), plan), ~filled)

    def test_they_turn_with_the_patient(self, brains):
        shown = (("x",), ("x", "flip_x", 1), ("x", "rotation", 1))
        plain, flipped, turned = (brains[SetKey(*key)] for key in shown)
        np.testing.assert_allclose(flipped.image, plain.image[..., ::-1], atol=1e-5)
        brain = turned.image != 0
        assert brain.sum() == pytest.approx((plain.image != 0).sum(), rel=0.02)
        assert turned.image[brain].mean() == pytest.approx(0, abs=1e-4)
        assert turned.image[brain].std() == pytest.approx(1, abs=1e-4)


def test_a_stray_file_makes_a_folder_foreign(cases, tmp_path):
    entry = seen(cases, tmp_path)[SetKey("in_domain")][0]
    (entry.folder / "notes.txt").write_text("mine")
    assert clean(tmp_path).entries == 2
    assert entry.folder.is_dir()


def test_a_read_only_store_with_raw_images_is_only_read(cases, tmp_path, reads, monkeypatch):
    seen(cases, tmp_path)
    monkeypatch.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(PermissionError()))
    monkeypatch.setattr(np, "save", lambda *_: sys.exit("written"))
    assert seen(cases, tmp_path)[SetKey("in_domain", "gibbs", 4)][0].shown().image.shape == (
        1,
        8,
        16,
        16,
    )
    assert len(reads) == 3
