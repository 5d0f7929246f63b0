"""Severities are equal steps of how much an image changes: measured anew on the reference images.

The measure is written here a second time, for MR by its other form, sqrt(2 - 2 r).
"""

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, make_case

from segshift import shifts
from segshift.cohort import write_manifest
from segshift.seeds import generator
from segshift.shifts import STEP, Acquisition, Graded, is_calibrated

SPEC = importlib.util.spec_from_file_location("severities", ROOT / "bench" / "severities.py")
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)

DRAWS = {"mr": 8, "ct": 1, "microscopy": 8}
MEAN_WITHIN = 0.1  # of the target: k-space of 64 lines has no half lines
STEP_WITHIN = 0.2  # of STEP: between the means of two severities
CALIBRATED = [one for one in bench.FAMILIES if one.shift.calibrated]
EVERY = [
    part
    for part in (getattr(shifts, name) for name in shifts.__all__)
    if isinstance(part, type) and issubclass(part, Graded) and part is not Graded
]


def name_of(family) -> str:
    return f"{family.imaging}-{family.shift.name}{'-tissue' * family.by_tissue}"


@pytest.fixture(scope="module")
def references():
    return {name: list(made()) for name, made in bench.REFERENCES.items()}


def changed(family, severity: int, references, draws: int) -> np.ndarray:
    """The change (references, draws) by our own formula."""
    shift = bench.of_severity(family, severity)
    found = np.zeros((len(references), draws))
    for place in np.ndindex(found.shape):
        one, draw = references[place[0]], place[1]
        known = one.acquisition
        acquisition = known if family.by_tissue else Acquisition(known.spacing_mm)
        random = generator(0, "shift", shift.name, one.id, draw)
        made = shift(one.image, acquisition=acquisition, random=random)
        before, after = (image[:, one.body].astype(np.float64) for image in (one.image, made))
        if family.imaging == "mr":
            found[place] = np.sqrt(2 - 2 * np.corrcoef(before.ravel(), after.ravel())[0, 1])
            continue
        if family.imaging == "ct":
            before, after = (np.clip(values, -160, 240) for values in (before, after))
        found[place] = np.linalg.norm(after - before) / np.linalg.norm(before - before.mean())
    return found


@pytest.mark.parametrize("family", CALIBRATED, ids=name_of)
def test_severities_are_equal_steps(family, references):
    draws = DRAWS[family.imaging]
    found = [changed(family, s, references[family.imaging], draws) for s in range(1, 6)]
    means = np.array([each.mean() for each in found])
    targets = STEP * np.arange(1, 6)
    np.testing.assert_allclose(means, targets, rtol=MEAN_WITHIN)
    np.testing.assert_allclose(np.diff([0, *means]), STEP, rtol=STEP_WITHIN)
    assert np.all(np.diff(found, axis=0) > 0)  # of every image and draw, not only on average


@pytest.mark.parametrize(
    "family", [one for one in bench.FAMILIES if not one.shift.calibrated], ids=name_of
)
def test_what_is_not_calibrated_grows_all_the_same(family, references):
    means = [changed(family, s, references["mr"], 1).mean() for s in range(1, 6)]
    assert np.all(np.diff(means) > 0)
    assert not np.allclose(means, STEP * np.arange(1, 6), rtol=MEAN_WITHIN)


@pytest.mark.parametrize("family", [one for one in CALIBRATED if one.imaging == "mr"], ids=name_of)
def test_other_patients_are_changed_as_much(family, references):
    """The numbers are no property of the four patients that they were found on."""
    site = bench.PHANTOM["cohort"]["sites"]["alpha"]
    assert site["patients"] > 4
    others = list(bench.mr_references(range(11, 15)))
    assert {one.id for one in others}.isdisjoint(one.id for one in references["mr"])
    for severity in (2, 5):
        mean = changed(family, severity, others, DRAWS["mr"]).mean()
        assert mean == pytest.approx(severity * STEP, rel=0.15)


