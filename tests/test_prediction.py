"""Whole predictions from files to files: geometry, formats, failures, restarts and ensembles."""

import contextlib
import csv
import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import highdicom
import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import tifffile
import torch
from conftest import REAL_DATA, TINY_TRAINING, composed, save_nifti
from PIL import Image
from test_images import save_itk, save_series

from segshift import build, evaluation, options
from segshift.cohort import Annotation, Case, read_manifest, write_manifest
from segshift.cohort.checks import load_case
from segshift.cohort.images import read_geometry, read_image, read_label, save_segmentation
from segshift.data.preprocessing import preprocessed_image
from segshift.data.store import store_cases
from segshift.errors import InputError
from segshift.inference import Slab, predict_case
from segshift.plan.content import Normalisation
from segshift.postprocessing import Rule, postprocessed
from segshift.prediction import predict, procedure
from segshift.prediction.case import pairwise_dice
from segshift.prediction.drafts import remove_orphans
from segshift.prediction.inputs import cases_of, read_case_image, share_of
from segshift.prediction.outputs import Output
from segshift.prediction.streams import aligned

NAMES = ("box", "core")


def untrained(folder: Path, manifest: Path, *overrides: str) -> Path:
    """A run's folder with a checkpoint of a network that has not learned anything."""
    config = composed(
        *TINY_TRAINING, "data=manifest", f"data.manifest={manifest}", "split=random",
        f"store={folder.parent / 'store'}", *overrides,
    )  # fmt: skip
    parts = build.experiment(config)
    module = build.module_of(parts.config, parts.plan, precision="32-true")
    (folder / "checkpoints").mkdir(parents=True)
    content = {"state_dict": module.state_dict(), "segshift": build.description(parts, images={})}
    torch.save(content, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def run(boxes, tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("runs") / "one", boxes)


@pytest.fixture(scope="module")
def other(boxes, tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("runs") / "two", boxes, "seed=1")


@pytest.fixture(scope="module")
def coarse(boxes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "coarse"
    return untrained(folder, boxes, "seed=2", "plan.spacing_mm=[2,1.5,1.5]")


def predicted(output: Path, *overrides: object) -> list[dict[str, str]]:
    predict(composed(f"output={output}", "precision=32-true", *map(str, overrides), job="predict"))
    return table(output) if (output / "predictions.csv").is_file() else []


def table(output: Path, name: str = "predictions.csv") -> list[dict[str, str]]:
    with (output / name).open() as file:
        return list(csv.DictReader(file))


def directly(run: Path, image: np.ndarray, spacing_mm=(1.0, 1.0, 1.0)) -> torch.Tensor:
    """Probabilities (K, D, H, W) of one run on the image's own grid."""
    loaded = build.load(run)
    prepared, box = preprocessed_image(image, loaded.plan, spacing_mm=spacing_mm)
    loaded.module.network.eval()
    with torch.inference_mode():
        return predict_case(
            loaded.module.network, torch.from_numpy(prepared), loaded.plan.view,
            activation=loaded.module.task.activation, shape=image.shape[1:], box=box,
        )  # fmt: skip


def intensities(shape=(9, 14, 17), seed=0) -> np.ndarray:
    """RAS (D, H, W), no axis of which is like another, and none of it zero."""
    return np.random.default_rng(seed).integers(1, 250, shape).astype(np.int16)


def test_what_is_predicted_is_prepared_as_what_is_trained_on(boxes, tmp_path):
    cohort = read_manifest(boxes)
    config = composed(
        *TINY_TRAINING, "data=manifest", f"data.manifest={boxes}", "split=random",
        f"store={tmp_path}", "plan.spacing_mm=[0.7,1.2,1.2]", "plan.interpolation=spline",
    )  # fmt: skip
    plan = build.experiment(config).plan
    (entry,) = store_cases(cohort.cases[:1], plan, folder=tmp_path, quiet=True)
    volume = load_case(cohort.cases[0])
    image, box = preprocessed_image(volume.image, plan, spacing_mm=volume.spacing_mm)
    np.testing.assert_array_equal(image, entry.image())
    assert box == entry.box()


def test_masks_have_the_format_and_the_geometry_of_their_images(run, tmp_path):
    folder, volume = tmp_path / "in", intensities()
    stored = np.ascontiguousarray(volume.transpose(2, 1, 0))  # x, y, z
    save_nifti(folder / "plain.nii.gz", volume)
    turn = np.eye(4)
    angle = math.radians(20)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    turn[:3, 3] = (5.5, -7.25, 30)
    nib.save(nib.Nifti1Image(stored, turn), folder / "oblique.nii.gz")
    flipped = np.diag([-1.0, 1, -1, 1])
    flipped[:3, 3] = (16, 0, 8)
    nib.save(nib.Nifti1Image(stored[::-1, :, ::-1], flipped), folder / "flipped.nii")
    swapped = np.eye(4)[:, [2, 0, 1, 3]]
    save_itk(folder / "nrrd.nrrd", np.ascontiguousarray(stored.transpose(2, 0, 1)), swapped)
    save_itk(folder / "meta.mha", stored, np.eye(4))
    tifffile.imwrite(folder / "tiff.tif", volume.astype(np.uint8), photometric="minisblack")
    lines = predicted(tmp_path / "out", f"checkpoint={run}", f"input={folder}")
    assert [line["status"] for line in lines] == ["done"] * 6
    expected = directly(run, volume[None].astype(np.float32)).argmax(0).numpy()
    assert len(np.unique(expected)) > 1
    for name in ("plain.nii.gz", "oblique.nii.gz", "flipped.nii.gz", "nrrd.nrrd", "meta.mha",
                 "tiff.tif"):  # fmt: skip
        mask = tmp_path / "out" / name
        image = folder / ("flipped.nii" if name.startswith("flipped") else name)
        np.testing.assert_array_equal(read_label(mask), expected)
        np.testing.assert_allclose(read_geometry(mask).affine, read_geometry(image).affine)
    original = nib.load(folder / "flipped.nii")
    np.testing.assert_allclose(nib.load(tmp_path / "out" / "flipped.nii.gz").affine, flipped)
    assert nib.load(tmp_path / "out" / "flipped.nii.gz").shape == original.shape
    values = json.loads((tmp_path / "out" / "structures.json").read_text())["structures"]
    assert values == {"box": 1, "core": 2}
    assert int(lines[0]["box_voxels"]) == (expected == 1).sum()
    assert float(lines[0]["core_volume_ml"]) == pytest.approx((expected == 2).sum() / 1000)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """A manifest of PNGs in colour, and a 2D run made for them."""
    folder = tmp_path_factory.mktemp("pictures")
    cases = []
    for number in range(6):
        picture = np.random.default_rng(number).integers(0, 255, (40, 48, 3)).astype(np.uint8)
        drawn = np.zeros((40, 48), np.uint8)
        drawn[8:30, 8:24], drawn[12:20, 12:20] = 1, 2
        image, label = folder / "images" / f"p{number}.png", folder / f"l{number}.png"
        image.parent.mkdir(exist_ok=True)
        Image.fromarray(picture).save(image)
        Image.fromarray(drawn).save(label)
        cases.append(Case(f"p{number}", f"p{number}", "lab", (image,), Annotation(label, (1, 2))))
    write_manifest(folder / "m.csv", cases, channels=["image"], structures=NAMES)
    return folder, untrained(folder / "run", folder / "m.csv", "model=unet2d", "plan.batch=2")


def test_pictures_get_pictures(coloured, tmp_path):
    folder, run = coloured
    picture = Image.open(folder / "images" / "p0.png")
    Image.fromarray(np.asarray(picture)).save(folder / "images" / "page.tif")
    predicted(tmp_path, f"checkpoint={run}", f"input={folder / 'images'}")
    mask = np.asarray(Image.open(tmp_path / "p0.png"))
    assert mask.shape == (40, 48)
    expected = directly(run, read_image(folder / "images" / "p0.png")).argmax(0)
    np.testing.assert_array_equal(mask, expected[0])
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "page.tif"), mask)


