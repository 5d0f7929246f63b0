"""Figures show what the rows say: every case, mean and n, and outlines of every mask."""

import io
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from report_inputs import ALARM, DICE, HD95, STRUCTURES, add_rows, fill, row
from skimage.color import rgb2lab

from segshift.metrics import Measure
from segshift.report import loss_curve, overlay, reliability_diagram, site_strip, validation_curve
from segshift.report.figures import OKABE_ITO, colours_of
from segshift.report.lanes import lanes_of
from segshift.report.measures import digits, duration, heading, interval, main_metrics, written
from segshift.report.slices import Slice, best_median_worst, worst_cases
from segshift.report.svg import inline_svg
from segshift.results import read_rows, site_table
from segshift.results.names import file_name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("run"))


def rendered(figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file)
    return file.getvalue()


def notes(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.23, "1.2"), (0.05, "0.1"), (0.0, "0.0"), (0.00034, "0.00034"), (math.nan, "-")],
)
def test_a_distance_of_micrometres_is_not_written_as_nothing(value: float, text: str) -> None:
    assert written(value, digits(HD95)) == text


def test_digits_follow_the_unit_whatever_the_name() -> None:
    assert digits(Measure("mine", "mm", "lower")) == 1
    assert digits(Measure("mine_mm", "", "higher")) == 3
    assert digits(Measure("mine_mm", "ml", "zero")) == 3


def strip(rows: pd.DataFrame, measure: Measure = DICE):
    return site_strip(rows, site_table(rows), structures=STRUCTURES, measure=measure)