def test_the_calibration_measures_what_it_says(references):
    """Its own function, where the answer is known: an offset of 40 HU, a z-score, an inversion."""
    (one, *_), family = references["ct"], bench.Family(shifts.HounsfieldOffset, 0, 40, imaging="ct")
    shift = bench.of_number(shifts.HounsfieldOffset, 0.0)
    assert bench.changes(shift, [one], family, draws=1) == [0]
    values = np.clip(one.image[:, one.body], -160, 240)
    inside = (values > -100) & (values < 180)
    shift = bench.of_number(shifts.HounsfieldOffset, 40.0)
    (told,) = bench.changes(shift, [one], family, draws=1)
    assert 40 * np.sqrt(inside.mean()) < told * values.std() <= 40
    brain = references["mr"][0]
    scaled = bench.z_scored(3 * brain.image[:, brain.body] + 7)
    np.testing.assert_allclose(scaled, bench.z_scored(brain.image[:, brain.body]), atol=1e-4)
    mirrored = replace(brain, image=brain.image)
    whole = bench.Family(shifts.Inversion, 1, 0)
    assert bench.changes(shifts.Inversion(5), [mirrored], whole, draws=1) == pytest.approx([2])


def test_a_number_is_found_by_bisection_and_not_beyond_what_is_plausible(references):
    family = bench.Family(shifts.Ghosting, 0, 0.4)
    number = bench.number_of(family, references["mr"][:1], 2 * STEP)
    shift = bench.of_number(shifts.Ghosting, number)
    mean = np.mean(bench.changes(shift, references["mr"][:1], family))
    assert mean == pytest.approx(2 * STEP, abs=1e-3)
    mild = replace(family, most=0.01)
    assert bench.number_of(mild, references["mr"][:1], 2 * STEP) is None
    slices = bench.Family(shifts.SliceThickness, 1, 4)
    assert bench.number_of(slices, references["mr"], 5 * STEP) is None  # why it is not ranked


def test_its_table_of_the_images_of_a_manifest(tmp_path, monkeypatch, capsys):
    cases = [make_case(tmp_path, name, shape=(4, 16, 18)) for name in "ab"]
    write_manifest(tmp_path / "m.csv", cases, channels=["mr"], structures=["liver", "tumour"])
    monkeypatch.setattr("sys.argv", ["severities.py", f"--manifest={tmp_path / 'm.csv'}"])
    families = (bench.Family(shifts.Spike, 0, 0.25), *bench.FAMILIES[3:4])  # one needs maps
    monkeypatch.setattr(bench, "FAMILIES", families)
    bench.main()
    head, _, line = capsys.readouterr().out.splitlines()
    assert head == "| images | shift | change at 1 to 5 | least to most at 5 |"
    (_, _, name, means, most, _) = (cell.strip() for cell in line.split("|"))
    assert name == "`spike`"
    found = [float(mean) for mean in means.split(", ")]
    assert found == sorted(found)
    low, high = (float(end) for end in most.split(" to "))
    assert 0 < low <= found[4] <= high


def test_each_graded_shift_is_measured_and_says_whether_it_is_calibrated():
    measured = {family.shift for family in bench.FAMILIES}
    assert set(EVERY) - measured == {shifts.Rotation}  # pixels that move tell nothing
    assert {part.name for part in EVERY if not part.calibrated} == {
        "rotation", "slice_thickness", "inversion"
    }  # fmt: skip
    assert is_calibrated(shifts.Gibbs(2))
    for shift in (shifts.Rotation(2), shifts.Flip(1, ["x"]), shifts.Identity()):
        assert not is_calibrated(shift)


def test_the_page_has_what_the_calibration_measured(references):
    """Of the shifts that draw nothing, one a kind of image."""
    page = (ROOT / "docs" / "shifts.md").read_text()
    for imaging, part in (("mr", shifts.Gibbs), ("ct", shifts.SmoothKernel),
                          ("microscopy", shifts.Blur)):  # fmt: skip
        family = bench.Family(part, 0, 1, imaging=imaging)
        means = [changed(family, s, references[imaging], 1).mean() for s in range(1, 6)]
        told = ", ".join(f"{mean:.3f}" for mean in means)
        assert f"\n| {imaging} | `{part.name}` | {told} |" in page
