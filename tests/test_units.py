"""Sizes that nobody stated: pixels are called pixels, and what needs a physical size is unknown."""

import contextlib
import csv
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from conftest import TINY_TRAINING, composed, make_case, save_nifti
from PIL import Image
from rich.console import Console
from store_inputs import plan_for, stored
from study_inputs import fill_study

from segshift import build, run
from segshift.announcement import announcement
from segshift.attribution.answers import attributed
from segshift.audit import check_manifest
from segshift.cohort import Annotation, Case, read_manifest
from segshift.cohort.checks import check_headers
from segshift.cohort.fingerprint import read_facts
from segshift.cohort.images import read_geometry, read_label, save_label
from segshift.errors import InputError
from segshift.metrics import (
    AverageSurfaceDistance,
    BoundaryIoU,
    BoundaryOffset,
    FalseAlarmVolume,
    HausdorffDistance,
    HausdorffDistance95,
    LesionF1,
    LesionFalsePositives,
    MaskPair,
    Measure,
    SurfaceDice,
    VolumeDifference,
    measure_of,
)
from segshift.postprocessing import Rule, postprocessed
from segshift.prediction import predict
from segshift.report.cohort_figures import write_cohort_figures
from segshift.report.fingerprint import print_fingerprint
from segshift.report.study import write_study_report
from segshift.results import acquired, of_network, read_measures, read_rows, write_measures
from segshift.splits.mix import prevalence
from segshift.tasks import Semantic
from segshift.units import EVERY, NO_PHYSICAL_SIZE, Grid, Units, mixed_told

PICTURE, VOLUME = (1, 6, 8), (4, 6, 8)
# A unit of length or volume, as a word or at the end of a name; `command` holds none.
PHYSICAL = re.compile(r"(?<![A-Za-z])(mm[23]?|ml|cm[23]?|um)(?![A-Za-z])")


class TestGrid:
    @pytest.mark.parametrize(
        ("shape", "spacing_mm", "length", "size", "of_ten"),
        [
            (PICTURE, (9.0, 0.5, 0.25), "mm", "mm2", 10 * 0.5 * 0.25),  # whatever its thickness
            (PICTURE, None, "px", "px", 10),
            (VOLUME, (5.0, 2.0, 1.0), "mm", "ml", 10 * 10 / 1000),
            (VOLUME, None, "px", "voxels", 10),
            ((6, 1, 8), (5.0, 2.0, 1.0), "mm", "mm2", 10 * 5),  # a coronal slice
        ],
    )
    def test_ten_voxels(self, shape, spacing_mm, length, size, of_ten):
        grid = Grid(shape, spacing_mm)
        assert (grid.units.length, grid.units.size) == (length, size)
        assert grid.size(10) == pytest.approx(of_ten)
        assert grid.edges == (spacing_mm or (1, 1, 1))

    def test_who_is_measured_in_what_is_told_where_it_differs(self):
        assert mixed_told({"a": [True, True], "b": [True]}) == ""
        assert mixed_told({"a": [False], "b": [False]}) == ""
        told = mixed_told({"a": [True, True], "b": [False, True, False]})
        assert told.startswith("no physical size: b 2 of 3 cases; ")


def square(shape: tuple[int, ...], *, at: int, edge: int = 3) -> np.ndarray:
    """A mask of one slice with a square, `at` pixels from the left."""
    mask = np.zeros(shape, bool)
    mask[0, 1 : 1 + edge, at : at + edge] = True
    return mask