@pytest.mark.filterwarnings("error")
def test_the_strip_says_mean_and_n_also_of_what_is_not_there(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    rows.loc[(rows["site"] == "bern") & (rows["structure"] == "tumour"), "value"] = math.nan
    figure = strip(rows)
    assert notes(figure) == [
        *("dijon", "in_domain", "0.78  n 7, 0 failed", "0.76  n 6, 0 failed"),
        *("bern", "site-bern", "0.43  n 7, 1 failed", "n 0"),
        *("toronto", "site-toronto", "0.48  n 7, 0 failed", "0.48  n 7, 0 failed"),
    ]
    assert rendered(figure)
    assert rendered(strip(rows[:0]))


def test_bars_and_bands_are_means_of_patients_not_of_cases(tmp_path: Path) -> None:
    """A patient with six more scans, all of 0, once away from home and once in domain."""
    for set_, site in (("site-toronto", "toronto"), ("in_domain", "dijon")):
        run = fill(tmp_path / site)
        more = [row(set_, f"x{scan}", site, "liver", "dice", 0.0) for scan in range(6)]
        add_rows(run, [replace(one, patient=f"{site}-0") for one in more])
        rows = read_rows(run / "rows.csv")
        first = 0.6 if site == "toronto" else 0.9
        mean = (first / 7 + sum(first - 0.04 * number for number in range(1, 7))) / 7
        (axes,) = strip(rows).axes
        drawn = {round(float(line.get_xdata()[0]), 6) for line in axes.lines}
        assert round(mean, 6) in drawn  # a bar, or the dotted end of a band
        lanes = lanes_of(rows, site_table(rows), structures=STRUCTURES, measure=DICE)
        liver = lanes.groups["site-toronto", "toronto"][0]
        assert (liver.mean if site == "toronto" else liver.inside) == round(100 * mean, 2)


def test_curves_join_the_sparse_lines_of_the_log(run: Path) -> None:
    """The score that chose the checkpoint is drawn, not the Dice, which was best elsewhere."""
    log = pd.read_csv(run / "metrics.csv")
    (loss,), (score,) = loss_curve(log).axes, validation_curve(log).axes
    np.testing.assert_allclose(loss.lines[0].get_xydata(), [[4, 1.5], [9, 1.0], [14, 0.8]])
    np.testing.assert_allclose(score.lines[0].get_xydata(), [[9, 0.4], [19, 0.7]])
    np.testing.assert_allclose(score.lines[1].get_xydata(), [[19, 0.7]])  # the ring
    assert score.get_title(loc="left") == "validation score, best 0.700 at step 19"
    assert score.get_ylim() == (0, 1.02)
    without = pd.DataFrame({"step": [1, 2], "train/loss": [2.0, 1.0]})
    assert rendered(validation_curve(without))


def test_the_strip_of_a_distance_shows_every_case(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    (fractions,) = strip(rows).axes
    assert fractions.get_xlim() == (-0.02, 1.02)
    (distances,) = strip(rows, HD95).axes
    assert distances.get_xlim()[0] < 3  # 30 times 1 - 0.9, the best case
    assert distances.get_xlim()[1] > 30
    assert distances.get_xlabel().startswith("hd95_mm: ")
    assert not any("failed" in note for note in notes(distances.figure))  # Dice alone tells it


def test_every_mask_is_outlined_and_they_may_overlap() -> None:
    blank, one = np.zeros((2, 6, 6), dtype=bool), np.zeros((2, 6, 6), dtype=bool)
    one[:, 2:4, 2:4] = True
    first = one & (np.arange(2) == 0)[:, None, None]
    image = np.zeros((6, 6), dtype=np.float32)
    for reference, prediction, outlines in ((one, one, 4), (one, first, 3), (blank, first, 1)):
        shown = Slice(image, reference, prediction, (1.0, 1.0))
        figure = overlay(shown, structures=STRUCTURES)
        assert len(figure.axes[0].collections) == outlines


@pytest.mark.parametrize("name", ["site-bern+noise3_v1.2", "Universit\u00e9", "007", "_", "a.b"])
def test_a_good_file_name_is_kept(name: str) -> None:
    assert file_name(name) == name


def test_other_names_stay_in_their_folder_and_apart() -> None:
    names = ["a/b", "a\\b", "a b", "a\tb", "", ".", "..", "...", "../x", "a:b", "a\nb"]
    files = [file_name(name) for name in names]
    assert len(set(files) | {"a_b", "_", "x"}) == len(names) + 3
    for file in files:
        assert re.fullmatch(r"[\w.+-]+", file)
        assert Path(file).name == file
        assert file.strip(".")


def test_the_worst_cases_are_those_of_their_worst_structure(tmp_path: Path) -> None:
    run = fill(tmp_path)
    rows = read_rows(run / "rows.csv")
    toronto = (rows["case"] == "toronto-0") & (rows["structure"] == "tumour")
    rows.loc[toronto & (rows["metric"] == "dice"), "value"] = 0.05
    worst = worst_cases(rows, run, count=2, measure=DICE)
    assert [(one.site, one.why, one.value) for one in worst] == [
        ("bern", "liver", 0.0),
        ("toronto", "tumour", 0.05),
    ]
    best = best_median_worst(rows, run, set_="site-toronto", measure=DICE)[0]
    assert (best.case, best.value) == ("toronto-1", pytest.approx(0.56))


def test_of_a_signed_metric_the_best_case_is_nearest_to_0(tmp_path: Path) -> None:
    run = fill(tmp_path)
    rows = read_rows(run / "rows.csv").query("metric == 'dice' and set == 'site-toronto'")
    rows = rows.assign(value=rows["value"] - 0.44)  # from 0.16 to -0.08
    signed = Measure("dice", "", "zero")
    best, _, worst = best_median_worst(rows, run, set_="site-toronto", measure=signed)
    assert (best.case, worst.case) == ("toronto-4", "toronto-0")
    assert worst_cases(rows, run, count=1, measure=signed)[0].case == "toronto-0"


def test_a_smaller_structure_lies_on_top_in_the_map_of_classes() -> None:
    masks = np.zeros((2, 1, 4), dtype=bool)
    masks[0, 0, 1:2], masks[1, 0, :3] = True, True
    shown = Slice(np.zeros((1, 4), dtype=np.float32), masks, masks, (1.0, 1.0))
    np.testing.assert_array_equal(shown.classes(masks), [[2, 1, 2, 0]])


def test_reliability_pools_sites_by_their_voxels() -> None:
    lines = [
        ("a", 0.0, 300, 0.1, 0.0),
        ("b", 0.0, 100, 0.3, 0.4),
        ("b", 0.5, 0, math.nan, math.nan),
    ]
    bins = pd.DataFrame(lines, columns=["site", "low", "voxels", "confidence", "accuracy"])
    figure = reliability_diagram(bins.assign(structure="liver"), structures=STRUCTURES, title="x")
    np.testing.assert_allclose(figure.axes[0].lines[1].get_xydata(), [[0.15, 0.1]])
    assert not len(figure.axes[0].lines[2].get_xydata())  # no tumour at all
    assert rendered(figure)


def test_a_figure_on_the_page_takes_its_colours_and_shares_no_id_with_another(run: Path) -> None:
    log = pd.read_csv(run / "metrics.csv")
    first, second = (inline_svg(loss_curve(log), name=name) for name in ("first", "second"))
    assert first.startswith("<svg")
    assert "training loss" in first
    for scheme in ("var(--ink)", "var(--soft)", "var(--line)"):
        assert scheme in first
    assert not re.search("#1a1a1a|#6b6b6b|#d9d9d9|#ffffff", first)
    ids = [set(re.findall(r' id="(.*?)"', text)) for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_long_curve_is_thinned(run: Path) -> None:
    log = pd.DataFrame({"step": np.arange(50_000), "train/loss": np.linspace(2, 1, 50_000)})
    assert all(len(line.get_xdata()) <= 1000 for line in loss_curve(log).axes[0].lines)


def test_an_interval_has_a_digit_less_than_its_mean_and_is_empty_where_undefined() -> None:
    line = {"dice_low": 0.7654, "dice_high": 0.8, "hd95_mm_low": 1.26, "hd95_mm_high": 2.0}
    assert interval(line, DICE) == "[0.77, 0.80]"
    assert interval(line, HD95) == "[1.3, 2.0]"
    assert interval({"dice_low": math.nan, "dice_high": math.nan}, DICE) == ""
    assert interval({}, DICE) == ""


def test_the_main_metrics_are_the_chosen_one_the_next_two_declared_and_false_alarms() -> None:
    """Whatever they are called."""
    first, second, third = (Measure(name, "", "higher") for name in ("z", "a", "dice"))
    declared = [first, second, third, HD95, ALARM]
    assert main_metrics(declared, first) == [first, second, third, ALARM]
    assert main_metrics(declared, third) == [third, first, second, ALARM]
    assert main_metrics(declared, ALARM) == [ALARM, first, second]
    assert main_metrics([ALARM, first], first) == [first, ALARM]
    assert main_metrics(declared[:1], first) == [first]
    assert [heading(measure) for measure in (ALARM, HD95)] == ["false alarms", "hd95_mm"]


def test_a_duration_is_said_in_seconds_minutes_or_hours() -> None:
    assert [duration(s) for s in (12.34, 200.2, 3725)] == ["12.3 s", "3 min 20 s", "1 h 2 min"]


def test_a_lane_begins_at_the_first_tick_not_at_zero(run: Path) -> None:
    rows = read_rows(run / "rows.csv").query("metric == 'hd95_mm'")
    rows["value"] += 100
    lanes = lanes_of(rows, site_table(rows), structures=STRUCTURES, measure=HD95)
    assert [lanes.ticks[0], lanes.ticks[-1][0]] == [(0.0, "100"), 100.0]
    places = [dot.x for group in lanes.groups.values() for lane in group for dot in lane.dots]
    assert min(places) < 15
    assert max(places) <= 100


# Machado, Oliveira and Fernandes 2009, doi:10.1109/TVCG.2009.113: of linear RGB.
SEEN = {
    "usual": np.eye(3),
    "deuteranopia": np.array(
        [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
    ),
    "protanopia": np.array(
        [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]
    ),
}


@pytest.mark.parametrize(
    ("sight", "least"), [("usual", 12), ("deuteranopia", 6), ("protanopia", 6)]
)
def test_21_structures_have_colours_that_can_be_told_apart(sight: str, least: float) -> None:
    """By their distances in L*a*b*, of which 2 is just noticeable."""
    colours = [*colours_of([f"s{number}" for number in range(21)]).values()]
    assert colours[: len(OKABE_ITO)] == [*OKABE_ITO]
    linear = np.array([to_rgb(colour) for colour in colours]) ** 2.2
    places = rgb2lab(np.clip(linear @ SEEN[sight].T, 0, 1) ** (1 / 2.2))
    apart = np.linalg.norm(places[:, None] - places, axis=-1)
    assert apart[~np.eye(21, dtype=bool)].min() > least