def test_a_manifest_names_its_cases_and_a_broken_line_fails_alone(boxes, run, tmp_path):
    manifest = tmp_path / "m.csv"
    lines = boxes.read_text().replace("images/", f"{boxes.parent}/images/")
    manifest.write_text(lines.replace("labels/", f"{boxes.parent}/labels/") + "bad,p\n")
    with pytest.raises(InputError, match=r"1 case\(s\) were not predicted:\n  bad: "):
        predicted(tmp_path / "out", f"checkpoint={run}", f"input={manifest}")
    assert len(table(tmp_path / "out")) == 12
    assert (tmp_path / "out" / "north-3.nii.gz").is_file()


def test_a_manifest_need_not_say_what_its_labels_mean(boxes, run, tmp_path):
    table = pd.read_csv(boxes, dtype=str).drop(columns="structures")
    table["image"] = [str(boxes.parent / name) for name in table["image"]]
    table["label"] = "labels/missing.nii.gz"  # predicting does not look at it
    table[:2].to_csv(tmp_path / "m.csv", index=False)
    lines = predicted(tmp_path / "out", f"checkpoint={run}", f"input={tmp_path / 'm.csv'}")
    assert [line["status"] for line in lines] == ["done", "done"]


@pytest.mark.parametrize("empty", [False, True])
def test_a_dicom_series_gets_a_segmentation_object_and_nifti(empty, run, tmp_path, monkeypatch):
    volume = intensities()
    stored = np.ascontiguousarray(volume.transpose(2, 1, 0))
    lps = np.diag([1.0, -1, 1, 1])  # rows run from front to back, as scanners have them
    lps[:3, 3] = (3, 20, -4)
    save_series(tmp_path / "in" / "head", stored[:, ::-1], lps)
    if empty:
        monkeypatch.setattr(procedure, "postprocessed", lambda labels, *_, **__: labels * 0)
    predicted(tmp_path / "out", f"checkpoint={run}", f"input={tmp_path / 'in'}")
    mask = read_label(tmp_path / "out" / "head.nii.gz")
    expected = directly(run, volume[None].astype(np.float32)).argmax(0).numpy() * (not empty)
    np.testing.assert_array_equal(mask, expected)
    made = highdicom.seg.segread(tmp_path / "out" / "head.dcm")
    assert [made.get_segment_description(n).segment_label for n in (1, 2)] == list(NAMES)
    whole = made.get_volume(combine_segments=False)
    assert made.PatientID == "P1"
    for number in (1, 2):
        inside = np.argwhere(whole.array[..., number - 1])
        places = whole.map_indices_to_reference(inside.astype(float)) if len(inside) else inside
        # LPS millimetres to voxels of the RAS array, (x, y, z) with 1 mm and this origin.
        corner = np.array(read_geometry(tmp_path / "out" / "head.nii.gz").affine)[:3, 3]
        voxels = np.rint(places * [-1, -1, 1] - corner).astype(int)
        again = np.zeros_like(mask)
        again[voxels[:, 2], voxels[:, 1], voxels[:, 0]] = 1
        np.testing.assert_array_equal(again, mask == number)