class TestMetrics:
    """A square of 3x3 pixels, predicted two pixels further right."""

    pred, ref = square(PICTURE, at=3), square(PICTURE, at=1)

    @pytest.mark.parametrize(
        ("spacing_mm", "unit", "edge_x"), [((1, 0.5, 0.25), "mm", 0.25), (None, "px", 1.0)]
    )
    def test_distances(self, spacing_mm, unit, edge_x):
        pair = MaskPair(self.pred, self.ref, spacing_mm)
        for metric, value in ((HausdorffDistance(), 2), (HausdorffDistance95(), 2)):
            measure = measure_of(metric, pair.units)
            assert (measure.name, measure.unit) == (f"{metric.name}_{unit}", unit)
            assert metric.of(pair) == pytest.approx(value * edge_x)
        # Of either square's outline (8 pixels) 2 lie on the other's, 4 one and 2 two px away.
        names = {
            measure_of(m, pair.units).name for m in (AverageSurfaceDistance(), BoundaryOffset())
        }
        assert names == {f"assd_{unit}", f"boundary_offset_{unit}"}

    def test_the_mean_distance_in_pixels(self):
        moved = np.roll(self.ref, 3, axis=2)  # beside it, so that all distances are whole
        pair = MaskPair(moved, self.ref, None)
        # Columns 4, 5, 6 against an outline at 1 and 3 (and 2 above and below): 3 * (1 + 3),
        # and of the two in the middle column 2 each.
        assert AverageSurfaceDistance().of(pair) == pytest.approx((3 * 1 + 3 * 3 + 2 * 2) / 8)

    @pytest.mark.parametrize(
        ("shape", "spacing_mm", "name", "value"),
        [
            (PICTURE, (7, 0.5, 0.25), "area_difference_mm2", 7 * 0.125),
            (PICTURE, None, "area_difference_px", 7),
            (VOLUME, (2, 5, 10), "volume_difference_ml", 7 * 0.1),
            (VOLUME, None, "volume_difference_voxels", 7),
        ],
    )
    def test_sizes(self, shape, spacing_mm, name, value):
        pred, ref = square(shape, at=0, edge=4), square(shape, at=0)  # 16 and 9 pixels
        pair = MaskPair(pred, ref, spacing_mm)
        assert measure_of(VolumeDifference(), pair.units).name == name
        assert VolumeDifference().of(pair) == pytest.approx(value)
        alarm = MaskPair(pred & ~ref, ref & False, spacing_mm)
        assert measure_of(FalseAlarmVolume(), alarm.units).unit == name.rsplit("_", 1)[1]
        assert FalseAlarmVolume().of(alarm) == pytest.approx(value)

    def test_a_miss_in_a_picture_is_the_diagonal_of_its_pixels(self):
        pair = MaskPair(self.pred & False, self.ref, None)
        assert HausdorffDistance95().of(pair) == pytest.approx(math.hypot(6, 8))

    def test_tolerances_are_in_the_unit_of_the_case(self):
        names = [measure_of(SurfaceDice(tolerance_mm=0.5, tolerance_px=2), u).name for u in EVERY]
        assert set(names) == {"nsd_0.5mm", "nsd_2px"}
        assert measure_of(SurfaceDice(tolerance_mm=2), Units(known=False)).name == "nsd_2px"
        assert measure_of(BoundaryIoU(width_mm=3), Units(known=False)).name == "boundary_iou_3px"
        in_px = MaskPair(self.pred, self.ref, None)
        in_mm = MaskPair(self.pred, self.ref, (1, 1, 0.25))
        metric = SurfaceDice(tolerance_mm=0.5, tolerance_px=1.9)
        assert metric.of(in_mm) == 1
        assert metric.of(in_px) < 1
        with pytest.raises(InputError, match=r"tolerance_px=-1.*a length in px"):
            SurfaceDice(tolerance_mm=1, tolerance_px=-1)

    def test_size_classes_are_of_cases_in_their_unit_alone(self):
        small = LesionF1(size="small", below=10, bounds="px")
        assert small.of(MaskPair(self.ref, self.ref, None)) == 1  # 9 px
        assert math.isnan(small.of(MaskPair(self.ref, self.ref, (1, 1, 1))))  # 9 mm2
        false = LesionFalsePositives(size="small", below=10, bounds="mm2")
        assert false.of(MaskPair(self.ref, self.ref & False, (1, 1, 1))) == 1
        assert math.isnan(false.of(MaskPair(self.ref, self.ref & False, None)))

    def test_a_metric_of_ones_own_says_length_instead_of_mm(self):
        class Millimetres:
            name, unit, better = "mine", "mm", "lower"

        with pytest.raises(InputError, match=r"Millimetres says unit='mm'.*Quantity.LENGTH"):
            measure_of(Millimetres())

    def test_a_task_names_what_it_measures(self):
        task = Semantic(structures=("a",), metrics=(HausdorffDistance95(), VolumeDifference()))
        for known, told in (((1, 1, 1), "hd95_mm"), (None, "hd95_px")):
            label = self.ref.astype(np.uint8)
            scores = task.scores(label, label, known, annotated=(True,))
            found = [score.metric for score in scores]
            assert found[0] == told
            assert set(found) <= set(task.measures)


