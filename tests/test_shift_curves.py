"""Severity curves: by hand, through the summary and the page, and a suite from the command on."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, TINY_PHANTOM, TINY_TRAINING, composed
from report_inputs import DICE, MEASURES, STRUCTURES, fill, write_table
from rich.console import Console
from row_inputs import HD95, row

from segshift import build, run
from segshift.errors import InputError
from segshift.metrics import Measure
from segshift.report import write_report
from segshift.report.shifts import losses_of, print_shifts, shift_figure, shift_section
from segshift.report.study_curves import curves_sentence, most_harmful
from segshift.results import acquired, of_network, read_rows, summarise
from segshift.results.curves import (
    read_corruptions,
    read_curves,
    shift_areas,
    shift_curves,
    shift_losses,
    summarise_shifts,
    write_corruptions,
    write_curves,
)
from segshift.results.names import slice_folder

# Sets as acquired and corrupted: (set, corruption, severity) to the mean Dice of the liver.
Sets = dict[tuple[str, str, int], float]


def under(set_: str, plain: float, **corrupted: dict[int, float]) -> Sets:
    """A set as acquired, and its values by corruption and severity."""
    seen = {
        (set_, name, severity): value
        for name, values in corrupted.items()
        for severity, value in values.items()
    }
    return {(set_, "", 0): plain, **seen}


def rows_of(values: Sets, *, metric="dice", spread=0.0, patients=8) -> pd.DataFrame:
    """Rows of two structures, the second 0.1 lower, of patients around the value of each set."""
    return pd.DataFrame(
        row("r/1", set_, f"c{p}", "dijon", value - 0.1 * number + spread * (p - (patients - 1) / 2),
            patient=f"p{p}", corruption=corruption, severity=severity, structure=structure,
            metric=metric)
        for (set_, corruption, severity), value in values.items()
        for p in range(patients)
        for number, structure in enumerate(STRUCTURES)
    )  # fmt: skip


def curves_of(rows: pd.DataFrame, *, unranked: tuple[str, ...] = ()) -> pd.DataFrame:
    """Of corruptions that are calibrated unless they are named."""
    return shift_curves(rows, calibrated={c: c not in unranked for c in rows["corruption"]})


TESTED = {
    **under("in_domain", 0.9, motion={1: 0.8, 3: 0.6}, rician_noise={1: 0.9, 5: 0.4}),
    **under("site-a+b", 0.5),
    **under("site-oslo", 0.7, motion={1: 0.75, 3: 0.8}),
}


class TestCurves:
    def test_patients_that_failed_stand_beside_the_means(self, tmp_path):
        """One of eight patients is lost at severity 5, in one structure and so in the mean."""
        rows = rows_of(under("in_domain", 0.9, motion={1: 0.8, 5: 0.6}))
        lost = (rows["severity"] == 5) & (rows["patient"] == "p3")
        rows.loc[lost & (rows["structure"] == STRUCTURES[1]), "value"] = 0.05
        both = pd.concat([rows, rows.assign(metric="hd95_mm")])
        write_curves(tmp_path / "shifts.csv", curves_of(both))
        curves = read_curves(tmp_path / "shifts.csv").set_index(["metric", "structure", "severity"])
        counts = curves[["failed_patients", "failed_of"]]
        for structure, failed in ((STRUCTURES[0], 0), (STRUCTURES[1], 1), ("mean", 1)):
            assert counts.loc["dice", structure, 0].tolist() == [0, 8]
            assert counts.loc["dice", structure, 5].tolist() == [failed, 8]
        assert counts.loc["hd95_mm"].isna().all(axis=None)
        (line,) = losses_of(curves.reset_index(), measure=DICE)
        assert line["failed_start"] == "0 of 8 failed: up to 37 %"
        assert line["failed_end"] == "1 of 8 failed: 0 to 53 %"
        assert "failed" not in str(losses_of(curves.reset_index(), measure=HD95)[0]["failed_end"])

    def test_severity_0_is_the_plain_set_and_the_mean_is_that_of_structures(self):
        curves = curves_of(rows_of(TESTED))
        motion = curves[(curves["set"] == "in_domain") & (curves["corruption"] == "motion")]
        means = motion.pivot(index="severity", columns="structure", values="mean")
        assert means.index.tolist() == [0, 1, 3]
        np.testing.assert_allclose(means["liver"], [0.9, 0.8, 0.6])
        np.testing.assert_allclose(means["tumour"], [0.8, 0.7, 0.5])
        np.testing.assert_allclose(means["mean"], [0.85, 0.75, 0.55])
        assert set(zip(curves["set"], curves["corruption"], strict=True)) == {
            ("in_domain", "motion"), ("in_domain", "rician_noise"), ("site-oslo", "motion")
        }  # fmt: skip
        assert (curves["n"] == 8).all()

    @pytest.mark.parametrize("patients", [5, 6])
    def test_intervals_are_those_of_the_summary(self, patients):
        """Fewer than six patients have none."""
        rows = rows_of(TESTED, spread=0.02, patients=patients)
        curves = curves_of(rows)
        assert (curves[["n", "patients"]] == patients).all(axis=None)
        for (corruption, severity), own in rows.groupby(["corruption", "severity"]):
            summary = summarise(own, MEASURES)
            at = curves[(curves["severity"] == severity) & (curves["structure"] == "mean")]
            for line in at.to_dict("records"):
                if corruption in ("", line["corruption"]):
                    key = f"test/{line['set']}/dice"
                    assert line["mean"] == pytest.approx(summary[key])
                    for end in ("low", "high"):
                        told = summary.get(f"{key}_{end}", np.nan)
                        assert line[end] == pytest.approx(told, nan_ok=True)
                    assert (line["low"] < line["mean"] < line["high"]) == (patients == 6)

    def test_a_patient_with_two_cases_weighs_one(self):
        rows = rows_of(under("in_domain", 0.9, motion={5: 0.5}), patients=3)
        rows.loc[rows["case"] == "c1", "patient"] = "p0"
        rows.loc[(rows["severity"] == 5) & (rows["patient"] == "p0"), "value"] -= 0.2
        curves = curves_of(rows)
        liver = curves[curves["structure"] == "liver"].set_index("severity")
        assert liver.loc[5, "mean"] == pytest.approx((0.3 + 0.5) / 2)  # of cases it were 1.1 / 3
        assert liver.loc[5, ["n", "patients"]].tolist() == [3, 2]

    def test_without_shifts_there_is_nothing(self):
        rows = rows_of(under("in_domain", 0.9) | under("site-oslo", 0.8))
        for each in (rows, rows[:0]):
            curves = curves_of(each)
            assert curves.empty
            assert summarise_shifts(curves, MEASURES) == {}
            assert shift_areas(curves, MEASURES).empty

    def test_runs_are_not_pooled(self):
        rows = rows_of(TESTED)
        with pytest.raises(InputError, match="one run"):
            curves_of(pd.concat([rows, rows.assign(run="r/2")]))

    @pytest.mark.parametrize(("patients", "known"), [(1, False), (6, True)])
    def test_the_file_gives_back_the_table(self, tmp_path, patients, known):
        values = under("007", 0.9, motion={1: 0.3})
        curves = curves_of(rows_of(values, patients=patients, spread=0.01))
        write_curves(tmp_path / "shifts.csv", curves)
        again = read_curves(tmp_path / "shifts.csv")
        pd.testing.assert_frame_equal(again, curves, check_dtype=False)
        assert again["set"].tolist() == ["007"] * len(curves)
        assert again["low"].notna().tolist() == [known] * len(curves)


class TestAreas:
    def test_by_hand(self):
        """Lines between what was tested, level beyond it."""
        areas = shift_areas(curves_of(rows_of(TESTED)), MEASURES)
        lines = areas[(areas["set"] == "in_domain") & (areas["structure"] == "mean")]
        assert lines["corruption"].tolist() == ["motion", "rician_noise"]
        motion, noise = lines.to_dict("records")
        assert motion["area"] == pytest.approx((0.8 + 2 * 0.65 + 2 * 0.55) / 5)
        assert motion["loss"] == pytest.approx(0.85 - motion["area"])
        assert (motion["severity"], motion["end"]) == (3, pytest.approx(0.55))
        assert noise["area"] == pytest.approx((0.85 + 4 * (0.85 + 0.35) / 2) / 5)
        oslo = areas[(areas["set"] == "site-oslo") & (areas["structure"] == "mean")]
        assert oslo["loss"].item() < 0  # that hospital's images got easier

    def test_a_flat_curve_loses_nothing_whatever_was_tested(self):
        for severities in ((1,), (5,), (1, 2, 3, 4, 5)):
            values = under("in_domain", 0.7, blur=dict.fromkeys(severities, 0.7))
            areas = shift_areas(curves_of(rows_of(values)), MEASURES)
            np.testing.assert_allclose(areas["loss"], 0, atol=1e-12)

    def test_a_distance_that_grows_is_a_loss(self):
        rows = rows_of(under("in_domain", 2.0, blur={5: 12.0}), metric="hd95_mm")
        areas = shift_areas(curves_of(rows), MEASURES)
        np.testing.assert_allclose(areas["loss"], 5)
        assert summarise_shifts(curves_of(rows), MEASURES)["test/worst_shift/hd95_mm"] == (
            pytest.approx(5)
        )

    def test_signed_and_unknown_metrics_have_no_loss(self):
        """By what they declare, whatever they are called."""
        curves = curves_of(rows_of(under("in_domain", 0.7, blur={5: 0.5}), metric="mine"))
        assert len(curves) == 6
        for better, lost in (("zero", None), ("higher", 0.1), ("lower", -0.1)):
            measures = {"mine": Measure("mine", "", better)}
            areas, summary = shift_areas(curves, measures), summarise_shifts(curves, measures)
            assert areas.empty == (lost is None)
            assert summary.get("test/worst_shift/mine") == (lost and pytest.approx(lost))
        assert shift_areas(curves, MEASURES).empty
        assert summarise_shifts(curves, MEASURES) == {}

    def test_a_structure_without_a_value_has_no_line(self):
        rows = rows_of(TESTED)
        rows.loc[rows["structure"] == "tumour", "value"] = np.nan
        areas = shift_areas(curves_of(rows), MEASURES)
        assert set(areas["structure"]) == {"liver", "mean"}


def test_the_summary_is_the_mean_over_sets_of_what_the_areas_lose():
    summary = summarise_shifts(curves_of(rows_of(TESTED)), MEASURES)
    oslo = 0.65 - (0.675 + 2 * 0.725 + 2 * 0.75) / 5
    motion = (0.85 - 0.64 + oslo) / 2
    assert summary == {
        "test/shift/motion/dice": pytest.approx(motion),
        "test/shift/rician_noise/dice": pytest.approx(0.2),
        "test/worst_shift/dice": pytest.approx(0.2),
    }


def test_what_hurts_most_is_the_same_wherever_it_is_said():
    """Noise has the larger mean loss at the severities that were tested, motion the larger area."""
    values = under("in_domain", 0.9, motion={1: 0.6, 5: 0.9}, noise={5: 0.7})
    curves = curves_of(rows_of(values))
    areas = shift_areas(curves, MEASURES)
    of_means = areas[areas["structure"] == "mean"].set_index("corruption")["loss"]
    assert of_means.to_dict() == pytest.approx({"motion": 0.15, "noise": 0.1})
    losses = shift_losses(areas)
    assert losses["corruption"].tolist() == ["motion", "noise"]
    assert losses["loss"].tolist() == pytest.approx([0.15, 0.1])
    assert losses_of(curves, measure=DICE)[0]["corruption"] == "motion"
    assert most_harmful(areas, measure=DICE) == ["motion", "noise"]
    assert summarise_shifts(curves, MEASURES)["test/worst_shift/dice"] == pytest.approx(0.15)


def test_what_hurts_most_is_so_over_all_sets():
    """In domain it is motion; at bern noise loses so much more that it is the worst of both."""
    values = under("in_domain", 0.9, motion={5: 0.6}, noise={5: 0.8})
    values |= under("site-bern", 0.8, motion={5: 0.7}, noise={5: 0.2})
    curves = curves_of(rows_of(values))
    noise, motion = losses_of(curves, measure=DICE)
    assert (noise["corruption"], motion["corruption"]) == ("noise", "motion")
    assert noise["loss"] == pytest.approx((0.1 + 0.6) / 2 / 2)
    assert (noise["start"], noise["end"]) == (pytest.approx(0.8), pytest.approx(0.45))
    assert noise["n"] == motion["n"] == 16
    summary = summarise_shifts(curves, MEASURES)
    assert summary["test/worst_shift/dice"] == summary["test/shift/noise/dice"] == noise["loss"]
    assert most_harmful(shift_areas(curves, MEASURES), measure=DICE) == ["noise", "motion"]
    console = Console(record=True, width=100)
    print_shifts(curves, measure=DICE, console=console)
    title, *lines = (line for line in console.export_text().splitlines() if line.strip())
    assert title.rstrip() == "dice of 2 sets under shifts, mean over structures and sets"
    assert [line.split() for line in lines if "0." in line] == [
        ["noise", "0.800", "0.450", "5", "0.175", "2", "16"],
        ["motion", "0.800", "0.600", "5", "0.100", "2", "16"],
    ]


class TestUnranked:
    """A corruption whose severities are no common steps is in no order of harm."""

    VALUES = under("in_domain", 0.9, motion={5: 0.8}, zoom={1: 0.2, 3: 0.1}, flip={1: 0.5})

    def curves(self) -> pd.DataFrame:
        return curves_of(rows_of(self.VALUES), unranked=("zoom", "flip"))

    def test_it_has_no_mean_over_severities_and_comes_last_by_name(self):
        areas = shift_areas(self.curves(), MEASURES)
        lines = areas[areas["structure"] == "mean"]
        assert lines["corruption"].tolist() == ["motion", "flip", "zoom"]
        assert lines["calibrated"].tolist() == [True, False, False]
        np.testing.assert_allclose(lines["area"], [0.85 - 0.05, np.nan, np.nan])
        np.testing.assert_allclose(lines["loss"], [0.05, 0.4, 0.8])  # at the highest severity
        np.testing.assert_allclose(lines["end"], [0.75, 0.45, 0.05])
        assert lines["severity"].tolist() == [5, 1, 3]
        assert shift_losses(areas)["corruption"].tolist() == ["motion", "flip", "zoom"]

    def test_it_is_never_the_worst(self, tmp_path):
        curves = self.curves()
        summary = summarise_shifts(curves, MEASURES)
        assert summary["test/worst_shift/dice"] == pytest.approx(0.05)
        assert summary["test/shift/zoom/dice"] == pytest.approx(0.8)
        areas = shift_areas(curves, MEASURES)
        assert most_harmful(areas, measure=DICE) == ["motion", "flip", "zoom"]
        assert curves_sentence(areas, measure=DICE).startswith("motion hurts most")
        (tmp_path / "figures").mkdir()
        section = shift_section(tmp_path, curves, structures=STRUCTURES, measure=DICE)
        assert section.sentence.startswith("Motion hurts most")
        assert [line["corruption"] for line in section.ranked] == ["motion"]
        assert [line["corruption"] for line in section.unranked] == ["flip", "zoom"]

    def test_the_terminal_has_a_table_for_each_kind(self):
        console = Console(record=True, width=200)
        print_shifts(self.curves(), measure=DICE, console=console)
        first, second = console.export_text().split("not ranked: ")
        assert "motion" in first
        assert "lost on average" in first
        assert not {"flip", "zoom"} & set(first.split())
        assert " ".join(second.split()).startswith("their severities are no common steps")
        assert "average" not in second
        assert ["flip", "0.850", "0.450", "1", "0.400", "8"] in [
            line.split() for line in second.splitlines()
        ]

    def test_alone_nothing_is_said_to_hurt_most(self, tmp_path):
        curves = self.curves()
        curves = curves[curves["corruption"] != "motion"]
        assert "test/worst_shift/dice" not in summarise_shifts(curves, MEASURES)
        told = "No shift is said to hurt most: their severities are no common steps."
        assert curves_sentence(shift_areas(curves, MEASURES), measure=DICE) == told
        (tmp_path / "figures").mkdir()
        section = shift_section(tmp_path, curves, structures=STRUCTURES, measure=DICE)
        assert (section.sentence, section.ranked) == (told, [])

    def test_the_record_of_several_runs(self, tmp_path):
        runs = [tmp_path / name for name in "abc"]
        for folder, said in zip(runs, ({"x": True, "y": True}, {"y": False}, None), strict=True):
            folder.mkdir()
            if said:
                write_corruptions(folder, said)
        assert read_corruptions(runs) == {"x": True, "y": False}
        assert read_corruptions(runs[2:]) == {}
        for broken in ("[1]", "{", '"x"'):
            (runs[2] / "corruptions.json").write_text(broken)
            with pytest.raises(InputError, match=r"corruptions.json is no mapping of names"):
                read_corruptions(runs)

    def test_the_file_keeps_what_is_calibrated(self, tmp_path):
        curves = self.curves()
        write_curves(tmp_path / "shifts.csv", curves)
        again = read_curves(tmp_path / "shifts.csv")
        assert again["calibrated"].tolist() == curves["calibrated"].tolist()
        assert set(again["calibrated"]) == {True, False}


def test_a_shift_of_one_of_two_sets_is_no_mean_of_both(tmp_path):
    values = under("in_domain", 0.9, noise={5: 0.8})
    values |= under("site-bern", 0.8, noise={5: 0.7}, motion={5: 0.2})
    curves = curves_of(rows_of(values))
    motion, noise = losses_of(curves, measure=DICE)
    assert (motion["corruption"], motion["sets"], motion["n"]) == ("motion", ["site-bern"], 8)
    assert (noise["sets"], noise["n"]) == (["in_domain", "site-bern"], 16)
    (tmp_path / "figures").mkdir()
    section = shift_section(tmp_path, curves, structures=STRUCTURES, measure=DICE)
    told = "Motion hurts most: dice 0.750 -> 0.150 at severity 5 at site-bern."
    assert section.sentence == told
    console = Console(record=True, width=100)
    print_shifts(curves, measure=DICE, console=console)
    assert ["motion", "0.750", "0.150", "5", "0.300", "1", "8"] in [
        line.split() for line in console.export_text().splitlines()
    ]


def test_areas_of_several_networks_are_those_of_each():
    curves = curves_of(rows_of(TESTED))
    better = curves.assign(train="b", mean=curves["mean"] / 2)
    both = pd.concat([curves.assign(train="a"), better])
    areas = shift_areas(both, MEASURES, by=["train"])
    alone = shift_areas(curves, MEASURES)
    for train, scale in (("a", 1), ("b", 0.5)):
        own = areas[areas["train"] == train].drop(columns="train").reset_index(drop=True)
        numbers = ["area", "loss", "start", "end"]
        expected = alone.assign(**{name: alone[name] * scale for name in numbers})
        pd.testing.assert_frame_equal(own, expected, check_dtype=False)


def test_a_point_between_two_without_a_value_is_on_the_line():
    rows = rows_of(under("in_domain", 0.9, blur={2: 0.1, 5: 0.4}))
    rows.loc[rows["severity"] == 2, "value"] = np.nan
    areas = shift_areas(curves_of(rows), MEASURES).set_index("structure")
    assert areas.loc["liver", "area"] == pytest.approx((0.9 + 0.4) / 2)
    assert areas.loc["liver", "severity"] == 5


def test_the_mean_is_of_the_same_structures_at_every_severity():
    """The tumour has no value at severity 5 of a blur."""
    rows = rows_of(under("in_domain", 0.9, blur={1: 0.9, 5: 0.9}, noise={5: 0.8}))
    rows.loc[rows["structure"] == "tumour", "value"] = 0.0
    blurred = rows["corruption"] == "blur"
    of_tumour = rows["structure"] == "tumour"
    rows.loc[of_tumour & blurred & (rows["severity"] == 5), "value"] = np.nan
    curves = curves_of(rows)
    means = curves[curves["structure"] == "mean"].set_index(["corruption", "severity"])["mean"]
    assert means["blur"].to_dict() == pytest.approx({0: 0.9, 1: 0.9, 5: 0.9})  # of the liver alone
    assert means["noise"].to_dict() == pytest.approx({0: 0.45, 5: 0.4})  # of both
    tumour = curves[(curves["structure"] == "tumour") & (curves["corruption"] == "blur")]
    assert tumour["mean"].tolist() == pytest.approx([0, 0, np.nan], nan_ok=True)
    assert summarise_shifts(curves, MEASURES) == {
        "test/shift/blur/dice": pytest.approx(0),
        "test/shift/noise/dice": pytest.approx(0.025),
        "test/worst_shift/dice": pytest.approx(0.025),
    }
    rows.loc[blurred & (rows["severity"] == 1), "value"] = np.nan  # no structure has all of blur
    curves = curves_of(rows)
    assert curves.loc[curves["structure"] == "mean", "corruption"].unique().tolist() == ["noise"]
    assert "test/shift/blur/dice" not in summarise_shifts(curves, MEASURES)


@pytest.fixture(scope="module")
def shifted_run(tmp_path_factory):
    """The tests' run with four shifts at three severities, of which motion hurts most."""
    folder = fill(tmp_path_factory.mktemp("shifted"))
    rows, parts = read_rows(folder / "rows.csv"), []
    for number in range(4):
        name = "motion" if number == 2 else f"change{number}x"
        for severity in (1, 3, 5):
            lost = severity * (0.1 if name == "motion" else 0.01)
            for set_ in ("in_domain", "site-bern"):
                own = rows[rows["set"] == set_].assign(corruption=name, severity=severity)
                parts.append(own.assign(value=(own["value"] - lost).clip(0)))
                slices = slice_folder(folder, set_, name, severity)
                slices.mkdir()
                seen = (slice_folder(folder, set_) / "0.npz").read_bytes()
                (slices / "0.npz").write_bytes(seen)
    everything = pd.concat([rows, *parts])
    write_table(folder, everything)
    write_curves(folder / "shifts.csv", curves_of(everything))
    return folder


