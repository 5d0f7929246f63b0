"""The same image under two patients' names never crosses a split, whatever its file looks like."""

import gzip
import itertools
import json
from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from conftest import TINY_TRAINING, composed, make_case, reannotated, save_nifti, write_split
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segshift import build, evaluation, run
from segshift.audit import check_manifest
from segshift.cohort import Case, write_manifest
from segshift.cohort.checks import load_case
from segshift.cohort.images import read_image, voxel_hash
from segshift.data import store
from segshift.data.duplicates import LearnedImage, refuse_duplicates, refuse_learned
from segshift.errors import InputError

SHAPE = (8, 16, 16)
SIDES = ("train", "val", "in_domain", "far")
NAMES = [f"{side}-{number}" for side in SIDES for number in range(3)]
RANDOM = np.random.default_rng(3)
VOXELS = RANDOM.integers(-100, 900, SHAPE).astype(np.int16)


def gzipped_anew(folder):
    (path := folder / "a.nii").parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(VOXELS.T, np.eye(4)), path)
    zipped = folder / "a.nii.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes(), compresslevel=1, mtime=7))
    return zipped


def itk(folder, name, *, turned=(1, 1, 1)):
    image = SimpleITK.GetImageFromArray(VOXELS[:: turned[2], :: turned[1], :: turned[0]])
    # ITK counts towards left and posterior.
    image.SetDirection(np.diag(np.array([-1, -1, 1]) * turned).ravel().astype(float).tolist())
    SimpleITK.WriteImage(image, folder / name)
    return folder / name


def as_float(folder):
    return save_nifti(folder / "f.nii.gz", VOXELS.astype(np.float64))


def with_turned_axes(folder):
    """Stored as (y, z, -x) with a header that says so."""
    affine = np.zeros((4, 4))
    affine[1, 0], affine[2, 1], affine[0, 2], affine[3, 3] = 1, 1, -1, 1
    affine[0, 3] = SHAPE[2] - 1
    stored = VOXELS.transpose(1, 0, 2)[:, :, ::-1]
    nib.save(nib.Nifti1Image(stored, affine), folder / "t.nii.gz")
    return folder / "t.nii.gz"


def with_other_spacing(folder):
    return save_nifti(folder / "s.nii.gz", VOXELS, np.diag([0.5, 0.5, 3.0, 1.0]))


def scaled_by_its_header(folder):
    image = nib.Nifti1Image((VOXELS.T + 4) * 2, np.eye(4))
    image.header.set_slope_inter(1, 0)
    nib.save(image, folder / "h.nii")
    content = bytearray((folder / "h.nii").read_bytes())
    content[112:120] = np.array([0.5, -4], "<f4").tobytes()  # scl_slope, scl_inter
    (folder / "h.nii").write_bytes(content)
    return folder / "h.nii"