def picture(folder: Path, name: str, *, edge: int = 16, **saved: object) -> Path:
    """A grey picture with noise."""
    folder.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(len(name)).integers(0, 255, (edge, edge)).astype(np.uint8)
    if name.endswith(".tif"):
        tifffile.imwrite(folder / name, grey, **saved)
    else:
        Image.fromarray(grey).save(folder / name, **saved)
    return folder / name


def case_of(path: Path, **tags: str) -> Case:
    return Case("c", "p", "s", (path,), Annotation(), tags)


class TestReading:
    @pytest.mark.parametrize(
        ("name", "saved"),
        [
            ("i.png", {}),
            ("i.png", {"dpi": (96, 96)}),
            ("i.jpg", {"dpi": (72, 72)}),
            ("i.jpg", {"dpi": (300, 300)}),
            ("i.bmp", {}),
            ("i.tif", {}),
            ("i.tif", {"resolution": (72, 72), "resolutionunit": "INCH"}),
        ],
    )
    def test_dots_per_inch_are_no_size_of_what_is_pictured(self, name, saved, tmp_path):
        path = picture(tmp_path, name, **saved)
        found = check_headers(case_of(path))
        assert not found.spacing_known
        assert (found.known_mm, found.spacing_mm) == (None, (1, 1, 1))
        stated = check_headers(case_of(path, spacing_mm="0.5;0.25"))
        assert stated.known_mm == (0.5, 0.5, 0.25)

    def test_what_a_microscope_declares_is_known(self, tmp_path):
        about = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        path = picture(tmp_path, "i.ome.tif", metadata=about)
        assert check_headers(case_of(path)).known_mm == pytest.approx((5e-4, 5e-4, 5e-4))

    def test_a_volume_says_its_size_and_the_manifest_may_call_it_nominal(self, tmp_path):
        path = save_nifti(
            tmp_path / "i.nii.gz", np.ones((4, 5, 6), np.float32), np.diag([2, 3, 5, 1])
        )
        assert check_headers(case_of(path)).known_mm == (5, 3, 2)
        assert check_headers(case_of(path, spacing_known="TRUE ")).known_mm == (5, 3, 2)
        nominal = check_headers(case_of(path, spacing_known="false"))
        assert (nominal.known_mm, nominal.spacing_mm, nominal.shape) == (None, (1, 1, 1), (4, 5, 6))

    def test_a_nifti_that_nobody_filled_in_states_none(self, tmp_path):
        image = nib.Nifti1Image(np.ones((6, 5, 4), np.float32), None)
        nib.save(image, tmp_path / "i.nii")
        assert not read_geometry(tmp_path / "i.nii").spacing_known
        label = np.ones((4, 5, 6), np.uint8)
        save_label(tmp_path / "o.nii.gz", label, like=tmp_path / "i.nii")
        assert not read_geometry(tmp_path / "o.nii.gz").spacing_known
        np.testing.assert_array_equal(read_label(tmp_path / "o.nii.gz"), label)
        image.header.set_xyzt_units("mm")
        nib.save(image, tmp_path / "mm.nii")
        assert read_geometry(tmp_path / "mm.nii").spacing_known
        stated = check_headers(case_of(tmp_path / "i.nii", spacing_mm="3;2;1"))
        assert stated.known_mm == (3, 2, 1)

    @pytest.mark.parametrize(
        ("field", "known"),
        [
            ("", False),
            ("spacings: nan nan nan\n", False),
            ("spacings: 2 3 5\n", True),
            ("space: RAS\nspace directions: (2,0,0) (0,3,0) (0,0,5)\n", True),
        ],
    )
    def test_nrrd(self, field, known, tmp_path):
        head = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n{field}\n"
        (tmp_path / "i.nrrd").write_bytes(head.encode() + bytes(8))
        assert read_geometry(tmp_path / "i.nrrd").spacing_known == known

    @pytest.mark.parametrize(("field", "known"), [("", False), ("ElementSpacing = 1 1 1\n", True)])
    def test_meta_image(self, field, known, tmp_path):
        head = (
            f"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\n{field}ElementType = MET_UCHAR\n"
            "ElementDataFile = LOCAL\n"
        )
        (tmp_path / "i.mha").write_bytes(head.encode() + bytes(8))
        assert read_geometry(tmp_path / "i.mha").spacing_known == known

    def test_what_itk_writes_is_known(self, tmp_path):
        for name in ("i.nrrd", "i.mha"):
            sitk.WriteImage(
                sitk.GetImageFromArray(np.ones((2, 3, 4), np.uint8)), str(tmp_path / name)
            )
            assert read_geometry(tmp_path / name).spacing_known

    def test_the_column_is_true_false_or_empty(self, tmp_path):
        lines = ["id,patient,site,image,label,structures,spacing_known"]
        lines += [f"c{n},p,s,i.png,i.png,x=1,{v}" for n, v in enumerate(("", "False", "no"))]
        (tmp_path / "m.csv").write_text("\n".join(lines))
        with pytest.raises(InputError, match=r"line 4: column 'spacing_known' is 'no'; it is true"):
            read_manifest(tmp_path / "m.csv")
        (tmp_path / "m.csv").write_text("\n".join(lines[:-1]))
        cases = read_manifest(tmp_path / "m.csv").cases
        assert [case.spacing_known for case in cases] == [None, False]

    def test_true_needs_a_size(self, tmp_path):
        path = picture(tmp_path, "i.png")
        with pytest.raises(InputError, match=r"case 'c': .*spacing_known says true.*spacing_mm"):
            check_headers(case_of(path, spacing_known="true"))
        found = check_headers(case_of(path, spacing_known="true", spacing_mm="2;2"))
        assert found.known_mm == (2, 2, 2)


