"""Masks that any software made against references: pairs by name, misses, and a run's own rows."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import ROOT, composed, make_case, save_nifti

from segshift import evaluation
from segshift.cohort import write_manifest
from segshift.cohort.checks import load_case
from segshift.cohort.images import read_label, save_label
from segshift.errors import InputError
from segshift.metrics import (
    Dice,
    HausdorffDistance95,
    LesionFalsePositives,
    RelativeVolumeDifference,
    SurfaceDice,
)
from segshift.results import read_cases, read_rows
from segshift.scoring import pair_files
from segshift.tasks import Semantic

RULES = {"box": 5, "core": 9}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """References of three cases, and predictions that are the same labels a voxel further."""
    for name in ("a", "b", "c"):
        case = make_case(tmp_path, name)
        moved = np.roll(read_label(case.annotation.label), 1, axis=2).astype(np.uint8)
        save_nifti(tmp_path / "predictions" / f"{name}.nii.gz", moved)
    return tmp_path / "predictions", tmp_path / "labels"


def scored(folder: Path, *overrides: str) -> dict[tuple[str, str, str], float]:
    """(case, structure, metric) to value, of the rows of a run of evaluate.py."""
    evaluation.evaluate(composed(*overrides, job="evaluate"), folder, command="test", choices={})
    rows = read_rows(folder / "rows.csv")
    return dict(zip(zip(rows["case"], rows["structure"], rows["metric"]), rows["value"]))  # noqa: B905


def options(predictions: Path, references: Path, *more: str) -> list[str]:
    rules = "structures={box: 5, core: 9}"
    return [f"predictions={predictions}", f"references={references}", rules, *more]


def test_a_missing_prediction_is_a_miss_and_is_said(folders, tmp_path, capsys):
    predictions, references = folders
    (predictions / "b.nii.gz").unlink()
    for patient in ("p8", "p9"):
        save_nifti(predictions / patient / "seg.nii.gz", np.ones((8, 16, 16), np.uint8))
    values = scored(tmp_path / "run", *options(predictions, references))
    assert values["b", "box", "dice"] == values["b", "core", "dice"] == 0
    assert values["b", "box", "hd95_mm"] == pytest.approx(np.hypot(8, np.hypot(16, 16)))
    # 4 x 8 x 8 voxels, of which a column moved out; the core cut 2 x 3 x 3 out of both.
    assert 0.5 < values["a", "box", "dice"] < 1
    assert values["a", "core", "dice"] == pytest.approx(2 / 3)
    printed = capsys.readouterr().out
    assert "WARNING: 1 cases have no prediction and are scored as misses: b\n" in printed
    assert "2 predictions without a reference: p8/seg.nii.gz, p9/seg.nii.gz\n" in printed
    assert "each file counts as a patient" in printed
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["predictions/missing"], summary["predictions/extra"]) == (1, 2)
    assert "report.html" in {path.name for path in (tmp_path / "run").iterdir()}


def test_names_are_matched_without_suffix_channel_and_folder(folders, tmp_path):
    predictions, references = folders
    (predictions / "a.nii.gz").rename(predictions / "a_0000.nii.gz")
    (predictions / "deeper").mkdir()
    (predictions / "b.nii.gz").rename(predictions / "deeper" / "b.nii.gz")
    raw = nib.load(predictions / "c.nii.gz")
    nib.save(raw, predictions / "c.nii")  # another format of the same
    (predictions / "c.nii.gz").unlink()
    pairs = pair_files(predictions, references=references, structures=RULES)
    assert not pairs.missing
    assert not pairs.extra
    (predictions / "a.nii.gz").write_bytes((predictions / "a_0000.nii.gz").read_bytes())
    with pytest.raises(InputError, match="'a' has several predictions"):
        pair_files(predictions, references=references, structures=RULES)


def test_values_are_those_of_a_description_beside_the_files(folders):
    predictions, references = folders
    with pytest.raises(InputError, match=r"a.nii.gz holds \[0, 5, 9\]; add structures="):
        pair_files(predictions, references=references)
    labels = {"background": 0, "Box": 5, "core": 9}
    (references.parent / "dataset.json").write_text(json.dumps({"labels": labels}))
    pairs = pair_files(predictions, references=references)
    assert pairs.cohort.structures == ("box", "core")
    ours = {"structures": {"core": 1, "box": 2}}  # as predict.py numbers and describes them
    (predictions / "structures.json").write_text(json.dumps(ours))
    (pair, *_) = pair_files(predictions, references=references).sets["site-labels"]
    assert pair.case.annotation.values == (5, 9)
    assert pair.prediction.annotation.values == (2, 1)
    (predictions / "structures.json").write_text(json.dumps({"structures": {"core": 1}}))
    with pytest.raises(InputError, match=r"have \['box'\] besides"):
        pair_files(predictions, references=references)


def test_a_manifest_gives_sites_rules_and_the_sets_of_a_run(folders, tmp_path):
    predictions, _ = folders
    cases = [make_case(tmp_path, name, site=f"site{name}") for name in "abc"]
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["box", "core"])
    pairs = pair_files(predictions, references=tmp_path / "m.csv")
    assert set(pairs.sets) == {"site-sitea", "site-siteb", "site-sitec"}
    (tmp_path / "cases.csv").write_text(
        "set,case,patient,site\nin_domain,a,a,sitea\nfar,b,b,siteb\n"
    )
    run = tmp_path / "run"
    given = [f"predictions={predictions}", f"references={tmp_path / 'm.csv'}"]
    scored(run, *given, f"cases={tmp_path / 'cases.csv'}")
    assert set(map(tuple, read_rows(run / "rows.csv")[["set", "case"]].to_numpy())) == {
        ("in_domain", "a"),
        ("far", "b"),
    }
    assert sorted(read_cases(run / "cases.csv")["site"]) == ["sitea", "siteb"]


def test_what_nobody_decided_on_and_what_is_not_annotated_is_not_scored(tmp_path):
    case = make_case(tmp_path, "a")
    label = read_label(case.annotation.label).astype(np.uint8)
    label[:, :, :8] = 255
    save_nifti(case.annotation.label, label)
    wrong_there = np.where(label == 255, 5, label).astype(np.uint8)
    save_nifti(tmp_path / "predictions" / "a.nii.gz", wrong_there)
    ignoring = {**RULES, "ignore": 255}
    run = tmp_path / "run"
    rules = "structures={box: 5, core: 9, ignore: 255}"
    given = [f"predictions={tmp_path / 'predictions'}", f"references={tmp_path / 'labels'}"]
    assert scored(run, *given, rules)["a", "box", "dice"] == 1
    partly = {**ignoring, "core": None, "background": 9}
    pairs = pair_files(tmp_path / "predictions", references=tmp_path / "labels", structures=partly)
    assert pairs.sets["site-labels"][0].case.annotation.annotated == (True, False)


def test_files_give_bit_for_bit_the_numbers_of_the_arrays_that_a_run_scores(tmp_path):
    turned = np.array(
        [[-0.7421875, 0.03, 0, 9], [0.02, 0, 0.71, 4], [0, 3.3, 0.01, -7], [0, 0, 0, 1]]
    )
    case = make_case(tmp_path, "a")
    for path in (*case.images, case.annotation.label):
        save_nifti(path, np.asarray(nib.load(path).dataobj).T, turned)
    volume = load_case(case)
    prediction = np.roll(volume.label, 1, axis=1)
    path = tmp_path / "predictions" / "a.nii.gz"
    save_label(path, np.array([0, 5, 9])[prediction], like=case.images[0])
    metrics = [Dice(), HausdorffDistance95(), SurfaceDice(tolerance_mm=2)]
    metrics += [RelativeVolumeDifference(), LesionFalsePositives()]
    task = Semantic(structures=["box", "core"], metrics=metrics)
    scores = task.scores(prediction, volume.label, volume.spacing_mm, annotated=(True, True))
    own = {("a", score.structure, score.metric): score.value for score in scores}
    write_manifest(tmp_path / "m.csv", [case], channels=["image"], structures=["box", "core"])
    for references in (tmp_path / "labels", tmp_path / "m.csv"):
        run = tmp_path / f"run-{references.name}"
        found = scored(run, *options(path.parent, references))
        assert {key: repr(value) for key, value in found.items()} == {
            key: repr(float(value)) for key, value in own.items()
        }


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("shape", ["case 'a'", "(8, 16, 15)", "(8, 16, 16)"]),
        ("affine", ["case 'a'", "lie elsewhere"]),
        ("value", ["case 'a'", "[77]", "in structures, where evaluate.py scores masks"]),
        ("names", ["is named as a case", "'other.nii.gz'", "'a'"]),
        ("folder", ["no folder"]),
    ],
)
def test_what_cannot_be_compared_ends_with_the_case_and_the_reason(
    folders, tmp_path, damage, words
):
    predictions, references = folders
    mask = read_label(predictions / "a.nii.gz").astype(np.uint8)
    affine = np.eye(4)
    if damage == "shape":
        mask = mask[:, :, :15]
    if damage == "affine":
        affine[0, 3] = 50
    if damage == "value":
        mask[0, 0, 0] = 77
    save_nifti(predictions / "a.nii.gz", mask, affine)
    if damage in ("names", "folder"):
        shutil.rmtree(predictions)
    if damage == "names":
        save_nifti(predictions / "other.nii.gz", mask)
    with pytest.raises(InputError) as caught:
        scored(tmp_path / "run", *options(predictions, references))
    assert all(word in str(caught.value) for word in words)


def test_evaluate_says_what_it_needs_at_once(folders, tmp_path):
    predictions, references = folders
    (tmp_path / "elsewhere").mkdir()
    for arguments, word in (
        ([], "checkpoint is required"),
        ([f"predictions={predictions}"], "references is required"),
        ([f"predictions={predictions}", f"references={references}"], "add structures="),
        ([f"predictions={predictions}", "checkpoint=x"], "one of the two"),
    ):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", ROOT / "evaluate.py", *arguments],
            capture_output=True, encoding="utf-8", check=False, cwd=tmp_path / "elsewhere",
        )  # fmt: skip
        *imports, message = done.stderr.rsplit("error: ", 1)
        assert word in message
        assert done.returncode == 1
        assert " torch\n" not in "".join(imports)


def test_what_is_broken_is_left_out_and_told_and_the_rest_is_scored(folders, tmp_path, capsys):
    predictions, references = folders
    mask = read_label(predictions / "a.nii.gz").astype(np.float32)
    mask[0, 0, 0] = np.nan
    save_nifti(predictions / "a.nii.gz", mask)
    (predictions / "b.nii.gz").write_bytes(b"\x1f\x8b and nothing")
    make_case(tmp_path, "d")  # a miss, as before
    with pytest.raises(InputError) as caught:
        scored(tmp_path / "run", *options(predictions, references))
    message = str(caught.value)
    assert message.startswith("2 case(s) were not scored")
    assert "case 'a': " in message
    assert "case 'b': " in message
    assert capsys.readouterr().out.count("failed:    case") == 2
    rows = read_rows(tmp_path / "run" / "rows.csv")
    dice = rows[(rows["metric"] == "dice") & (rows["structure"] == "core")]
    assert dict(zip(dice["case"], dice["value"], strict=True)) == {
        "c": pytest.approx(2 / 3),
        "d": 0,
    }
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    told = [summary[f"predictions/{name}"] for name in ("missing", "extra", "broken")]
    assert told == [1, 0, 2]
    for name in "cd":
        save_nifti(predictions / f"{name}.nii.gz", mask)
    with pytest.raises(InputError, match=r"4 case\(s\) were not scored"):
        scored(tmp_path / "none", *options(predictions, references))
    assert not (tmp_path / "none" / "report.html").exists()


def test_another_patients_mask_is_no_prediction(tmp_path):
    label = read_label(make_case(tmp_path, "a").annotation.label).astype(np.uint8)
    save_nifti(tmp_path / "ref" / "p0" / "seg.nii.gz", label)
    save_nifti(tmp_path / "out" / "p1" / "seg.nii.gz", label)
    with pytest.raises(InputError, match=r"'p1/seg.nii.gz'\] against \['p0-seg'\]"):
        pair_files(tmp_path / "out", references=tmp_path / "ref", structures=RULES)


def test_a_folder_may_be_called_as_it_likes(folders, tmp_path):
    predictions, references = folders
    called = references.rename(tmp_path / "ref+v2;a")
    pairs = pair_files(predictions, references=called, structures=RULES)
    assert list(pairs.sets) == ["site-ref+v2;a"]
    assert pairs.cohort.sites == ("ref+v2;a",)


def test_each_file_is_a_patient_unless_the_cases_of_a_run_tell(folders, tmp_path):
    predictions, references = folders
    (tmp_path / "cases.csv").write_text(
        "set,case,patient,site\nfar,a,ann,bern\nfar,b,ann,bern\nfar,c,bob,bern\n"
    )
    files = {"references": references, "structures": RULES}
    (alone,) = pair_files(predictions, **files).sets.values()
    assert [(pair.case.patient, pair.case.site) for pair in alone] == [
        (name, "labels") for name in "abc"
    ]
    sets = pair_files(predictions, **files, cases=tmp_path / "cases.csv").sets
    told = [(pair.case.id, pair.case.patient, pair.case.site) for pair in sets["far"]]
    assert told == [("a", "ann", "bern"), ("b", "ann", "bern"), ("c", "bob", "bern")]


def test_masks_of_regions_are_refused_by_what_they_are(folders):
    predictions, references = folders
    ours = {"structures": {"organ": 1, "lesion": 1}}  # as predict.py writes it
    (predictions / "structures.json").write_text(json.dumps(ours))
    with pytest.raises(InputError, match=r"task=regions.*checkpoint=RUN"):
        pair_files(predictions, references=references, structures=RULES)


def test_two_metrics_of_one_name_are_refused_before_anything_is_scored(folders, tmp_path):
    dice = "{_target_: segshift.metrics.Dice}"
    with pytest.raises(InputError, match="two are called dice"):
        scored(tmp_path / "run", *options(*folders), f"metrics=[{dice},{dice}]")
    assert not (tmp_path / "run").exists()
