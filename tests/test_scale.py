"""Pictures on one scale: by what they show alone, by training references, by a first prediction."""

import csv
import io
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from conftest import REAL_DATA, TINY_TRAINING, composed, make_case, reannotated
from PIL import Image
from scale_inputs import FIELD, LARGE, SMALL, Bright, saved, scene, write_cameras
from store_inputs import plan_for

from segshift import build, evaluation, run
from segshift.cohort import Annotation, read_manifest, write_manifest
from segshift.cohort.checks import check_headers, load_case
from segshift.cohort.images import read_image
from segshift.data.datamodule import CaseDataset
from segshift.data.store import store_cases, store_sets
from segshift.errors import InputError
from segshift.export import export
from segshift.inference import PredictionOptions
from segshift.metrics import Dice
from segshift.module import SegmentationModule
from segshift.plan import (
    Scale,
    Scaled,
    View,
    check_unsized,
    object_px,
    plan_from_dict,
    scaled_by_prediction,
)
from segshift.plan.scale import BEYOND, BY_FIELD, BY_IMAGE, NOTHING, field_of_view
from segshift.prediction import predict
from segshift.report.scale import scale_section
from segshift.results import read_cases
from segshift.shifts import Identity
from segshift.splits import EvaluationSet
from segshift.tasks import Semantic

VALUES = ("field_of_view", "object")
FLAT = {"structures": ("disc",), "dimensions": 2, "normalisation": "rgb"}


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def disc(edge: int, radius: float, centre=(0.5, 0.5), *, height: int | None = None) -> np.ndarray:
    y, x = np.meshgrid(np.arange(height or edge) + 0.5, np.arange(edge) + 0.5, indexing="ij")
    middle = np.array(centre) * (height or edge, edge)
    return np.hypot(y - middle[0], x - middle[1]) < radius


def found(picture: np.ndarray) -> tuple[float, str]:
    """The field of view of a grey picture (H, W)."""
    return field_of_view(picture[None, None].astype(np.float32))


class TestFieldOfView:
    def test_a_disc_on_black_is_as_wide_as_it_was_drawn(self):
        for radius in (45, 60.5, 90):
            assert found(200 * disc(256, radius)) == (pytest.approx(2 * radius, abs=1), BY_FIELD)

    @pytest.mark.parametrize("border", [0, 17, 255])
    def test_a_border_may_have_any_colour(self, border):
        texture = np.random.default_rng(0).integers(90, 160, (256, 256))
        picture = np.where(disc(256, 100), texture, border)
        assert found(picture) == (pytest.approx(200, abs=1), BY_FIELD)

    def test_a_disc_that_is_dim_at_its_margin_is_found_whole(self):
        y, x = np.mgrid[:256, :256] - 127.5
        share = np.hypot(y, x) / 100
        picture = np.where(share < 1, 200 - 140 * share**2, 5)
        assert found(picture) == (pytest.approx(200, abs=1), BY_FIELD)

    @pytest.mark.real_data
    def test_photographs_of_one_camera_have_one_field(self):
        """Of 700 pixels that the slides were scanned to the disc takes about 93 %."""
        folder = REAL_DATA / "vessels" / "images"
        sizes = [field_of_view(read_image(path))[0] for path in folder.glob("stare-*.png")]
        assert sum(size == pytest.approx(650, rel=0.02) for size in sizes) >= 18
        assert len(sizes) == 20

    def test_a_frame_that_cuts_the_disc_off_above_and_below_does_not_change_its_width(self):
        picture = 150 * disc(300, 120, height=200)
        assert found(picture) == (pytest.approx(240, abs=1), BY_FIELD)

    def test_jpeg_noise_and_a_mark_in_a_corner_are_no_field(self):
        texture = np.random.default_rng(0).integers(120, 220, (400, 400, 1)) * [1.0, 0.6, 0.3]
        picture = np.where(disc(400, 170)[..., None], texture, 3).astype(np.uint8)
        picture[:12, :30] = 255
        file = io.BytesIO()
        Image.fromarray(picture).save(file, format="JPEG", quality=60)
        read = np.asarray(Image.open(file)).astype(np.float32)
        size, source = field_of_view(read.transpose(2, 0, 1)[:, None])
        assert source == BY_FIELD
        assert size == pytest.approx(340, rel=0.03)

    @pytest.mark.parametrize("kind", ["noise", "flat", "bar", "cell", "cells", "frame", "vignette"])
    def test_without_one_large_piece_in_a_border_it_is_the_whole_image(self, kind):
        random = np.random.default_rng(0)
        bar = np.where(np.arange(120) < 60, 0, np.ones((90, 1)))
        bar[0, -1] = 0  # or the corners' median is neither
        frame = disc(120, 40, height=90) & ~disc(120, 30, height=90)
        frame[45:48, 80:100] = False  # its hole is not closed
        pictures = {
            "noise": random.integers(0, 255, (90, 120)),
            "flat": np.full((90, 120), 7),
            "bar": bar,
            "cell": disc(120, 12, height=90),
            "cells": disc(120, 26, (0.4, 0.3), height=90) | disc(120, 20, (0.6, 0.8), height=90),
            "frame": frame,
            "vignette": np.exp(-(np.hypot(*np.mgrid[-45:45, -60:60]) ** 2) / 1500),
        }
        assert found(200 * pictures[kind]) == (120.0, BY_IMAGE)

    def test_all_slices_and_channels_of_a_stack_show_one_field(self):
        stack = np.zeros((2, 3, 64, 64), np.float32)
        stack[1, 2] = 50 * disc(64, 25)
        stack[0, 1] = 5 * disc(64, 20)
        assert field_of_view(stack) == (pytest.approx(50, abs=1), BY_FIELD)