@pytest.mark.parametrize(
    ("names", "codes", "terms"),
    [
        (("left_ventricle_cavity", "left_ventricle_core"), ("left_ventricle_1", "left_ventricle_2"),
         ("left_ventricle_cavity", "left_ventricle_core")),
        (("\u5668\u5b98", "b" * 70), ("\u5668\u5b98", "b" * 16), ("\u5668\u5b98", "b" * 64)),
        (("a\\b", "c"), ("a/b", "c"), ("a/b", "c")),
    ],
)  # fmt: skip
def test_names_of_structures_survive_in_dicom(names, codes, terms, tmp_path):
    stored = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    like = save_series(
        tmp_path / "s", stored, np.eye(4), SpecificCharacterSet="ISO_IR 100", PatientName="J\xe4ger"
    )
    masks = [np.zeros((5, 4, 3), bool)] * 2
    file = tmp_path / "s.dcm"
    save_segmentation(file, masks, names=names, like=like, software="segshift 1")
    made = highdicom.seg.segread(file)
    found = [made.get_segment_description(number) for number in (1, 2)]
    assert tuple(one.segment_label for one in found) == terms
    assert tuple(one.segmented_property_type.value for one in found) == codes
    assert tuple(one.segmented_property_type.meaning for one in found) == terms
    assert str(made.PatientName) == "J\xe4ger"
    with pytest.raises(InputError, match="an empty name"):
        save_segmentation(file, masks, names=("a", " "), like=like, software="segshift 1")


@pytest.mark.parametrize("overlaps", [False, True])
def test_masks_that_do_not_overlap_take_a_byte_a_voxel_in_dicom(overlaps, tmp_path, monkeypatch):
    like = save_series(tmp_path / "s", np.zeros((4, 5, 11), np.int16), np.eye(4))
    masks = np.zeros((10, 11, 5, 4), np.uint8)  # each along z, y, x
    for number, mask in enumerate(masks):
        mask[number : number + 1 + overlaps, 2:4, 1:3] = number != 3
    given = []

    class Spy(highdicom.seg.Segmentation):
        def __init__(self, *, pixel_array, **tags):
            given.append(pixel_array.nbytes)
            super().__init__(pixel_array=pixel_array, **tags)

    monkeypatch.setattr(highdicom.seg, "Segmentation", Spy)
    names = [f"n{number}" for number in range(10)]
    save_segmentation(tmp_path / "s.dcm", masks, names=names, like=like, software="segshift 1")
    assert given == [11 * 5 * 4 * (10 if overlaps else 1)]
    volume = highdicom.seg.segread(tmp_path / "s.dcm").get_volume(combine_segments=False)
    for number, mask in enumerate(masks):
        inside = np.argwhere(volume.array[..., number])
        places = volume.map_indices_to_reference(inside.astype(float)) if len(inside) else inside
        voxels = np.rint(places * [-1, -1, 1]).astype(int)[:, ::-1]  # LPS to RAS, as (z, y, x)
        assert sorted(map(tuple, voxels)) == sorted(map(tuple, np.argwhere(mask)))


@pytest.mark.real_data
def test_a_real_series_is_predicted(run, tmp_path):
    predicted(tmp_path, f"checkpoint={run}", f"input={REAL_DATA / 'dicom' / 'hippocrop'}")
    (nifti,) = tmp_path.glob("*.nii.gz")
    made = highdicom.seg.segread(tmp_path / "hippocrop.dcm")
    found = [(made.get_volume(segment_numbers=[n]).array > 0).sum() for n in (1, 2)]
    assert found == [(read_label(nifti) == n).sum() for n in (1, 2)]


def some(folder: Path, count: int) -> Path:
    for number in range(count):
        save_nifti(folder / f"c{number}.nii.gz", intensities(seed=number))
    return folder


def test_a_broken_file_is_told_and_skipped_and_tried_again(run, tmp_path):
    folder = some(tmp_path / "in", 3)
    whole = (folder / "c1.nii.gz").read_bytes()
    (folder / "c1.nii.gz").write_bytes(whole[:200])
    save_nifti(folder / "nan.nii.gz", np.full((4, 4, 4), np.nan, np.float32))
    options = (f"checkpoint={run}", f"input={folder}")
    with pytest.raises(InputError, match=r"2 case.s. were not") as told:
        predicted(tmp_path / "out", *options)
    assert "c1: " in str(told.value)
    assert "NaN" in str(told.value)
    status = {line["case"]: line["status"] for line in table(tmp_path / "out")}
    assert status == {"c0": "done", "c1": "failed", "c2": "done", "nan": "failed"}
    (folder / "c1.nii.gz").write_bytes(whole)
    (folder / "nan.nii.gz").unlink()
    lines = predicted(tmp_path / "out", *options)
    assert sorted((line["case"], line["status"]) for line in lines) == [
        ("c0", "done"), ("c1", "done"), ("c2", "done")
    ]  # fmt: skip