@pytest.fixture(scope="module")
def page(shifted_run):
    return write_report(shifted_run, structures=STRUCTURES, measure=DICE).read_text()


class TestPage:
    def test_it_says_which_change_hurts_most(self, shifted_run, page):
        curves = read_curves(shifted_run / "shifts.csv")
        (worst, *_) = losses_of(curves, measure=DICE)
        assert worst["corruption"] == "motion"
        told = f"{worst['start']:.3f} -&gt; {worst['end']:.3f}"
        assert f"<b>Motion hurts most: dice {told} at severity 5, mean of 2 sets.</b>" in page
        cases = acquired(read_rows(shifted_run / "rows.csv"))
        n = sum(cases.loc[cases["set"] == s, "case"].nunique() for s in ("in_domain", "site-bern"))
        assert (worst["n"], page.count(f'<td class="number">{n}</td></tr>')) == (n, 4)
        assert page.index(">motion<") < page.index(">change1x<")
        assert (shifted_run / "figures" / "shifts.png").stat().st_size > 10_000
        assert (shifted_run / "figures" / "shifts-site-bern.png").is_file()

    def test_many_sets_do_not_flood_it(self, shifted_run, page, tmp_path):
        plain = write_report(fill(tmp_path), structures=STRUCTURES, measure=DICE).read_text()
        assert "Under shifts" not in plain
        tables = page[: page.index("<h2>Under shifts")]
        assert "motion" not in tables
        assert tables.count("<tr") == plain[: plain.index("<h2>Best")].count("<tr")
        overlays = page.count("data:image/png") - plain.count("data:image/png")
        assert overlays == 4  # one of each shift
        assert len(page) < len(plain) + 4 * 80_000
        drawn = sorted(path.name for path in (shifted_run / "figures" / "overlays").iterdir())
        assert drawn == ["in_domain", "site-bern", "site-toronto"]

    def test_a_panel_for_each_shift_in_the_order_given(self, shifted_run):
        curves = read_curves(shifted_run / "shifts.csv")
        own = curves[(curves["set"] == "in_domain") & (curves["metric"] == "dice")]
        figure = shift_figure(own, ["motion", "change1x"], structures=STRUCTURES, measure=DICE)
        first, second = figure.axes
        assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("motion", "change1x")
        mean = next(line for line in first.lines if line.get_color() == "#1a1a1a")
        expected = own[(own["corruption"] == "motion") & (own["structure"] == "mean")]
        np.testing.assert_array_equal(mean.get_xdata(), [0, 1, 3, 5])
        np.testing.assert_allclose(mean.get_ydata(), expected["mean"])
        assert first.get_ylim() == second.get_ylim() == (0, 1.02)

    def test_the_terminal_lists_them(self, shifted_run):
        console = Console(record=True, width=100)
        print_shifts(read_curves(shifted_run / "shifts.csv"), measure=DICE, console=console)
        lines = console.export_text().splitlines()
        assert "dice of 2 sets under shifts" in lines[0]
        first = next(line for line in lines if "change" in line or "motion" in line)
        assert first.split()[0] == "motion"
        print_shifts(curves_of(rows_of(under("in_domain", 0.9))), measure=DICE, console=console)