class TestObject:
    def test_a_disc_has_the_width_that_its_inner_tenth_tells(self):
        """The share (1 - d/r)^2 is further than d from the edge: 0.1 for d = 0.684 r.

        On a grid the edge is known to a pixel, and there are two.
        """
        for radius in (10, 20, 40):
            assert object_px(disc(128, radius)[None]) == pytest.approx(1.368 * radius, abs=2)

    @pytest.mark.parametrize("factor", [0.5, 2, 4])
    def test_it_grows_with_the_picture(self, factor):
        small, large = disc(128, 20), disc(int(128 * factor), 20 * factor)
        ratio = object_px(large[None]) / object_px(small[None])
        assert ratio == pytest.approx(factor, rel=0.05)

    def test_more_objects_or_a_frame_that_cuts_them_off_do_not_change_it(self):
        one = disc(160, 12, (0.25, 0.25))
        many = np.any([disc(160, 12, (y, x)) for y in (0.25, 0.75) for x in (0.25, 0.7)], axis=0)
        assert object_px(many[None]) == pytest.approx(object_px(one[None]), rel=0.02)
        assert object_px(many[None, :, :112]) == pytest.approx(object_px(one[None]), rel=0.02)

    def test_nothing_specks_and_a_whole_slice_have_no_width(self):
        for mask in (np.zeros((1, 9, 9)), np.ones((1, 9, 9)), np.eye(15)[None]):
            assert object_px(mask > 0) is None

    def test_what_a_first_prediction_cannot_tell_changes_nothing(self):
        scale = Scale("object", 40)
        assert scaled_by_prediction(20, scale) == Scaled(2, "first prediction")
        assert scaled_by_prediction(160, scale).factor == 0.25
        assert scaled_by_prediction(None, scale) == Scaled(1, NOTHING)
        for size in (9.9, 161):
            assert scaled_by_prediction(size, scale) == Scaled(1, BEYOND)


@pytest.fixture
def cameras(tmp_path):
    """The same five scenes by the small and by the large camera."""
    return {
        edge: [saved(tmp_path / str(edge), f"{edge}-{n}", "lab", *scene(edge, n)) for n in range(5)]
        for edge in (SMALL, LARGE)
    }


