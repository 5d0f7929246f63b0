"""Ignored voxels and structures that a site did not annotate, from the manifest to the rows."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL_DATA, TINY_TRAINING, composed

from segshift import build, run
from segshift.cohort.checks import IGNORED
from segshift.data.patches import PatchDataset
from segshift.losses import IGNORE
from segshift.results import read_rows

NOT_AT_SOUTH = "data.structures={box: 5, core: {north: 9, south: null}, background: {south: 9}}"
IGNORED_CORE = "data.structures={box: 5, ignore: 9}"


def configured(boxes: Path, folder: Path, *overrides: str):
    return composed(
        *TINY_TRAINING, "data=manifest", f"data.manifest={boxes}", f"store={folder / 'store'}",
        "split=random", *overrides,
    )  # fmt: skip


def stored_train_cases(boxes, folder, rules):
    parts = build.experiment(configured(boxes, folder, rules))
    return parts, run.stored(parts)[0]


def test_ignored_voxels_reach_the_loss_as_such_and_are_no_landmarks(boxes, tmp_path):
    parts, cases = stored_train_cases(boxes, tmp_path, IGNORED_CORE)
    assert parts.plan.structures == ("box",)
    assert sum(parts.plan.structure_frequency) == pytest.approx(1)
    for case in cases:
        assert set(np.unique(case.label())) == {0, 1, IGNORED}
        assert set(case.landmarks()[:, 0]) == {1}
    patches = PatchDataset(cases, parts.plan.view, foreground_share=1.0, seed=0)
    seen = np.unique(np.concatenate([patches[i]["label"].numpy().ravel() for i in range(8)]))
    assert set(seen) == {0, 1, IGNORE}


def test_what_a_site_did_not_draw_is_background_to_the_scores_and_unknown_to_the_loss(
    boxes, tmp_path
):
    _, cases = stored_train_cases(boxes, tmp_path, NOT_AT_SOUTH)
    for case in cases:
        north = case.case.site == "north"
        assert set(np.unique(case.reference())) == ({0, 1, 2} if north else {0, 1})
        assert set(np.unique(case.label())) == ({0, 1, 2} if north else {1, IGNORED})


@pytest.mark.parametrize("task", [(), ("task=regions", "task.regions={box: [box], core: [core]}")])
def test_a_structure_is_scored_only_where_it_was_annotated(boxes, tmp_path, task):
    folder = tmp_path / "run"
    run.train(configured(boxes, tmp_path, NOT_AT_SOUTH, *task), folder, command="test", choices={})
    rows = read_rows(folder / "rows.csv")
    drawn = set(zip(rows["site"], rows["structure"], strict=True))
    assert drawn == {("north", "box"), ("north", "core"), ("south", "box")}
    assert (folder / "report.html").is_file()


@pytest.mark.real_data
@pytest.mark.slow
def test_two_hospitals_with_labels_of_their_own_train_together(tmp_path, no_page):
    """cardiac: the cavity is 3 at dijon and 1 at toronto."""
    folder = tmp_path / "run"
    run.train(
        composed(
            *TINY_TRAINING, "data=manifest", f"data.manifest={REAL_DATA}/cardiac/manifest.csv",
            "data.structures={cavity: {dijon: 3, toronto: 1}, background: {dijon: [1, 2]}}",
            "split=kfold", "split.folds=8", "model=unet2d", f"store={tmp_path / 'store'}",
            "plan.patch=[128,128]", "plan.batch=2",
        ),
        folder, command="test", choices={},
    )  # fmt: skip
    rows = read_rows(folder / "rows.csv")
    assert set(rows["site"]) == {"dijon", "toronto"}
    assert set(rows["structure"]) == {"cavity"}
    assert len(json.loads((folder / "split.json").read_text())["train"]) > 60