CONTAINERS = {
    "gzipped anew": gzipped_anew,
    "NRRD": lambda folder: itk(folder, "a.nrrd"),
    "MetaImage": lambda folder: itk(folder, "a.mha"),
    "float": as_float,
    "flipped in file and header": lambda folder: itk(folder, "b.nrrd", turned=(-1, 1, -1)),
    "turned axes": with_turned_axes,
    "another spacing": with_other_spacing,
    "scaled by its header": scaled_by_its_header,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Three patients on each side, and `train-0` of VOXELS."""
    folder = tmp_path_factory.mktemp("home")
    cases = [make_case(folder, name, site=name.split("-")[0], shape=SHAPE) for name in NAMES]
    save_nifti(cases[0].images[0], VOXELS)
    return folder, {case.id: case for case in cases}


def config_of(home, cases, folder, *options):
    """Of a run over these cases, each on the side that its id begins with."""
    folder.mkdir(exist_ok=True)
    # Spacing belongs to image and label, and the twin of another spacing is of its own.
    manifest = folder / "m.csv"
    write_manifest(manifest, cases, channels=["image"], structures=["box", "core"])
    write_split(folder, **{s: [c.id for c in cases if c.id.startswith(s)] for s in SIDES})
    return composed(
        *TINY_TRAINING, "data=manifest", f"data.manifest={manifest}", "model=unet2d",
        f"store={home[0] / 'store'}", "split=from_file", f"split.path={folder / 'split.json'}",
        "plan.batch=2", "selection=source_val", *options,
    )  # fmt: skip


def twin(home, image, name, *, like="train-0", **changes):
    """A further case of the image file, with the label of `like` on the image's own grid."""
    case = home[1][like]
    label = np.array([0, 5, 9], np.uint8)[load_case(case).label]
    drawn = image.with_name(f"{image.name}-label.nii.gz")
    geometry = build.check_headers(
        replace(case, images=(image,), annotation=type(case.annotation)())
    )
    save_nifti(drawn, label, np.array(geometry.affine))
    made = replace(case, id=name, patient=name, site=name.split("-")[0], images=(image,))
    return replace(reannotated(made, label=drawn), **changes)


def stored(config):
    return run.stored(build.experiment(config))


@pytest.mark.parametrize("container", CONTAINERS)
def test_an_image_is_known_in_every_container(container, tmp_path):
    image = read_image(CONTAINERS[container](tmp_path))
    assert voxel_hash(image) == voxel_hash(VOXELS[None]) == voxel_hash(VOXELS[None].astype(float))


def test_another_image_is_another(tmp_path):
    known = {voxel_hash(VOXELS[None])}
    one_voxel = VOXELS.copy()
    one_voxel[3, 4, 5] += 1
    for other in (
        one_voxel,
        VOXELS[:, :, ::-1],
        VOXELS.transpose(0, 2, 1),
        VOXELS.reshape(16, 8, 16),
    ):
        known.add(voxel_hash(np.ascontiguousarray(other)[None]))
    known.add(voxel_hash(np.stack([VOXELS, VOXELS])))
    known.add(voxel_hash(np.stack([VOXELS, one_voxel])))
    known.add(voxel_hash(np.stack([one_voxel, VOXELS])))
    assert len(known) == 8


def test_a_negative_zero_is_a_zero():
    zeros = np.zeros((1, 2, 3, 4), np.float32)
    assert voxel_hash(-zeros) == voxel_hash(zeros)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_twin_across_the_split_is_refused_before_anything_is_trained(container, home, tmp_path):
    case = twin(home, CONTAINERS[container](tmp_path), "far-twin")
    config = config_of(home, [*home[1].values(), case], tmp_path / "run", "trainer.epochs=1")
    with pytest.raises(InputError) as raised:
        run.train(config, tmp_path / "trained", command="test", choices={})
    assert str(raised.value).startswith(
        "case 'train-0' (patient 'train-0', in train) and case 'far-twin' (patient 'far-twin', in "
        "far) have the same voxels: an image may never cross a split; if it is one image, keep one "
        "of its lines in the manifest, or give both the same patient"
    )
    assert not (tmp_path / "trained").exists()


@pytest.mark.parametrize("sides", [*itertools.combinations(SIDES, 2)], ids="-".join)
def test_between_any_two_sides_also_when_all_is_in_the_store(sides, home, tmp_path, monkeypatch):
    one, other = sides
    case = twin(home, gzipped_copy(home, f"{one}-1", tmp_path), f"{other}-twin", like=f"{one}-1")
    config = config_of(home, [*home[1].values(), case], tmp_path / "run")
    told = f"case '{one}-1' .* in {one}\\) and case '{other}-twin' .* in {other}\\)"
    with pytest.raises(InputError, match=told):
        stored(config)
    monkeypatch.setattr(store, "load_case", None)  # nothing is left to be read
    with pytest.raises(InputError, match=told):
        stored(config)


def gzipped_copy(home, name, folder):
    content = gzip.decompress(home[1][name].images[0].read_bytes())
    path = folder / f"copy-of-{name}.nii.gz"
    path.write_bytes(gzip.compress(content, compresslevel=2, mtime=1))
    assert path.read_bytes() != home[1][name].images[0].read_bytes()
    return path


def test_one_other_voxel_is_another_image(home, tmp_path):
    voxels = VOXELS.copy()
    voxels[0, 0, 0] += 1
    case = twin(home, save_nifti(tmp_path / "o.nii.gz", voxels), "far-twin")
    assert stored(config_of(home, [*home[1].values(), case], tmp_path / "run"))


def test_within_one_side_it_is_told(home, tmp_path, capsys):
    case = twin(home, gzipped_anew(tmp_path), "train-twin")
    assert stored(config_of(home, [*home[1].values(), case], tmp_path / "run"))
    out = capsys.readouterr().out
    assert (
        "WARNING: case 'train-0' (patient 'train-0', in train) and case 'train-twin' (patient "
        "'train-twin', in train) have the same voxels; if it is one image"
    ) in out


def test_the_same_case_in_many_sets_and_under_shifts_is_no_twin(home, tmp_path, capsys):
    """Sets that judge the same images again: by another rater, another guideline, corrupted."""
    again = [
        replace(case, tags={"again": str(case.annotation.label), "guideline": "one"})
        for case in home[1].values()
    ]
    other = [
        replace(case, id=f"{case.id}-b", tags={**case.tags, "guideline": "two"}) for case in again
    ]
    for cases, options in (
        (again, ("split=concept", "split.labels=again", "shift=mild")),
        (again, ("split=prevalence", "split.structure=box", "split.prevalence=1.0",
                 "split.held_out=far")),
        ([*again, *other], ("split=concept", "split.column=guideline", "split.trained=one")),
        ([*again, *other], ("split=by_column", "split.column=site", "split.values=far")),
    ):  # fmt: skip
        manifest = tmp_path / "m.csv"
        write_manifest(manifest, cases, channels=["image"], structures=["box", "core"])
        config = composed(
            *TINY_TRAINING, "data=manifest", f"data.manifest={manifest}", "model=unet2d",
            f"store={home[0] / 'store'}", "data.structures={box: 5, core: 9}", *options,
        )  # fmt: skip
        assert stored(config)
        assert "WARNING" not in capsys.readouterr().out


def test_empty_pictures_are_nobodys(tmp_path):
    """Slices of air are alike in all patients."""
    cases = []
    for name in NAMES:
        case = make_case(tmp_path, name, site=name.split("-")[0], shape=(1, 16, 16))
        air = save_nifti(tmp_path / f"air-{name}.nii.gz", np.zeros((1, 16, 16), np.uint8))
        empty = save_nifti(tmp_path / f"none-{name}.nii.gz", np.zeros((1, 16, 16), np.uint8))
        cases += [case, replace(reannotated(case, label=empty), id=f"{name}-air", images=(air,))]
    home = (tmp_path, {})
    assert stored(config_of(home, cases, tmp_path / "run"))


@pytest.mark.parametrize("equal", ["both", "one"])
def test_several_channels_are_one_image_if_all_are_equal(equal, tmp_path):
    random = np.random.default_rng(0)
    cases = []
    for name in NAMES:
        case = make_case(tmp_path, name, site=name.split("-")[0], shape=SHAPE)
        first, second = random.integers(0, 99, (2, *SHAPE)).astype(np.int16)
        if name == "far-2":
            first = cases[0][1][0]
            second = cases[0][1][1] if equal == "both" else second
        channels = np.stack([first.T, second.T], axis=-1)
        nib.save(nib.Nifti1Image(channels, np.eye(4)), case.images[0])
        cases.append((case, (first, second)))
    config = config_of((tmp_path, {}), [case for case, _ in cases], tmp_path / "run")
    if equal == "one":
        assert stored(config)
        return
    with pytest.raises(InputError, match="'train-0' .* and case 'far-2'"):
        stored(config)


def test_pictures_of_two_formats(tmp_path):
    random = np.random.default_rng(0)
    cases = [
        make_case(tmp_path, name, site=name.split("-")[0], shape=(1, 16, 16)) for name in NAMES
    ]
    picture = random.integers(0, 255, (16, 16)).astype(np.uint8)
    for case, suffix in ((cases[0], "png"), (cases[-1], "tif")):
        Image.fromarray(picture).save(tmp_path / f"p.{suffix}")
        label = np.array([0, 5, 9], np.uint8)[load_case(case).label[0]]
        Image.fromarray(label).save(tmp_path / f"p-label.{suffix}")
        place = cases.index(case)
        cases[place] = replace(
            reannotated(case, label=tmp_path / f"p-label.{suffix}"),
            images=(tmp_path / f"p.{suffix}",),
        )
    with pytest.raises(InputError, match="'train-0' .* and case 'far-2'"):
        stored(config_of((tmp_path, {}), cases, tmp_path / "run"))


def test_a_model_is_not_judged_on_an_image_that_it_has_learned(home, tmp_path, no_page):
    config = config_of(home, list(home[1].values()), tmp_path / "run")
    run.train(config, tmp_path / "trained", command="test", choices={})
    images = build.load(tmp_path / "trained").images
    assert images[voxel_hash(VOXELS[None])] == LearnedImage("train-0", "train-0")
    sides = json.loads((tmp_path / "run" / "split.json").read_text())
    assert {image.case for image in images.values()} == {*sides["train"], *sides["val"]}

    def tested(name, *cases):
        manifest = tmp_path / f"{name}.csv"
        write_manifest(manifest, cases, channels=["image"], structures=["box", "core"])
        evaluated = composed(
            "data=manifest", f"data.manifest={manifest}", f"checkpoint={tmp_path / 'trained'}",
            f"store={home[0] / 'store'}", job="evaluate",
        )  # fmt: skip
        evaluation.evaluate(evaluated, tmp_path / name, command="test", choices={})

    other = home[1]["far-0"]
    case = twin(home, itk(tmp_path, "e.nrrd"), "new-twin")
    with pytest.raises(InputError) as raised:
        tested("refused", other, case)
    assert str(raised.value) == (
        "case 'new-twin' (patient 'new-twin', in site-new) has the same voxels as case 'train-0' "
        "(patient 'train-0'), which this model was trained or chosen on; take its line out of the "
        "manifest, or give it the patient 'train-0', whose cases are left out"
    )
    assert not (tmp_path / "refused").exists()
    tested("left out", other, replace(case, patient="train-0"))
    assert "new-twin" not in (tmp_path / "left out" / "rows.csv").read_text()
    again = twin(home, gzipped_copy(home, "far-0", tmp_path), "new-far", like="far-0")
    with pytest.raises(InputError, match="'far-0', in site-far.* and .*'new-far', in site-new"):
        tested("twice", other, again)


def test_the_check_of_a_cohort_finds_the_same(home, tmp_path):
    for container, make in CONTAINERS.items():
        folder = tmp_path / container
        folder.mkdir()
        case = twin(home, make(folder), "far-twin")
        manifest = folder / "m.csv"
        write_manifest(
            manifest, [home[1]["train-0"], case], channels=["image"], structures=["box", "core"]
        )
        kinds = [finding.kind for finding in check_manifest(manifest, allow_outside=True).findings]
        assert kinds.count("duplicate-image") == 1


@dataclass(frozen=True)
class Entry:
    """What is asked of a stored case."""

    case: Case
    hashed: str | None

    def voxels(self):
        return self.hashed


def entry(name, patient, hashed):
    return Entry(Case(name, patient, "site", ()), hashed)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.integers(0, 2), st.sets(st.sampled_from("abc"), min_size=1)
        ),
        max_size=8,
    )
)
def test_as_every_pair_says(drawn):
    """Against all pairs, one by one: of patients, images, and the sets that a case is in."""
    cases = [
        (entry(f"c{i}", f"p{p}", f"h{image}"), sets) for i, (p, image, sets) in enumerate(drawn)
    ]
    sides = {name: [one for one, sets in cases if name in sets] for name in "abc"}
    pairs = [
        sets & others
        for (one, sets), (other, others) in itertools.combinations(cases, 2)
        if one.hashed == other.hashed and one.case.patient != other.case.patient
    ]
    if not all(pairs):
        with pytest.raises(InputError, match="an image may never cross a split"):
            refuse_duplicates(sides)
    else:
        assert bool(refuse_duplicates(sides)) == bool(pairs)


def test_how_many_there_are_is_told_and_thousands_take_no_time():
    many = [entry(f"c{i}", f"p{i}", "alike") for i in range(20_000)]
    with pytest.raises(InputError, match="voxels: an image"):
        refuse_duplicates({"train": many[:10_000], "far": many[10_000:]})
    few = {side: [entry(f"{side}{i}", f"{side}{i}", f"h{i}") for i in range(3)] for side in "ab"}
    with pytest.raises(InputError, match="voxels, and so it is with 2 more: an image"):
        refuse_duplicates(few)
    assert refuse_duplicates({"a": [entry("x", "p", None)], "b": [entry("y", "q", None)]}) == []
    learned = {f"h{i}": LearnedImage(f"l{i}", f"l{i}") for i in range(2)}
    with pytest.raises(InputError, match="chosen on, and so it is with 1 more; take"):
        refuse_learned({"a": few["a"]}, learned)
    refuse_learned({"a": [entry("x", "p", None)]}, learned)