@pytest.mark.parametrize("crop", ["none", "nonzero"])
def test_two_cameras_of_one_scene_are_stored_alike_by_their_field_of_view(crop, cameras, tmp_path):
    small, large = cameras[SMALL], cameras[LARGE]
    options = {**FLAT, "crop": crop}
    plan = plan_for(small, scale="field_of_view", **options)
    assert plan.scale.typical_px == pytest.approx(2 * FIELD * SMALL, abs=1)
    entries = store_cases([*small, *large], plan, folder=tmp_path / "s", quiet=True)
    plain = store_cases(large, plan_for(small, **options), folder=tmp_path / "s", quiet=True)
    for one, other, unscaled in zip(entries[:5], entries[5:], plain, strict=True):
        assert one.scaled().factor == pytest.approx(1, abs=0.03)
        assert other.scaled() == Scaled(pytest.approx(0.5, abs=0.02), BY_FIELD)
        assert one.image().shape == other.image().shape
        assert np.abs(one.image() - other.image()).mean() < 0.03 * np.ptp(one.image())
        assert (one.label() != other.label()).mean() < 0.02
        assert unscaled.image().shape[2] == pytest.approx(2 * one.image().shape[2], abs=2)
        assert other.reference().shape == (1, LARGE, LARGE)  # scored on the own grid
        assert other.spacing_mm() is None  # which no scale makes known


def test_the_plan_means_the_same_part_of_the_field_for_both_cameras(cameras):
    every = [*cameras[SMALL], *cameras[LARGE]]
    by_small, mixed = (
        plan_for(cases, scale="field_of_view", crop="none", **FLAT)
        for cases in (cameras[SMALL], every)
    )
    shares = [plan.spacing_mm[2] / plan.scale.typical_px for plan in (by_small, mixed)]
    # Of five and five, one in between them.
    assert 1 / LARGE < shares[1] * 2 * FIELD < 1 / SMALL * 1.01
    assert shares[0] * 2 * FIELD == pytest.approx(1 / SMALL, rel=0.03)


def test_a_plan_with_a_scale_survives_json(cameras):
    for by in VALUES:
        plan = plan_for(cameras[SMALL], scale=by, **FLAT)
        assert plan_from_dict(json.loads(json.dumps(asdict(plan)))) == plan
        assert plan.scale.by == by


class TestStoreOfObject:
    def test_references_scale_training_cases_alone(self, cameras, tmp_path):
        small, large = cameras[SMALL], cameras[LARGE]
        plan = plan_for(small, scale="object", **FLAT)
        options = {"folder": tmp_path / "s", "quiet": True}
        learned = store_cases(large, plan, training=True, **options)
        judged = store_cases(large, plan, **options)
        for one, other in zip(learned, judged, strict=True):
            assert one.scaled() == Scaled(pytest.approx(0.5, rel=0.06), "reference")
            assert other.scaled() == Scaled()
            assert one.folder != other.folder

    def test_no_reference_changes_an_image_that_is_judged(self, cameras, tmp_path):
        plan = plan_for(cameras[SMALL], scale="object", **FLAT)
        image, label = scene(LARGE, 0)
        cases = [
            saved(tmp_path / str(n), "c", "lab", image, drawn)
            for n, drawn in enumerate((label, label * 0, np.roll(label, 20), np.eye(LARGE) > 0))
        ]
        entries = [
            store_cases([case], plan, folder=tmp_path / "s", quiet=True)[0] for case in cases
        ]
        module = bright()
        first, *others = [
            module.at_found_scale(CaseDataset([entry], counted=True)[0]) for entry in entries
        ]
        assert first["scaled"].factor == pytest.approx(0.5, rel=0.06)
        for other in others:
            assert torch.equal(first["image"], other["image"])
            assert first["scaled"] == other["scaled"]

    def test_a_training_case_without_object_keeps_its_pixels(self, cameras, tmp_path):
        plan = plan_for(cameras[SMALL], scale="object", **FLAT)
        image, label = scene(LARGE, 0)
        case = saved(tmp_path, "empty", "lab", image, label * 0)
        (entry,) = store_cases([case], plan, folder=tmp_path / "s", training=True, quiet=True)
        assert entry.scaled() == Scaled(1, NOTHING)


