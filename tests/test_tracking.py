"""What Weights & Biases is given: the rows, the figures, and cases whose masks can be toggled."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image
from report_inputs import DICE, EVIL, SITES, STRUCTURES, add_postprocessing, add_raters, fill

from segshift.report import write_report
from segshift.results import read_rows, site_table
from segshift.tracking import log_results


class Recorder:
    """A run of wandb that keeps what it is given."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.log = self.logged.update


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill(tmp_path_factory.mktemp("run"))
    write_report(folder, structures=STRUCTURES, measure=DICE)
    return folder


@pytest.fixture(scope="module")
def recorder(folder: Path) -> Recorder:
    recorder = Recorder()
    log_results(recorder, folder, structures=STRUCTURES, measure=DICE)
    return recorder


def test_every_row_and_every_line_of_the_site_table_is_logged(
    folder: Path, recorder: Recorder
) -> None:
    rows = read_rows(folder / "rows.csv")
    assert recorder.logged["rows"].columns == list(rows.columns)
    assert len(recorder.logged["rows"].data) == len(rows)
    assert recorder.logged["site_table"].columns == list(site_table(rows).columns)
    assert recorder.summary["test/in_domain/dice"] == pytest.approx(0.77)


def test_the_site_table_is_of_the_network_alone_the_rows_are_all(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    plain = site_table(read_rows(folder / "rows.csv"))
    add_raters(folder)
    add_postprocessing(folder)
    write_report(folder, structures=STRUCTURES, measure=DICE)
    recorder = Recorder()
    log_results(recorder, folder, structures=STRUCTURES, measure=DICE)
    assert len(recorder.logged["rows"].data) == len(read_rows(folder / "rows.csv"))
    table = recorder.logged["site_table"]
    dice = [line[table.columns.index("dice")] for line in table.data]
    np.testing.assert_allclose(dice, plain["dice"])


def test_every_figure_is_logged_under_its_name(folder: Path, recorder: Recorder) -> None:
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"sites", "loss", "validation", "reliability-in_domain"} <= names
    assert all(isinstance(recorder.logged[name], wandb.Image) for name in names)


def test_the_cases_of_each_set_and_the_failures_are_images_with_both_masks(
    folder: Path, recorder: Recorder
) -> None:
    assert {name for name in recorder.logged if name.startswith("overlays/")} == {
        f"overlays/{set_}" for set_ in SITES.values()
    }
    assert len(recorder.logged["failures"]) == 6
    best, median, worst = recorder.logged["overlays/site-toronto"]
    assert best._caption == "toronto-0, toronto: best dice 0.6"
    assert (median._caption.split()[2], worst._caption.split()[2]) == ("median", "worst")
    with np.load(folder / "figures/slices/site-toronto/0.npz") as arrays:
        masks = {name: arrays[name] for name in ("prediction", "reference")}
    assert set(best._masks) == set(masks)
    for name, mask in masks.items():
        drawn = np.asarray(Image.open(best._masks[name]._path))
        np.testing.assert_array_equal(drawn, mask[0] + 2 * mask[1])
        labels = best._masks[name]._val["class_labels"]
        assert {key: labels[key] for key in (1, 2)} == {1: "liver", 2: "tumour"}


def test_an_image_is_windowed_to_black_and_white(recorder: Recorder) -> None:
    best = recorder.logged["overlays/in_domain"][0]
    pixels = np.asarray(best.image)
    assert pixels.shape[:2] == (20, 30)
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_failures_are_images_of_the_slice_in_which_most_is_wrong(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    path = folder / "figures/slices/site-bern/6.npz"
    with np.load(path) as arrays:
        content = dict(arrays)
    wrong = {f"wrong_{name}": content[name] for name in ("image", "reference", "prediction")}
    wrong["wrong_reference"] = ~content["reference"]
    np.savez_compressed(path, **content, **wrong)
    recorder = Recorder()
    log_results(recorder, folder, structures=STRUCTURES, measure=DICE)
    seen = {}
    for name in ("failures", "overlays/site-bern"):
        (one,) = [image for image in recorder.logged[name] if EVIL in image._caption]
        seen[name] = np.asarray(Image.open(one._masks["reference"]._path)) > 0
    np.testing.assert_array_equal(seen["overlays/site-bern"], content["reference"].any(0))
    np.testing.assert_array_equal(seen["failures"], wrong["wrong_reference"].any(0))