def test_memory_that_runs_out_and_faults_stop_no_other_case(run, tmp_path, monkeypatch):
    folder, sound = some(tmp_path / "in", 4), procedure.read_case_image

    def read(case, plan):
        if case.id == "c0":
            torch.empty(1 << 60, dtype=torch.uint8)  # what torch raises for it on a CPU
        if case.id == "c1":
            raise KeyError("a fault of the program")
        if case.id == "c3":
            raise OSError
        return sound(case, plan)

    monkeypatch.setattr(procedure, "read_case_image", read)
    options = (f"checkpoint={run}", f"input={folder}")
    with pytest.raises(KeyError):
        predicted(tmp_path / "out", *options)
    lines = {line["case"]: line for line in table(tmp_path / "out")}
    assert [lines[f"c{n}"]["status"] for n in range(4)] == ["failed", "failed", "done", "failed"]
    assert lines["c3"]["message"] == "case 'c3': OSError: OSError"
    assert "out of memory; lower budget_gb" in lines["c0"]["message"]
    (folder / "c1.nii.gz").unlink()
    with pytest.raises(InputError, match=r"2 case\(s\) were not predicted"):
        predicted(tmp_path / "out", *options)


def test_a_failed_case_keeps_no_map(run, tmp_path, monkeypatch):
    folder = some(tmp_path / "in", 1)
    options = (f"checkpoint={run}", f"input={folder}", "uncertainty=true", "probabilities=true")
    predicted(tmp_path / "out", *options)
    assert len(list((tmp_path / "out").rglob("c0*"))) == 4
    foreign = {tmp_path / "out" / name for name in ("c0.png", "c0.dcm", "c0_box.nii.gz")}
    for file in foreign:
        file.write_text("somebody's")
    (folder / "c0.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="were not predicted"):
        predicted(tmp_path / "out", *options)
    assert set((tmp_path / "out").rglob("c0*")) == foreign


@pytest.mark.parametrize("place", ["", "probabilities", "uncertainty"])
def test_an_output_that_holds_what_is_read_is_refused_before_it_is_touched(place, run, tmp_path):
    """A mask would have its image's name; so would one that could not be predicted and goes."""
    top = tmp_path / "scans"
    scans = some(top / place, 1)
    (scans / "broken.nii.gz").write_bytes(b"no image")
    outside = some(tmp_path / "elsewhere", 1) / "c0.nii.gz"
    (tmp_path / "link.nii.gz").symlink_to(scans / "c0.nii.gz")
    series = save_series(top / "head", intensities((3, 4, 5)).T.copy(), np.eye(4))
    columns = "id,patient,site,image,label\n"
    lines = {
        "image.csv": f"{columns}b,p,s,{scans}/broken.nii.gz,\n",
        "label.csv": f"{columns}mine,p,s,{outside},{top}/mine.nii.gz\n",
    }
    for name, text in lines.items():
        (tmp_path / name).write_text(text)
    (top / "mine.nii.gz").write_text("a label, drawn by hand")
    before = {file: file.read_bytes() for file in top.rglob("*") if file.is_file()}
    tried = [(source, top) for source in (
        scans / "c0.nii.gz", scans / "broken.nii.gz", *(tmp_path / name for name in lines),
        tmp_path / "link.nii.gz",
    )]  # fmt: skip
    for source, output in (*tried, (next(series.iterdir()), series)):
        with pytest.raises(InputError, match="name another output folder"):
            predicted(output, f"checkpoint={run}", f"input={source}", "overwrite=true")
    assert {file: file.read_bytes() for file in top.rglob("*") if file.is_file()} == before


def test_lines_of_older_tables_and_images_that_cannot_be_read(run, tmp_path, capsys):
    """A line without the column `input` is predicted again; what is not there is not another."""
    folder, out = some(tmp_path / "in", 2), tmp_path / "out"
    pd.DataFrame(predicted(out, f"checkpoint={run}", f"input={folder}")).drop(
        columns=["input", "masks"]
    ).to_csv(out / "predictions.csv", index=False)
    lines = predicted(out, f"checkpoint={run}", f"input={folder}")
    assert all(line["input"] and line["masks"] == f"{line['case']}.nii.gz" for line in lines)
    (tmp_path / "m.csv").write_text(f"id,patient,site,image,label\nc0,p,s,{folder}/c0.nii.gz,\n")
    (folder / "c0.nii.gz").unlink()
    with pytest.raises(InputError, match="were not predicted"):
        predicted(out, f"checkpoint={run}", f"input={tmp_path / 'm.csv'}")
    assert "again:" not in capsys.readouterr().out
    assert not (out / "c0.nii.gz").exists()


def test_another_image_of_the_same_name_is_predicted(run, tmp_path, capsys):
    for site, seed in (("a", 0), ("b", 1)):
        for number in range(2 if site == "a" else 1):
            save_nifti(tmp_path / site / f"c{number}.nii.gz", intensities(seed=seed + 7 * number))
    out = tmp_path / "out"
    predicted(out, f"checkpoint={run}", f"input={tmp_path / 'a'}")
    before = read_label(out / "c0.nii.gz")
    capsys.readouterr()
    lines = predicted(out, f"checkpoint={run}", f"input={tmp_path / 'b'}")
    told = capsys.readouterr().out
    assert "1 case(s), 0 done before" in told
    assert "again:     1 case(s), whose images are not those that were predicted" in told
    assert sorted(line["case"] for line in lines) == ["c0", "c1"]
    expected = directly(run, intensities(seed=1)[None].astype(np.float32)).argmax(0).numpy()
    np.testing.assert_array_equal(read_label(out / "c0.nii.gz"), expected)
    assert (before != expected).any()


def test_of_another_model_nothing_stays(boxes, run, tmp_path):
    regions = untrained(
        tmp_path / "run", boxes, "task=regions", "task.regions={all:[box,core],core:[core]}",
        "loss=sigmoid_focal",
    )  # fmt: skip
    folder, out = some(tmp_path / "in", 2), tmp_path / "out"
    maps = ("uncertainty=true", "probabilities=true")
    predicted(out, f"checkpoint={regions}", f"input={folder}", *maps)
    assert len(list(out.rglob("c*.nii.gz"))) == 10
    for mine in ("mine.txt", "c0.png", "c0_all.mha"):
        (out / mine).write_text("a file of somebody else")
    only = f"input={folder / 'c0.nii.gz'}"
    for missing in (False, True):  # a folder without its record is no folder of this model
        if missing:
            (out / "structures.json").unlink()
        with pytest.raises(InputError, match="another model"):
            predicted(out, f"checkpoint={run}", only)
        predicted(out, f"checkpoint={run}", only, "overwrite=true")
        assert sorted(path.name for path in out.rglob("*") if path.is_file()) == [
            "c0.nii.gz", "c0.png", "c0_all.mha", "mine.txt", "predictions.csv", "predictions.lock",
            "structures.json",
        ]  # fmt: skip


def test_drafts_of_killed_processes_are_removed(tmp_path):
    program = f"""
import os, signal
from pathlib import Path
from segshift.prediction.drafts import drafts
with drafts(Path({str(tmp_path)!r}), (2, 2, 2), {{"entropy": 1}}):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    (orphan,) = tmp_path.iterdir()
    elsewhere = tmp_path / ".drafts-another.host-1-x"
    elsewhere.mkdir()
    alive = tmp_path / orphan.name.replace(orphan.name.split("-")[-2], str(os.getppid()))
    alive.mkdir()
    remove_orphans(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([elsewhere, alive])


def test_a_restart_goes_on_where_it_stopped(run, other, tmp_path, monkeypatch):
    folder, read = some(tmp_path / "in", 3), []
    sound = procedure.read_case_image
    monkeypatch.setattr(
        procedure, "read_case_image", lambda case, plan: read.append(case.id) or sound(case, plan)
    )
    options = (f"checkpoint={run}", f"input={folder}")

    def read_by(*more: object) -> list[str]:
        read.clear()
        predicted(tmp_path / "out", *options, *more)
        return list(read)

    assert read_by() == ["c0", "c1", "c2"]
    before = (tmp_path / "out" / "c0.nii.gz").read_bytes()
    assert read_by() == []
    (tmp_path / "out" / "c1.nii.gz").unlink()  # as if it had been stopped before
    assert read_by() == ["c1"]
    assert sorted(line["case"] for line in table(tmp_path / "out")) == ["c0", "c1", "c2"]
    assert (tmp_path / "out" / "c0.nii.gz").read_bytes() == before
    assert read_by("uncertainty=true") == ["c0", "c1", "c2"]  # maps are missing
    assert read_by("overwrite=true") == ["c0", "c1", "c2"]
    with pytest.raises(InputError, match="holds predictions of another model"):
        predicted(tmp_path / "out", f"checkpoint={other}", f"input={folder}")
    assert not list((tmp_path / "out").glob(".*"))


def test_a_killed_run_leaves_no_half_mask(run, tmp_path, monkeypatch):
    folder = some(tmp_path / "in", 1)
    monkeypatch.setattr(nib, "save", lambda image, path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predicted(tmp_path / "out", f"checkpoint={run}", f"input={folder}")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "predictions.csv", "predictions.lock", "structures.json"
    ]  # fmt: skip


def test_shards_share_the_work(run, tmp_path):
    folder = some(tmp_path / "in", 3)
    options = (f"checkpoint={run}", f"input={folder}", "shard=2/2")
    out = f"output={tmp_path / 'out'}"
    predict(composed(*options, out, "precision=32-true", job="predict"))
    assert [line["case"] for line in table(tmp_path / "out", "predictions-2-of-2.csv")] == ["c1"]
    assert len(predicted(tmp_path / "out", *options[:2])) == 2  # the rest


def test_shards_that_start_together_wait_for_each_other(tmp_path):
    (tmp_path / "structures.json").write_text('{"structures": {"old": 1}}')
    (tmp_path / "predictions.csv").write_text("case,status,old_voxels,masks\nz,done,1,z.nii.gz\n")
    (tmp_path / "z.nii.gz").touch()
    one, two = (
        Output(tmp_path, NAMES, True, {}, table=f"predictions-{n}-of-2.csv") for n in (1, 2)
    )

    def second():
        with two.locked():
            two.start({}, overwrite=True)
            two.begin({"a", "b"})

    thread = threading.Thread(target=second)
    with one.locked():
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
        one.start({}, overwrite=True)
        one.begin({"c"})
        (one.folder / "c.nii.gz").touch()
    thread.join(10)
    one.add({"case": "c", "status": "done", "masks": "c.nii.gz"})
    assert list(two.lines()) == ["c"]
    assert [path.name for path in tmp_path.glob("*.nii.gz")] == ["c.nii.gz"]


def test_the_folder_is_held_from_its_model_to_its_tables(run, tmp_path, monkeypatch):
    held = []

    def holds(step):
        def spied(output, *given, **more):
            with (
                (output.folder / "predictions.lock").open("a") as lock,
                pytest.raises(BlockingIOError),
            ):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.append(step.__name__)
            return step(output, *given, **more)

        return spied

    for name in ("start", "begin"):
        monkeypatch.setattr(Output, name, holds(getattr(Output, name)))
    predicted(tmp_path / "out", f"checkpoint={run}", f"input={some(tmp_path / 'in', 1)}")
    assert held == ["start", "begin"]


def test_a_case_has_one_line_in_all_tables_together(run, tmp_path):
    folder, out = some(tmp_path / "in", 2), tmp_path / "out"
    whole = (folder / "c1.nii.gz").read_bytes()
    (folder / "c1.nii.gz").write_bytes(b"")
    for shard in ("1/2", "2/2"):
        with contextlib.suppress(InputError):
            predicted(out, f"checkpoint={run}", f"input={folder}", f"shard={shard}")
    (folder / "c1.nii.gz").write_bytes(whole)
    for more in ((), ("overwrite=true",)):
        predicted(out, f"checkpoint={run}", f"input={folder}", *more)
        lines = [line for path in out.glob("*.csv") for line in table(out, path.name)]
        assert sorted((line["case"], line["status"]) for line in lines) == [
            ("c0", "done"), ("c1", "done")
        ]  # fmt: skip


def test_shards_are_disjoint_and_complete():
    cases = [Case(f"c{n}", "p", "s", ()) for n in range(10)]
    for of in (1, 3, 11):
        parts = [share_of(cases, f"{i}/{of}") for i in range(1, of + 1)]
        assert sorted(case.id for part in parts for case in part) == [case.id for case in cases]
    for wrong in ("0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(InputError, match="shard="):
            share_of(cases, wrong)


@pytest.mark.parametrize("second", ["other", "coarse"])
def test_an_ensemble_is_the_mean_of_its_networks(second, run, request, tmp_path):
    """Also of networks that see the image on grids of their own. One window shows all of it."""
    second = request.getfixturevalue(second)
    volume, folder = intensities((7, 14, 12)), tmp_path / "in"
    assert np.all(np.array(volume.shape) <= build.load(run).plan.view.patch)
    save_nifti(folder / "c0.nii.gz", volume)
    (line,) = predicted(
        tmp_path / "out", f"checkpoint=[{run},{second}]", f"input={folder}", "probabilities=true",
        "uncertainty=true", "budget_gb=0.1",
    )  # fmt: skip
    image = volume[None].astype(np.float32)
    one, two = (directly(each, image) for each in (run, second))
    mean = ((one + two) / 2).numpy()
    for number, name in enumerate(NAMES, start=1):
        found = read_image(tmp_path / "out" / "probabilities" / f"c0_{name}.nii.gz")[0]
        np.testing.assert_allclose(found, mean[number], atol=1e-3)  # float16
        p, q = one[number].double(), two[number].double()
        dice = 2 * (p * q).sum() / ((p * p).sum() + (q * q).sum())
        assert float(line[f"{name}_predicted_dice"]) == pytest.approx(float(dice), abs=1e-4)
    mask = read_label(tmp_path / "out" / "c0.nii.gz")
    np.testing.assert_array_equal(mask, mean.argmax(0))

    def entropy(p: np.ndarray) -> np.ndarray:
        return -(p * np.log(p)).sum(0) / math.log(3)

    found = read_image(tmp_path / "out" / "uncertainty" / "c0_entropy.nii.gz")[0]
    np.testing.assert_allclose(found, entropy(mean), atol=1e-3)
    inside = entropy(mean)[mask == 1]
    assert float(line["box_entropy"] or "nan") == pytest.approx(
        inside.mean() if inside.size else math.nan, abs=1e-3, nan_ok=True
    )
    between = entropy(mean) - (entropy(one.numpy()) + entropy(two.numpy())) / 2
    found = read_image(tmp_path / "out" / "uncertainty" / "c0_disagreement.nii.gz")[0]
    np.testing.assert_allclose(found, between, atol=1e-3)


def test_networks_of_different_structures_are_no_ensemble(boxes, run, tmp_path):
    other = untrained(tmp_path / "run", boxes, "task=regions", "task.regions={all:[box,core]}")
    with pytest.raises(InputError, match=r"\['all'\].*one task on the same channels"):
        predicted(tmp_path / "out", f"checkpoint=[{run},{other}]", f"input={boxes}")


def test_mirrors_are_members_too(run, tmp_path):
    folder = some(tmp_path / "in", 1)
    (plain,) = predicted(tmp_path / "one", f"checkpoint={run}", f"input={folder}")
    (mirrored,) = predicted(
        tmp_path / "two", f"checkpoint={run}", f"input={folder}", "mirror=[0,1,2]",
        "probabilities=true",
    )  # fmt: skip
    assert plain["predicted_dice"] == ""
    assert 0 < float(mirrored["predicted_dice"]) < 1
    image = intensities()[None].astype(np.float32)
    total = 0
    for axes in ((), (1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3)):
        flipped = np.ascontiguousarray(np.flip(image, axes))
        total = total + directly(run, flipped).flip(axes) / 8
    found = read_image(tmp_path / "two" / "probabilities" / "c0_box.nii.gz")[0]
    np.testing.assert_allclose(found, total[1], atol=0.02)  # padding is not mirrored with it


def test_pairwise_dice_of_hand_made_members():
    """Pairs share 2 of 3, 4 of 4 and 2 of 3 voxels, which are counted together."""
    members = torch.tensor([[1.0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0]]).double()
    of_mean, of_members = members.mean(0).square().sum()[None], members.square().sum()[None] / 3
    (dice,) = pairwise_dice(of_mean, of_members, members=3)
    assert dice == pytest.approx((2 + 4 + 2) / (3 + 4 + 3))
    nothing = torch.zeros(1).double()
    assert math.isnan(*pairwise_dice(nothing, nothing, members=2))
    assert math.isnan(*pairwise_dice(of_mean, of_mean, members=1))


def test_streams_that_are_cut_differently_are_joined():
    whole = torch.rand(2, 3, 7, 2, 2)

    def cut(member: int, edges: tuple[int, ...]):
        for low, high in pairwise(edges):
            yield Slab(low, whole[member, :, low:high], whole[member, 0, low:high])

    parts = list(aligned([cut(0, (0, 3, 7)), cut(1, (0, 2, 3, 6, 7))]))
    assert [slab.start for slabs in parts for slab in slabs] == [0, 0, 2, 2, 3, 3, 6, 6]
    for member, slabs in enumerate(zip(*parts, strict=True)):
        joined = torch.cat([slab.probability for slab in slabs], 1)
        torch.testing.assert_close(joined, whole[member])
        torch.testing.assert_close(torch.cat([slab.doubt for slab in slabs]), whole[member, 0])


def test_regions_have_a_file_each(boxes, tmp_path):
    run = untrained(
        tmp_path / "run", boxes, "task=regions", "task.regions={all:[box,core],core:[core]}",
        "loss=sigmoid_focal",
    )  # fmt: skip
    folder = some(tmp_path / "in", 1)
    (line,) = predicted(tmp_path / "out", f"checkpoint={run}", f"input={folder}")
    found = directly(run, intensities()[None].astype(np.float32)) > 0.5
    for number, name in enumerate(("all", "core")):
        mask = read_label(tmp_path / "out" / f"c0_{name}.nii.gz")
        np.testing.assert_array_equal(mask, found[number])
        assert int(line[f"{name}_voxels"]) == mask.sum()


def test_what_the_run_chose_is_done_to_its_predictions(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    numbers = {"score_before": 0.1, "score_after": 0.2, "patients": 8}
    rule = {"rule": "min_volume_mm3", "value": 1e9, **numbers}
    record = {"rules": {"box": [rule], "core": []}, "reasons": {"core": "why"}}
    (copy / "postprocessing.json").write_text(json.dumps(record))
    folder = some(tmp_path / "in", 1)
    options = (f"checkpoint={copy}", f"input={folder}")
    (raw,) = predicted(tmp_path / "raw", *options, "postprocess=none")
    (done,) = predicted(tmp_path / "out", *options)
    assert int(raw["box_voxels"]) > 0
    assert done["box_voxels"] == "0"
    assert done["core_voxels"] == raw["core_voxels"]
    kept = json.loads((tmp_path / "out" / "structures.json").read_text())["postprocessing"]
    assert kept == {"box": [rule]}


def test_names_of_cases_in_a_folder(tmp_path):
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "scan_2019.png",
                 "scan_2020.png", "sub/c.mha", ".hidden.nii.gz", "out/a.nii.gz"):  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    cases, failed = cases_of(tmp_path, without=tmp_path / "out")
    assert {case.id: len(case.images) for case in cases} == {
        "a": 2, "b": 1, "scan_2019": 1, "scan_2020": 1, "sub-c": 1
    }  # fmt: skip
    assert not failed
    assert [p.name for p in cases[0].images] == ["a_0000.nii.gz", "a_0001.nii.gz"]
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(InputError, match="would both be predicted as 'b'"):
        cases_of(tmp_path, without=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image is in this folder"):
        cases_of(tmp_path / "empty", without=tmp_path / "out")


def test_several_series_in_a_folder_are_cases_of_their_own(tmp_path):
    for name in ("one", "two"):
        save_series(tmp_path / name, intensities((3, 4, 5)).T.copy(), np.eye(4))
    for file in sorted((tmp_path / "two").iterdir()):
        file.rename(tmp_path / "one" / f"two-{file.name}")
    (tmp_path / "one" / "broken.dcm").write_bytes(b"no DICOM")
    cases, _ = cases_of(tmp_path, without=tmp_path / "out")
    assert len(cases) == 3
    assert sum(case.id == "one-broken" for case in cases) == 1


def test_dicom_objects_that_are_no_images_are_left_out(run, tmp_path, capsys):
    """Beside the slices, so that the folder is no single series any more, and in their own."""
    series = save_series(tmp_path / "in" / "s", intensities().T.copy(), np.eye(4))
    one = pydicom.dcmread(next(series.iterdir()))
    for name in ("PixelData", "Rows", "Columns", "ImagePositionPatient"):
        delattr(one, name)
    (tmp_path / "in" / "reports").mkdir()
    for number, kind in enumerate(("SR", "KO")):
        one.Modality, one.SeriesInstanceUID = kind, pydicom.uid.generate_uid()
        one.save_as(tmp_path / "in" / ("s", "reports")[number] / "object")
    one.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    one.save_as(tmp_path / "in" / "DICOMDIR")
    lines = predicted(tmp_path / "out", f"checkpoint={run}", f"input={tmp_path / 'in'}")
    assert [(line["case"], line["status"]) for line in lines] == [("s", "done")]
    told = "left out:  3 DICOM file(s) that are no images (DICOMDIR, KO, SR)"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize("scheme", ["zscore", "clip_global"])
def test_a_ct_of_1000_slices_fits_into_8_gb(scheme, run, tmp_path):
    """Beside 3 GB of budget and 1 GB of program and network, 512x512x1000 voxels may take 15 bytes.

    Measured on fewer, without torch, whose part is the budget's.
    """
    volume = np.random.default_rng(0).integers(0, 100, (80, 100, 100)).astype(np.int16)
    save_nifti(tmp_path / "c.nii.gz", volume)
    rule = Normalisation(scheme, low=1.0, high=90.0, mean=50.0, sd=20.0)
    plan = replace(build.load(run).plan, normalisation=(rule,))
    case = Case("c", "c", "s", (tmp_path / "c.nii.gz",))
    rules = [
        Rule(rule=name, value=None, score_before=0.0, score_after=1.0, patients=8)
        for name in ("largest_component", "fill_holes")
    ]
    tracemalloc.start()
    try:
        image, spacing_mm = read_case_image(case, plan)
        preprocessed_image(image, plan, spacing_mm=spacing_mm)
        _, preparing = tracemalloc.get_traced_memory()
        labels = (image[0] > 50).astype(np.uint8)
        del image
        tracemalloc.reset_peak()
        postprocessed(labels, {"box": tuple(rules)}, spacing_mm, structures=NAMES, exclusive=True)
        _, finishing = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert preparing / volume.size < 15
    assert finishing / volume.size < 15


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("shard=3/2", "shard=3/2"),
        ("overlap=1", "overlap=1: a number from 0 to 0.99"),
        ("overlap=much", "overlap=much: a number from 0 to 0.99"),
        ("budget_gb=x", "budget_gb=x: a number of GB from 0.01"),
        ("budget_gb=inf", "budget_gb=inf: a number of GB from 0.01"),
        ("window_batch=0", "window_batch=0: a whole number of windows from 1, or null"),
        ("mirror=true", "mirror=True: a list of axes"),
        ("mirror=[3]", "out of"),
        ("precision=64-true", "precision=64-true: known are auto"),
        ("postprocess=all", "auto or none"),
        ("input=???", "input is required, a path"),
        ("input=nowhere", "input=nowhere: there is no such"),
        ("checkpoint=nowhere", "there is no checkpoint"),
    ],
)
def test_wrong_options_are_refused(wrong, message, run, boxes, tmp_path):
    with pytest.raises(InputError, match=message):
        predicted(tmp_path / "out", f"checkpoint={run}", f"input={boxes}", wrong)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("prediction.window_batch=a", "window_batch=a: a whole number"),
        ("prediction.mirror=1", "mirror=1: a list of axes"),
        ("checkpoint=[{run},{run}]", "for an ensemble use predict.py"),
    ],
)
def test_wrong_options_of_a_test_are_refused(wrong, message, run, boxes, tmp_path):
    config = composed(
        f"checkpoint={run}", "data=manifest", f"data.manifest={boxes}", wrong.format(run=run),
        job="evaluate",
    )  # fmt: skip
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(config, tmp_path / "out", command="", choices={})


@pytest.mark.parametrize("wrong", ["0.001", "inf"])
def test_a_training_refuses_the_budgets_that_a_prediction_refuses(wrong):
    with pytest.raises(InputError, match=r"prediction\.budget_gb=.*: a number from 0\.01"):
        options.check_options(composed(f"prediction.budget_gb={wrong}"))