def bright() -> SegmentationModule:
    """A module whose network finds the bright disc, in images divided by 255."""
    return SegmentationModule(
        network=Bright(0.6), task=Semantic(structures=["disc"], metrics=[Dice()]), loss=None,
        augment=None, optimizer=None, schedule=None, schedule_interval="step",
        view=View((32, 32)), precision="32-true", prediction=PredictionOptions(),
    )  # fmt: skip


def trained(folder: Path, manifest: Path, *words: str, learning: bool = False) -> Path:
    """A run away from the camera `far`; its network knows what to do, or is to learn it."""
    learns = ("trainer.steps_per_epoch=40", "trainer.epochs=2", "optim.optimizer.lr=0.01")
    config = composed(
        *TINY_TRAINING, *(learns if learning else ()), "model=unet2d", "data=manifest",
        f"data.manifest={manifest}", f"store={folder / 'store'}", "split.held_out=far",
        "plan.normalisation=rgb", "plan.batch=2", "trainer.precision=32-true",
        "task.metrics=[{_target_: segshift.metrics.Dice}]", *words,
    )  # fmt: skip
    if not learning:
        config.model = {"_target_": "scale_inputs.Bright", "threshold": 0.6, "out_channels": "???"}
    run.train(config, folder / "run", command="test", choices={})
    return folder / "run"


def evaluated(folder: Path, checkpoint: Path, manifest: Path, *words: str) -> Path:
    config = composed(
        f"checkpoint={checkpoint}", f"data.manifest={manifest}", "data.sites=[far]",
        f"store={folder.parent / 'store'}", "trainer.precision=32-true", *words, job="evaluate",
    )  # fmt: skip
    evaluation.evaluate(config, folder, command="test", choices={})
    return folder


def predicted(folder: Path, checkpoint: Path | str, source: Path) -> list[dict[str, str]]:
    words = (f"checkpoint={checkpoint}", f"input={source}", f"output={folder}")
    predict(composed(*words, "precision=32-true", job="predict"))
    return table(folder / "predictions.csv")


def shown(folder: Path) -> dict[str, np.ndarray]:
    """The predicted masks of a run's test cases, whole: they have one slice."""
    found = {}
    for path in (folder / "figures/slices").rglob("*.npz"):
        with np.load(path) as arrays:
            found[str(arrays["case"])] = arrays["prediction"]
    return found


def scales(folder: Path) -> dict[str, tuple[float, str]]:
    cases = table(folder / "cases.csv")
    return {line["case"]: (float(line["scale"]), line["scale_from"]) for line in cases}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_cameras(tmp_path_factory.mktemp("cameras"))