def nominal(case: Case) -> Case:
    return replace(case, tags={**case.tags, "spacing_known": "false"})


class TestPlansAndStores:
    @pytest.fixture
    def cases(self, tmp_path):
        """Boxes of 8x16x16 voxels of 3x1x1, 3x1x1 and 6x2x2 mm."""
        made = [make_case(tmp_path, f"c{n}") for n in range(3)]
        for case, times in zip(made, (1, 1, 2), strict=True):
            for path in (*case.images, case.annotation.label):
                image = nib.load(path)
                affine = np.diag([times, times, 3 * times, 1])
                nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), path)
        return made

    def test_of_known_sizes_cases_are_resampled_as_ever(self, cases, tmp_path):
        plan = plan_for(cases)
        assert (plan.spacing_mm, plan.spacing_known, plan.length) == ((3, 1, 1), True, "mm")
        entries = stored(cases, tmp_path / "s")
        assert [e.image().shape[1:] for e in entries] == [(8, 16, 16)] * 2 + [(16, 32, 32)]
        assert entries[2].spacing_mm() == (6, 2, 2)

    @pytest.mark.parametrize("unknown", [(0, 1, 2), (2,)])
    def test_with_an_unknown_one_all_are_taken_as_they_are(self, unknown, cases, tmp_path):
        mixed = [nominal(case) if n in unknown else case for n, case in enumerate(cases)]
        plan = plan_for(mixed)
        assert (plan.spacing_mm, plan.spacing_known, plan.length) == ((1, 1, 1), False, "px")
        entries = stored(mixed, tmp_path / "s")
        assert [e.image().shape[1:] for e in entries] == [(8, 16, 16)] * 3
        known_mm = [entry.spacing_mm() for entry in entries]
        assert [each is None for each in known_mm] == [n in unknown for n in range(3)]

    def test_a_case_of_unknown_size_is_not_resampled_to_a_plan_in_mm(self, cases, tmp_path):
        plan = plan_for(cases[:2], spacing_mm=(3, 2, 2))
        assert plan.edges_of(None) == (3, 2, 2)
        assert plan.edges_of((3, 1, 1)) == (3, 1, 1)

    def test_a_spacing_in_mm_is_not_given_to_cases_of_which_some_have_none(self, cases):
        mixed = [*cases[:2], nominal(cases[2])]
        with pytest.raises(InputError, match=r"1 of 3 training cases have no physical size.*'c2'"):
            plan_for(mixed, spacing_mm=(3, 1, 1))

    def test_an_entry_is_of_what_the_column_says(self, cases, tmp_path):
        one, other = (stored([c], tmp_path / "s") for c in (cases[0], nominal(cases[0])))
        assert one[0].folder != other[0].folder