class TestSuites:
    def sets(self, *overrides):
        return [s.key for s in build.experiment(composed(*overrides, "logger=none")).sets]

    @pytest.mark.parametrize(
        "suite", sorted(p.stem for p in (ROOT / "conf/shift").glob("*.yaml") if p.stem != "none")
    )
    def test_every_suite_builds(self, suite, phantom):
        keys = self.sets(*phantom, f"shift={suite}")
        config = composed(f"shift={suite}").shift
        plain = [key for key in keys if not key.corruption]
        assert keys[: len(plain)] == plain == [*dict.fromkeys(plain)]
        assert {key.set for key in keys} == {key.set for key in plain}
        times = sum(1 if "severity" in one else len(config.severities) for one in config.suite)
        assert len(set(keys)) == len(plain) * (1 + times)

    def test_severities_are_chosen_on_the_command_line(self, phantom):
        keys = self.sets(*phantom, "shift=geometry", "shift.severities=[0,5]")
        flips = {(f"flip_{axes}", 1) for axes in ("x", "y", "z", "yx")}  # there or not
        assert {key[1:] for key in keys} == {("", 0), ("rotation", 5), *flips}

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("shift.severities=[6]", "severity 6; it is a whole number from 0"),
            ("shift.severities=3", "severities=3: a list"),
            ("shift.severities=[1,1]", "more than once"),
            ("shift.suite=[{_target_: segshift.shifts.Wobble}]", "segshift.shifts has no Wobble$"),
            ("shift.suite=[{_target_: nowhere.Wobble}]", "nowhere.Wobble: there is no nowhere$"),
            ("shift.suite=[{_target_: segshift.shifts.Flip, axes: [x]}]", "flip_x: severity 3"),
            ("shift.suite=[{_target_: segshift.shifts.Flip, axes: x, severity: 1}]", "axes is 'x'"),
            ("shift.suite=[{_target_: segshift.shifts.Resolution, imaging: pet}]", "is 'pet'"),
            ("shift.severities=[]", "no shift of the suite a severity above 0"),
            ("shift.suite=[{_target_: segshift.shifts.Blur, sigma: 2}]", "sigma"),
            ("shift.suite=[{_target_: segshift.shifts.Blur, severity: 9}]", "severity 9"),
        ],
    )
    def test_what_is_wrong_is_said_before_anything_is_read(self, override, message, phantom):
        with pytest.raises(InputError, match=message):
            self.sets(*phantom, "shift=mild", override)

    def test_a_run_and_its_summary(self, workplace, tmp_path, capsys):
        config = composed(
            *TINY_PHANTOM, *TINY_TRAINING, f"store={workplace / 'store'}", "model=unet2d",
            f"data.cohort.folder={workplace / 'phantom'}", "split=random", "shift=geometry",
            "shift.severities=[5]",
            "shift.suite=[{_target_: segshift.shifts.Gibbs},"
            "{_target_: segshift.shifts.Rotation},"
            "{_target_: segshift.shifts.Flip,axes:[y,x],severity:1}]",
        )  # fmt: skip
        run.train(config, tmp_path / "run", command="", choices={})
        folder, printed = tmp_path / "run", capsys.readouterr().out
        assert "3 more sets under shifts" in printed
        assert "of in_domain under shifts" in printed
        rows, summary = read_rows(folder / "rows.csv"), json.loads(
            (folder / "summary.json").read_text()
        )  # fmt: skip
        seen = rows.groupby(["set", "corruption", "severity"]).size()
        assert [key[1:] for key in seen.index] == [
            ("", 0), ("flip_yx", 1), ("gibbs", 5), ("rotation", 5)
        ]  # fmt: skip
        assert of_network(rows).groupby(["corruption"]).size().nunique() == 1
        assert {"test/shift/flip_yx/dice", "test/worst_shift/dice"} <= set(summary)
        assert summary["test/worst_shift/dice"] == summary["test/shift/gibbs/dice"]
        corruptions = json.loads((folder / "corruptions.json").read_text())
        assert corruptions == {"gibbs": True, "rotation": False, "flip_yx": False}
        sets = {key.split("/")[1] for key in summary if key.startswith("test/")}
        assert sets <= {"in_domain", "shift", "worst_shift", "worst_site"}
        assert "Under shifts" in (folder / "report.html").read_text()
        slices = folder / "figures" / "slices"
        assert [path.name for path in slices.iterdir()] == ["in_domain"]
        of_shifts = {path.name for path in (slices / "in_domain").iterdir() if path.is_dir()}
        assert of_shifts == {"flip_yx-1", "gibbs-5", "rotation-5"}
        kept = [len(list(slice_folder(folder, *key).glob("*.npz"))) for key in seen.index]
        assert kept[1:] == [1, 1, 1]
        assert kept[0] > 1
        assert sorted(pd.read_csv(folder / "shifts.csv")["severity"].unique()) == [0, 1, 5]