@pytest.fixture(scope="module")
def runs(manifest, tmp_path_factory):
    """A run of each value, whose network knows what is bright."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield {
            by: trained(tmp_path_factory.mktemp(by), manifest, f"data.scale={by}") for by in VALUES
        }


class TestRun:
    def test_cases_have_the_scale_that_they_were_predicted_at(self, runs):
        for by, source in zip(VALUES, (BY_FIELD, "first prediction"), strict=True):
            found = scales(runs[by])
            assert sum(case.startswith("far") for case in found) == 3
            for case, (factor, why) in found.items():
                expected = 0.5 if case.startswith("far") else 1
                assert factor == pytest.approx(expected, rel=0.1), case
                assert why == source

    def test_plan_checkpoint_and_page_record_it(self, runs):
        for by, folder in runs.items():
            scale = json.loads((folder / "plan.json").read_text())["scale"]
            assert scale["by"] == by
            assert build.load(folder).plan.scale == Scale(**scale)
            assert f"By {by}, of" in (folder / "report.html").read_text()
            lines = scale_section(folder)["lines"]
            assert [line["set"] for line in lines] == ["in_domain", "site-far"]
            assert float(lines[1]["median"]) == pytest.approx(0.5, rel=0.1)

    def test_masks_and_scores_are_of_the_own_pixels(self, runs, manifest):
        images = {case.id: case for case in read_manifest(manifest).cases}
        for folder in runs.values():
            for case, mask in shown(folder).items():
                label = load_case(images[case]).label == 1
                assert mask.shape == label.shape
                assert (mask ^ label).sum() < 0.1 * label.sum()

    def test_evaluate_and_predict_take_the_run_s_own_scale_and_agree(
        self, runs, manifest, tmp_path
    ):
        for by, checkpoint in runs.items():
            again = evaluated(tmp_path / f"{by}-e", checkpoint, manifest)
            lines = {line["case"]: line for line in predicted(tmp_path / by, checkpoint, manifest)}
            own = {case: s for case, s in scales(checkpoint).items() if case.startswith("far")}
            assert scales(again) == own
            for case, mask in shown(again).items():
                np.testing.assert_array_equal(mask, shown(checkpoint)[case])
                written = np.asarray(Image.open(tmp_path / by / f"{case}.png"))
                assert written.shape == (LARGE, LARGE)
                np.testing.assert_array_equal(written, mask[0])
                assert (float(lines[case]["scale"]), lines[case]["scale_from"]) == own[case]

    def test_each_network_of_an_ensemble_has_its_own_scale(self, runs, manifest, tmp_path):
        lines = predicted(tmp_path, f"[{','.join(map(str, runs.values()))}]", manifest)
        for line in lines:
            assert (line["scale_from_1"], line["scale_from_2"]) == (BY_FIELD, "first prediction")
            expected = 0.5 if line["case"].startswith("far") else 1
            for number in (1, 2):
                assert float(line[f"scale_{number}"]) == pytest.approx(expected, rel=0.1)

    def test_a_run_without_it_has_no_columns_of_it(self, manifest, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(str(Path(__file__).parent))
        plain = trained(tmp_path, manifest)
        assert "scale" not in read_cases(plain / "cases.csv")
        assert "Scale of the pictures" not in (plain / "report.html").read_text()
        assert "scale" not in predicted(tmp_path / "out", plain, manifest)[0]
        with pytest.raises(InputError, match="data.scale=object, but the checkpoint .* with null"):
            evaluated(tmp_path / "e", plain, manifest, "data.scale=object")

    def test_a_picture_without_object_keeps_its_pixels_and_says_so(self, runs, tmp_path):
        dark, flat = np.full((40, 50), 30, np.uint8), np.full((40, 50), 250, np.uint8)
        for name, picture in (("dark", dark), ("flat", flat)):
            Image.fromarray(picture).save(tmp_path / f"{name}.png")
        lines = predicted(tmp_path / "out", runs["object"], tmp_path)
        assert [(line["scale"], line["scale_from"]) for line in lines] == [("1", NOTHING)] * 2

    @pytest.mark.parametrize("by", VALUES)
    def test_export_says_how_to_scale_or_refuses(self, by, runs, tmp_path):
        with pytest.raises(InputError, match=f"data.scale={by}.*--format torch_export or onnx"):
            export(runs[by], tmp_path / "bundle", to="monai_bundle")
        assert not (tmp_path / "bundle").exists()
        export(runs[by], tmp_path / "graph", to="torch_export")
        about = json.loads((tmp_path / "graph" / "preprocessing.json").read_text())
        assert about["plan"]["scale"]["by"] == by
        size = f"{about['plan']['scale']['typical_px']:g} divided by"
        assert sum(size in step for step in about["steps"]) == 1


def deleted(manifest: Path, folder: Path) -> Path:
    """A manifest of the same images that knows no labels."""
    lines = table(manifest)
    folder.mkdir(parents=True)
    with (folder / "m.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "patient", "site", "image", "label"])
        for line in lines:
            image = manifest.parent / line["image"]
            writer.writerow([line["id"], line["patient"], line["site"], image, ""])
    return folder / "m.csv"


OTHERS = {
    "swapped": lambda labels: [*labels[1:], labels[0]],
    "mirrored": lambda labels: [np.ascontiguousarray(label[::-1, ::-1]) for label in labels],
    "larger": lambda labels: [scene(LARGE, 9, radius=0.3)[1] for _ in labels],
}


@pytest.mark.slow
@pytest.mark.parametrize("by", VALUES)
def test_other_references_of_the_test_site_change_no_bit_of_a_prediction(
    by, manifest, tmp_path, no_page
):
    """Of a network that learns, from training to files."""
    words = (f"data.scale={by}", "split.val_fraction=0.2", "split.test_fraction=0.2")
    one = trained(tmp_path / "one", manifest, *words, learning=True)
    before = shown(one)
    assert all(before[case].any() for case in before)
    for case, (factor, _) in scales(one).items():
        assert factor == pytest.approx(0.5 if case.startswith("far") else 1, rel=0.3)
    folder = tmp_path / "out"
    predicted(folder / "plain", one, manifest)
    masks = {path.name: path.read_bytes() for path in (folder / "plain").glob("*.png")}
    assert len(masks) == 9
    sources = {name: write_cameras(tmp_path / name, far_labels=f) for name, f in OTHERS.items()}
    other = trained(tmp_path / "other", sources["larger"], *words, learning=True)
    assert (one / "plan.json").read_text() == (other / "plan.json").read_text()
    weights = [build.load(each).module.state_dict() for each in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    same = [other, *(evaluated(tmp_path / f"{n}-e", one, path) for n, path in sources.items())]
    for each in same:
        for case, mask in shown(each).items():
            np.testing.assert_array_equal(mask, before[case])
        own = scales(each)
        assert own == {case: scale for case, scale in scales(one).items() if case in own}
        assert (each / "rows.csv").read_text() != (one / "rows.csv").read_text()
    sources["deleted"] = deleted(manifest, tmp_path / "deleted")
    for name, path in sources.items():
        predicted(folder / name, one, path)
        for mask, content in masks.items():
            assert (folder / name / mask).read_bytes() == content


@dataclass(frozen=True)
class Darker:
    """Half as bright."""

    name: str = "darker"
    severity: int = 1

    def __call__(self, image, *, acquisition, random):
        return image / 2


@pytest.mark.parametrize("by", VALUES)
def test_under_a_shift_the_scale_is_found_in_what_is_shown(by, cameras, tmp_path):
    """A picture turned dark has no object, and its field is found all the same."""
    plan = plan_for(cameras[SMALL], scale=by, **FLAT)
    case = cameras[LARGE][0]
    sets = [
        EvaluationSet("far", (case,), Identity()), EvaluationSet("far", (case,), Darker())
    ]  # fmt: skip
    stored = store_sets(sets, plan, folder=tmp_path / "s", quiet=True)
    plain, dark = (
        bright().at_found_scale(CaseDataset(entries, counted=True)[0])
        for entries in stored.values()
    )
    assert plain["scaled"].factor == pytest.approx(0.5, rel=0.06)
    assert dark["scaled"] == (plain["scaled"] if by == "field_of_view" else Scaled(1, NOTHING))


class TestRefusals:
    def experiment(self, manifest: Path, *words: str):
        config = composed(
            *TINY_TRAINING, "model=unet2d", "data=manifest", f"data.manifest={manifest}",
            f"store={manifest.parent / 'none'}", "split=random", *words,
        )  # fmt: skip
        return build.experiment(config)

    @pytest.mark.parametrize("value", ["size", "none", "1", "[object]"])
    def test_an_unknown_value_names_the_known_ones(self, value, manifest):
        with pytest.raises(InputError, match=r"data.scale=.*known are field_of_view, object, null"):
            self.experiment(manifest, f"data.scale={value}")

    @pytest.mark.parametrize("by", VALUES)
    def test_a_known_physical_size_decides_already(self, by, tmp_path):
        cases = [make_case(tmp_path, f"c{n}", shape=(1, 32, 32)) for n in range(4)]
        write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["box", "core"])
        with pytest.raises(InputError, match=r"case 'c.'.*is known .*decides its scale already"):
            self.experiment(tmp_path / "m.csv", f"data.scale={by}")

    def test_so_it_does_for_one_test_case_and_for_one_to_predict(self, runs, tmp_path):
        cohort = read_manifest(write_cameras(tmp_path))
        cases = [replace(c, tags={"spacing_mm": "0.1;0.1"} if c.id == "far-1" else {})
                 for c in cohort.cases]  # fmt: skip
        write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["disc"])
        with pytest.raises(InputError, match="case 'far-1'.*is known"):
            self.experiment(
                tmp_path / "m.csv", "split=leave_site_out", "split.held_out=far",
                "data.scale=field_of_view",
            )  # fmt: skip
        with pytest.raises(InputError, match="1 case.*not predicted:\n.*'far-1'.*is known"):
            predicted(tmp_path / "out", runs["object"], tmp_path / "m.csv")
        assert len(list((tmp_path / "out").glob("*.png"))) == 8

    def test_only_pictures_that_nothing_gives_a_size_have_none(self, tmp_path):
        image, label = scene(SMALL, 0)
        picture = replace(saved(tmp_path, "p", "lab", image, label), annotation=Annotation())

        def is_sized(case):
            header = check_headers(case)
            try:
                check_unsized([case], [header])
            except InputError:
                return True
            return False

        assert not is_sized(picture)
        assert is_sized(replace(picture, tags={"spacing_mm": "0.1;0.1"}))
        assert not is_sized(replace(picture, tags={"spacing_mm": " "}))
        nominal = {"spacing_mm": "0.1;0.1", "spacing_known": "false"}
        assert not is_sized(replace(picture, tags=nominal))
        for name, options, sized in (
            ("bare.tif", {}, False),
            ("ome.ome.tif", {"metadata": {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5,
             "PhysicalSizeXUnit": "\u00b5m", "PhysicalSizeYUnit": "\u00b5m"}}, True),
        ):  # fmt: skip
            tifffile.imwrite(tmp_path / name, image, photometric="minisblack", **options)
            assert is_sized(replace(picture, images=(tmp_path / name,))) == sized

    def test_an_object_that_not_every_reference_has_whole(self, cameras, tmp_path):
        case = reannotated(cameras[SMALL][0], values=(1, None))
        with pytest.raises(InputError, match="case '64-0'.*not every one is annotated"):
            plan_for([case], scale="object", **{**FLAT, "structures": ("disc", "other")})

    def test_training_references_without_an_object(self, tmp_path):
        image, label = scene(SMALL, 0)
        cases = [saved(tmp_path, f"c{n}", "lab", image, label * 0) for n in range(2)]
        with pytest.raises(InputError, match="none of the 2 training cases shows an object"):
            plan_for(cases, scale="object", **FLAT)

    def test_a_structure_in_no_region(self, tmp_path):
        image, label = scene(SMALL, 0)
        cases = [saved(tmp_path, f"c{n}", "lab", image, label) for n in range(8)]
        cases = [reannotated(case, values=(1, 2)) for case in cases]
        write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["disc", "rim"])
        words = ("task=regions", "data.scale=object")
        with pytest.raises(InputError, match=r"task.regions has \['rim'\] in no region"):
            self.experiment(tmp_path / "m.csv", *words, "task.regions={a: [disc]}")
        self.experiment(tmp_path / "m.csv", *words, "task.regions={a: [disc, rim], b: [rim]}")