class TestPostprocessing:
    def test_a_least_size_is_of_cases_in_its_unit(self):
        labels = square(PICTURE, at=1).astype(np.uint8)
        rule = {"score_before": 0.5, "score_after": 0.6, "patients": 9}
        for name, spacing_mm, left in (
            ("min_area_mm2", (1, 1, 1), 0),
            ("min_area_mm2", None, 9),
            ("min_area_px", None, 0),
            ("min_area_px", (1, 1, 1), 9),
            ("min_volume_mm3", (1, 1, 1), 9),
        ):
            rules = {"a": (Rule(rule=name, value=10.0, **rule),)}
            after = postprocessed(labels, rules, spacing_mm, structures=("a",), exclusive=True)
            assert after.sum() == left, name


def cameras(folder: Path, *spacings: str, edges: tuple[int, int] = (32, 64)) -> Path:
    """A manifest of pictures by two cameras of which the second has twice the pixels.

    They show the same: a bar of a quarter of the picture. The last picture of each is without.
    """
    folder.mkdir(parents=True)
    lines = ["id,patient,site,image,label,structures,spacing_mm"]
    random = np.random.default_rng(0)
    for place, (site, edge) in enumerate(zip(("north", "south"), edges, strict=True)):
        for number in range(6):
            label = np.zeros((edge, edge), np.uint8)
            if number < 5:
                label[edge // 4 : edge // 2, : edge // 2] = 1
            grey = (100 + 80 * label + random.normal(0, 5, label.shape)).astype(np.uint8)
            name = f"{site}{number}"
            Image.fromarray(grey).save(folder / f"{name}.png", dpi=(96, 96))
            Image.fromarray(label).save(folder / f"{name}-label.png")
            spacing = spacings[place] if spacings else ""
            lines.append(f"{name},{name},{site},{name}.png,{name}-label.png,bar=1,{spacing}")
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return folder / "m.csv"


def words(manifest: Path, folder: Path, *split: str) -> tuple[str, ...]:
    return (
        *TINY_TRAINING, "data=manifest", f"data.manifest={manifest}", "model=unet2d",
        f"store={folder / 'store'}", "trainer.precision=32-true", *split,
    )  # fmt: skip


@pytest.fixture(scope="module", params=["px", "mm", "mixed"])
def finished(request, tmp_path_factory):
    """What is known of the sizes, the manifest, the run's folder and what it printed."""
    place = tmp_path_factory.mktemp(request.param)
    spacings = {"px": (), "mm": ("0.2;0.2", "0.1;0.1"), "mixed": ("0.2;0.2", "")}[request.param]
    manifest = cameras(place / "pictures", *spacings)
    split = ("split=leave_site_out", "split.held_out=south")
    config = composed(*words(manifest, place, *split))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run.train(config, place / "run", command="segshift train", choices={})
    return request.param, manifest, place / "run", out.getvalue()


def text_of(page: str) -> str:
    """What the page says, without pictures, scripts and the run's own config files."""
    for part in ("script", "style", "pre", "svg"):
        page = re.sub(rf"<{part}\b.*?</{part}>", "", page, flags=re.DOTALL)
    return re.sub(r"base64,[A-Za-z0-9+/=]*", "", page)


class TestTwoCameras:
    def test_rows_and_metrics_are_named_by_what_is_known(self, finished):
        kind, _, folder, _ = finished
        rows = read_rows(folder / "rows.csv")
        inside, outside = (set(own["metric"]) for _, own in rows.groupby("set"))
        in_mm = {"hd95_mm", "nsd_2mm", "false_alarm_mm2"}
        in_px = {"hd95_px", "nsd_2px", "false_alarm_px"}
        wanted = {"px": (in_px, in_px), "mm": (in_mm, in_mm), "mixed": (in_mm, in_px)}[kind]
        for found, names in zip((inside, outside), wanted, strict=True):
            assert found & (in_mm | in_px) == names
            assert {"dice", "volume_difference_relative", "false_alarm"} <= found
        measures = read_measures(folder)
        assert set(rows["metric"]) <= set(measures)
        units = {"hd95_mm": "mm", "false_alarm_mm2": "mm2", "hd95_px": "px", "false_alarm_px": "px"}
        assert {n: measures[n].unit for n in units if n in measures} == {
            name: unit for name, unit in units.items() if name in inside | outside
        }
        assert not [name for name in measures if name.endswith("_ml")]

    def test_nothing_that_people_read_has_a_unit_that_nobody_stated(self, finished):
        kind, _, folder, printed = finished
        page = text_of((folder / "report.html").read_text(encoding="utf-8"))
        texts = {"terminal": printed, "report.html": page}
        texts |= {n: (folder / n).read_text() for n in ("rows.csv", "metrics.json", "summary.json")}
        for name, text in texts.items():
            found = set(PHYSICAL.findall(text.replace("_", " ")))
            assert found.isdisjoint({"ml", "mm3", "cm3"}), name
            assert not (kind == "px" and found), (name, found)
        assert kind == "px" or any("mm" in text for text in texts.values())

    def test_values_are_the_sizes_of_the_masks(self, finished):
        kind, _, folder, _ = finished
        rows = acquired(of_network(read_rows(folder / "rows.csv")))
        values = rows.set_index(["metric", "case"])["value"]
        alarms = {"px": ("px", 1), "mm": ("mm2", 0.1**2), "mixed": ("px", 1)}
        unit, pixel = alarms[kind]
        path = folder / "figures/slices/site-south/south5.npz"
        with np.load(path) as arrays:
            predicted = int(arrays["prediction"].sum())
        assert values[f"false_alarm_{unit}", "south5"] == pytest.approx(predicted * pixel)

    def test_sets_that_mix_both_are_told_before_and_after(self, finished):
        kind, _, folder, printed = finished
        told = re.findall(r"no physical size: (.*?) cases", " ".join(printed.split()))
        assert told == (["site-south 6 of 6"] * 2 if kind == "mixed" else [])
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert ("no physical size: site-south" in page) == (kind == "mixed")
        assert ("not resampled to the plan" in printed) == (kind == "mixed")
        assert ("spacing 1x1x1 px" in printed) == (kind == "px")
        assert (f"resolutions differ is {NO_PHYSICAL_SIZE}" in printed) == (kind == "px")

    def test_no_gap_is_between_pixels_and_mm(self, finished):
        kind, _, folder, _ = finished
        summary = json.loads((folder / "summary.json").read_text())
        gaps = {name for name in summary if name.startswith("test/gap/hd95")}
        wanted = {"px": {"test/gap/hd95_px"}, "mm": {"test/gap/hd95_mm"}, "mixed": set()}[kind]
        assert {name for name in gaps if not name.endswith(("_low", "_high"))} == wanted

    def test_the_case_mix_is_unknown_without_a_physical_size(self, finished):
        from segshift.attribution import attribute

        kind, _, folder, _ = finished
        line = attribute(folder).set_index("kind").loc["prevalence"]
        assert (NO_PHYSICAL_SIZE in line["detail"]) == (kind != "mm")
        measurements = pd.read_csv(folder / "measurements.csv")
        sizes = {name.split("/")[0] for name in measurements if "/reference/" in name} - {"count"}
        assert (
            sizes == {"px": {"area_px"}, "mm": {"area_mm2"}, "mixed": {"area_px", "area_mm2"}}[kind]
        )

    def test_predictions_tell_an_area_where_there_is_one(self, finished, tmp_path):
        kind, manifest, folder, _ = finished
        given = (f"checkpoint={folder}", f"input={manifest}", f"output={tmp_path / 'o'}")
        predict(composed(*given, "accelerator=cpu", job="predict"))
        with (tmp_path / "o" / "predictions.csv").open(newline="") as file:
            lines = {line["case"]: line for line in csv.DictReader(file)}
        assert not any("ml" in name for name in lines["north0"])
        for name, edge_mm in (("north0", 0.2), ("south0", 0.1)):
            known = kind == "mm" or (kind == "mixed" and name == "north0")
            area = lines[name].get("bar_area_mm2") or ""
            assert bool(area) == known
            if known:
                voxels = int(lines[name]["bar_voxels"])
                assert float(area) == pytest.approx(voxels * edge_mm**2, rel=1e-5)
        as_they_are = "not resampled" in lines["south0"]["message"]
        assert as_they_are == (kind == "mixed")


def test_a_volume_keeps_mm_and_ml_and_a_nominal_one_has_voxels(boxes, tmp_path, no_page):
    lines = boxes.read_text().splitlines()
    nominal_manifest = boxes.with_name("nominal.csv")
    nominal_manifest.write_text(
        "\n".join([f"{lines[0]},spacing_known", *(f"{line},false" for line in lines[1:])]) + "\n"
    )
    for manifest, wanted, absent in (
        (boxes, {"hd95_mm", "nsd_2mm", "false_alarm_ml"}, {"hd95_px", "false_alarm_voxels"}),
        (nominal_manifest, {"hd95_px", "nsd_2px", "false_alarm_voxels"}, {"hd95_mm", "nsd_2mm"}),
    ):
        folder = tmp_path / manifest.stem
        options = ("data=manifest", f"data.manifest={manifest}", "split=leave_site_out")
        options += ("split.held_out=south", "model=unet3d", f"store={tmp_path / 'store'}")
        config = composed(*TINY_TRAINING, *options)
        run.train(config, folder, command="", choices={})
        found = set(read_rows(folder / "rows.csv")["metric"])
        assert wanted <= found
        assert found.isdisjoint(absent)


class TestCohorts:
    @pytest.fixture
    def mixed(self, tmp_path):
        return cameras(tmp_path / "mixed", "0.2;0.2", "")

    def printed(self, manifest: Path) -> str:
        cohort = read_manifest(manifest)
        console = Console(record=True, width=120, file=io.StringIO())
        print_fingerprint(
            read_facts(cohort.cases, quiet=True), name="n", channels=cohort.channels,
            structures=cohort.structures, console=console,
        )  # fmt: skip
        return console.export_text()

    def test_a_fingerprint_has_a_line_for_each_unit(self, mixed, tmp_path):
        text = self.printed(mixed)
        assert re.search(r"bar, mm2 +5.12 +5.12 +-", text)  # 8 x 16 pixels of 0.2 mm
        assert re.search(r"bar, px +512 +- +512", text)  # 16 x 32 pixels
        assert re.search(r"no physical size +6 of 12 +0 of 6 +6 of 6", text)
        assert "sizes: no physical size: south 6 of 6 cases" in text

    def test_sites_that_are_all_without_a_size_cannot_be_compared(self, tmp_path):
        text = self.printed(cameras(tmp_path / "px"))
        assert NO_PHYSICAL_SIZE in text
        assert not PHYSICAL.search(text)

    def test_figures_are_of_what_is_known(self, mixed, tmp_path):
        for manifest, spacing in ((mixed, True), (cameras(tmp_path / "px"), False)):
            cohort = read_manifest(manifest)
            facts = read_facts(cohort.cases, quiet=True)
            paths = write_cohort_figures(
                facts, tmp_path / "f", channels=("image",), structures=cohort.structures
            )
            names = {path.name for path in paths}
            assert names == {"intensities.png", "areas.png"} | (
                {"spacing.png"} if spacing else set()
            )

    def test_the_audit_tells_of_sites_without_a_size(self, mixed, tmp_path):
        def found(manifest: Path) -> list[tuple[str, str]]:
            findings = check_manifest(manifest).findings
            return [(f.severity, f.site) for f in findings if f.kind == "no-physical-size"]

        assert found(mixed) == [("warning", "south")]
        assert found(cameras(tmp_path / "mm", "1;1", "2;2")) == []
        assert found(cameras(tmp_path / "px")) == [("info", "north"), ("info", "south")]

    def test_a_split_by_ml_says_who_has_none(self, mixed, tmp_path):
        whole = {"seed": 0, "val_fraction": 0.2, "test_fraction": 0.6, "structure": "bar"}
        for manifest, why in ((mixed, r"mm2|no physical size"), (cameras(tmp_path / "px"), "size")):
            with pytest.raises(
                InputError, match=f"split.volume_ml: how many ml.*({why}).*prevalence"
            ):
                prevalence(read_manifest(manifest), volume_ml=0.1, **whole)

    def test_training_cases_of_both_kinds_are_told(self, mixed, tmp_path):
        config = composed(*words(mixed, tmp_path, "split=random"))
        told = announcement(build.experiment(config))
        assert "spacing 1x1x1 px" in told
        assert re.search(r"no physical size: train \d of \d", told)
        assert f"resolutions differ is {NO_PHYSICAL_SIZE}" in told


def test_a_study_of_sites_of_both_kinds_says_so(tmp_path):
    fill_study(tmp_path)
    assert "no physical size" not in write_study_report(tmp_path).read_text(encoding="utf-8")
    rows = pd.read_csv(tmp_path / "rows.csv", dtype="str", keep_default_na=False)
    there = rows["site"] == "bern"
    in_px = {"hd95_mm": "hd95_px", "false_alarm_ml": "false_alarm_voxels"}
    rows.loc[there, "metric"] = rows.loc[there, "metric"].replace(in_px)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    more = Measure("hd95_px", "px", "lower"), Measure("false_alarm_voxels", "voxels", "lower")
    write_measures(tmp_path, [*read_measures(tmp_path).values(), *more])
    page = write_study_report(tmp_path).read_text(encoding="utf-8")
    told = re.findall(r"no physical size: (.*?);", page)
    assert len(told) == 1
    assert "site-bern" in told[0]
    assert "site-arles" not in told[0]
    gaps = pd.read_csv(tmp_path / "gaps.csv").dropna(subset=["gap"])
    assert not gaps[(gaps["metric"] == "hd95_mm") & (gaps["site"] == "bern")].size
    assert not gaps[gaps["metric"] == "hd95_px"].size


def table(set_: str, size: str, *, counts: float = 2.0, patients: int = 12) -> pd.DataFrame:
    """Lines as `measure` makes them, of patients whose structures grow from one to the next."""
    random = np.random.default_rng(len(set_))
    lines = []
    for number in range(patients):
        line = {"set": set_, "case": f"{set_}{number}", "patient": f"{set_}{number}", "site": set_}
        line |= {f"image/0/{i}": random.normal() for i in range(3)}
        for who in ("reference", "predicted"):
            line[f"{size}/{who}/x"] = 100.0 + number + 1000 * (set_ != "in_domain")
            line[f"count/{who}/x"] = counts + (number % 2)
        lines.append(line)
    return pd.DataFrame(lines)


class TestCaseMix:
    """The target has many more pixels, or ml, of the structure; numbers are alike or not."""

    def prevalence(self, home: pd.DataFrame, away: pd.DataFrame) -> pd.Series:
        answers = attributed(pd.concat([home, away]), train="a")
        return answers.set_index("kind").loc["prevalence"]

    @pytest.mark.parametrize(
        ("home", "away", "answer", "said"),
        [
            ("volume_ml", "volume_ml", "yes", "volume of x: median"),
            ("area_mm2", "area_mm2", "yes", " mm2 against "),
            ("area_px", "area_px", "unknown", NO_PHYSICAL_SIZE),
            ("volume_voxels", "volume_voxels", "unknown", NO_PHYSICAL_SIZE),
            ("area_mm2", "area_px", "unknown", NO_PHYSICAL_SIZE),
            ("area_mm2", "volume_ml", "unknown", "measured in ml and mm2"),
        ],
    )
    def test_sizes_are_compared_where_they_are_physical(self, home, away, answer, said):
        line = self.prevalence(table("in_domain", home), table("site-b", away))
        assert line["answer"] == answer
        assert said in line["detail"]
        assert "px" not in line["detail"]

    def test_more_components_are_shown_without_a_size(self):
        home, away = table("in_domain", "area_px"), table("site-b", "area_px", counts=6.0)
        line = self.prevalence(home, away)
        assert line["answer"] == "yes"
        assert line["detail"].startswith("number of x: median 6.5 against 2.5 in in_domain")

    def test_offsets_in_two_units_are_not_compared(self):
        home, away = table("in_domain", "area_mm2"), table("site-b", "area_px")
        home["offset_mm/x"], away["offset_px/x"] = 0.1, 3.0
        answers = attributed(pd.concat([home, away]), train="a").set_index("kind")
        assert answers.loc["concept", "answer"] == "unknown"
        assert NO_PHYSICAL_SIZE in answers.loc["concept", "detail"]
