"""The page of a study is made from its folder alone, answers in words and says what is missing."""

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import wandb
from report_inputs import DICE, HD95, MEASURES, write_table
from rich.console import Console
from study_inputs import EVIL, add_raters, fill_study, row, write_jobs
from test_browser import contrast

from segshift.errors import InputError
from segshift.metrics import Measure
from segshift.report.false_alarms import false_alarm_answers
from segshift.report.heat import Scale, heat_of
from segshift.report.study import write_study_report
from segshift.report.study_attribution import pair_verdicts, read_attributions
from segshift.report.study_console import print_study
from segshift.report.study_curves import curves_sentence, most_harmful
from segshift.report.study_lanes import ELSEWHERE, HERE, LANES, SEVERAL, study_lanes
from segshift.report.study_page import failure_lines
from segshift.report.study_words import answers, overview, short_name, train_label
from segshift.report.study_worst import worst_pictures
from segshift.results import (
    acquired,
    case_means,
    line_names,
    read_rows,
    read_study,
    shift_table,
    train_test_matrix,
    trained_at,
    write_measures,
    write_rows,
)
from segshift.results.curves import shift_areas
from segshift.tracking import log_study, log_study_results

SITES = ("bern", "dijon", "toronto")
GAP = {
    "part": "single_source", "variant": "", "train": trained_at(["dijon"]), "set": "site-toronto",
    "site": "toronto", "metric": "dice", "structure": "mean", "in_domain": 0.8, "out": 0.72,
    "gap": 0.08, "gap_low": 0.05, "gap_high": 0.11, "harder": 0.02, "shift": 0.06,
    "shift_low": 0.04, "shift_high": 0.08, "p": 0.01, "p_holm": 0.02, "patients": 8, "tested": 8,
    "unpaired": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fill_study(tmp_path_factory.mktemp("study"))
    assert write_study_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    """As a reader sees it: without tags, blanks made one."""
    part = re.split(r"<h2>", page.split(f"<h2>{title}")[1])[0]
    part = re.sub(r"<svg.*?</svg>", " ", part, flags=re.DOTALL)
    return " ".join(re.sub(r"<.*?>", " ", part).replace("&nbsp;", " ").split())


def test_every_file_is_written_and_every_figure_drawn(folder: Path) -> None:
    for name in (
        "matrix",
        "gaps",
        "leave_site_out",
        "failures",
        "shifts",
        "shift_areas",
        "attribution",
    ):
        assert len(pd.read_csv(folder / f"{name}.csv")) > 0, name
    for name in ("matrix", "gaps", "curves"):
        data = (folder / "figures" / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        assert len(data) > 10_000
    assert json.loads((folder / "summary.json").read_text())["jobs/done"] == 18


def test_page_says_question_command_answer_and_cost(folder: Path, page: str) -> None:
    assert "How well will it do &lt;at&gt; the next hospital?" in page
    assert "<code>python study.py study=cross_site</code>" in page
    answer = section(page, "Answer")
    assert "Of 9 pairs of training and test site 7 lose dice, with the whole interval" in answer
    gap = pd.read_csv(folder / "gaps.csv").query(
        "train == '[\"bern\"]' and site == 'toronto' and metric == 'dice' and structure == 'mean'"
    )
    low, high = (gap[f"gap_{end}"].item() for end in ("low", "high"))
    assert low < 0.15 < high
    assert (
        f"A network trained at bern loses 0.150 dice [{low:.3f}, {high:.3f}] at toronto (6 "
        "patients), of which 0.050 because toronto is harder and 0.100 because of the shift "
        "[0.100, 0.100] (p 0.031, Holm 0.28)." in answer
    )
    assert "Incomplete" not in answer
    assert "time of all jobs 18 min 0 s time per job 60.0 s" in section(page, "What was run")
    assert page.count('href="jobs/') == 18
    assert "Left out" not in page


def between(line: Any, *, decimals: int = 2) -> str:
    return f"[{line['low']:.{decimals}f}, {line['high']:.{decimals}f}]"


def test_cells_of_the_heat_map_are_those_of_the_matrix(folder: Path, page: str) -> None:
    matrix = section(page, "Trained here, tested there").split("more: by structure")[0]
    table = pd.read_csv(folder / "matrix.csv").query("metric == 'dice' and structure == 'mean'")
    own = table[table["train"] == '["bern"]'].set_index("site")
    cells = [f"{mean} {between(own.loc[site])} n 6 0 of 6 failed up to 46 %" for site, mean in (
        ("bern", "0.755"), ("dijon", "0.655"), ("toronto", "0.605")
    )]  # fmt: skip
    assert " ".join(["bern", *cells]) in matrix
    # What pointing at a cell says.
    said = "2 seeds: 0.750 to 0.760; 0 of 6 failed: up to 46 %; single_source-bern"
    assert f"6 cases, interval of 6 patients, {said}" in page
    assert page.split("<details>")[0].count('style="background: #') == len(table)


def test_patients_that_were_failed_stand_beside_every_mean_of_dice(tmp_path: Path) -> None:
    """One of six patients of toronto is lost by the network from bern, in one of two seeds."""
    folder = fill_study(tmp_path, pictures=False, noises=(0,))
    rows = read_rows(folder / "rows.csv")
    lost = rows["run"].str.startswith("single_source-bern-") & (rows["case"] == "toronto-3")
    rows.loc[lost & (rows["metric"] == "dice"), "value"] = 0.05
    write_table(folder, rows)
    page = write_study_report(folder).read_text(encoding="utf-8")
    matrix = section(page, "Trained here, tested there").split("more: by structure")
    assert matrix[0].count("1 of 6 failed") == 1
    assert matrix[0].count("0 of 6 failed") == 17
    assert "failed" not in matrix[1].split(" hd95_mm ")[1]  # which no Dice tells
    pairs = section(page, "What is lost, and why")
    counts = [
        pairs.count(f" {told}")
        for told in (
            "1 of 6 failed: 0 to 64 %", "0 of 6 failed: up to 46 %", "0 of 12 failed: up to 26 %",
        )
    ]  # fmt: skip
    assert counts == [1, 14, 3]  # in domain and outside of nine pairs; of two sites' patients three
    lanes = section(page, "Every case")
    assert lanes.count("1 of 6 failed: 0 to 64 %") == 1
    text = io.StringIO()
    print_study(folder, console=Console(file=text, width=100))
    assert (text.getvalue().count("1 of 6"), text.getvalue().count("0 of 6")) == (1, 17)


def test_false_alarms_are_told_whatever_the_dice(page: str) -> None:
    """Away from home a tumour is predicted in one of two patients without one."""
    answer = section(page, "Answer")
    told = "predicts a structure in 0.50 of the cases at"
    assert answer.count("False alarms: a network trained at") == answer.count(told) == 3
    assert f"trained at bern {told} dijon that do not have it, against 0.00 at home." in answer
    table = section(page, "False alarms")
    assert "9 pairs" in table
    assert "bern toronto 0.000 0.500 0.500 2" in table
    assert "false alarms" in section(page, "Trained here, tested there")


def test_without_a_false_alarm_there_is_a_sentence_and_without_such_cases_none(
    folder: Path,
) -> None:
    gaps = pd.DataFrame([{**GAP, "metric": "false_alarm", "out": 0.0, "gap": 0.0}, GAP])
    assert false_alarm_answers(gaps, sites=SITES) == ["False alarms: none at any test site."]
    assert false_alarm_answers(gaps[1:], sites=SITES) == []


def test_people_are_the_last_line_of_the_matrix(tmp_path: Path) -> None:
    """Dora has drawn all six cases of bern, which every training has been tested on."""
    folder = fill_study(tmp_path, pictures=False, noises=(0,))
    without = section(write_study_report(folder).read_text(), "Trained here, tested there")
    add_raters(folder)
    page = write_study_report(folder).read_text(encoding="utf-8")
    matrix = section(page, "Trained here, tested there")
    assert "raters" not in without.split("best trained at")[1]
    first, *more = matrix.split("best trained at")[1:]
    assert first.split("more: by")[0].strip().endswith("raters 0.900 [0.90, 0.90] n 6 - - 5")
    assert [" raters 0.900" in each for each in more] == [True, True, False, False, False]
    raters = pd.read_csv(folder / "raters.csv").query("structure == 'mean'")
    assert dict(zip(raters["set"], raters["n"], strict=True)) == {"in_domain": 6, "site-bern": 6}
    text = io.StringIO()
    print_study(folder, console=Console(file=text, width=100))
    assert "raters 0.900 - - [0.90, 0.90]" in " ".join(text.getvalue().split())


def test_of_two_sets_of_a_site_people_are_shown_on_the_larger(folder: Path) -> None:
    study = read_study(folder)
    lines = train_test_matrix(study.rows).query("metric == 'dice' and structure == 'mean'")
    one = {"site": "bern", "low": math.nan, "high": math.nan, "patients": 3}
    raters = pd.DataFrame(
        [
            {**one, "set": "site-bern", "mean": 0.8, "n": 6},
            {**one, "set": "in_domain", "mean": 0.9, "n": 3},
        ]
    )
    scale = Scale.of(lines["mean"], measure=DICE)
    names = line_names(study.jobs)
    heat = heat_of(lines, names=names, sites=SITES, scale=scale, raters=raters)
    assert [cell and cell.text for cell in heat.lines[-1].cells] == ["0.800", None, None]
    nowhere = heat_of(lines, names=names, sites=SITES, scale=scale, raters=raters.assign(site="x"))
    assert nowhere.lines[-1].name == "dijon and toronto"


def test_page_loads_nothing_and_trusts_no_name(page: str) -> None:
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>U" not in page
    assert not re.search(r'(src|href)="(?!data:|jobs/|#|[\w.]+")', page)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)


def test_left_out_site_has_its_own_table(folder: Path, page: str) -> None:
    table = section(page, "Trained at several sites")
    # in domain, outside, gap, harder, shift, the oracle and the patients that were failed
    matrix = pd.read_csv(folder / "matrix.csv").query("metric == 'dice' and structure == 'mean'")
    outside = matrix[(matrix["train"] == '["bern", "dijon"]') & (matrix["site"] == "toronto")]
    told = between(outside.iloc[0], decimals=3)
    own = table.split("toronto bern and dijon")[1].split("dijon")[0]
    home = rf"0.755 \[0.7.*\] {re.escape('0 of 12 failed: up to 26 %')}"
    away = rf"0.605 {re.escape(told)} {re.escape('0 of 6 failed: up to 46 %')}"
    assert re.search(f"^ {home} {away} 0.150 \\[", own)
    assert own.endswith("[0.100, 0.100] 0.705 ")


def test_the_pairs_are_listed_from_the_largest_gap_on(page: str) -> None:
    lines = page.split("9 pairs</summary>")[1].split("</table>")[0].split("<tr>")[2:]
    cells = [re.findall(r'<td class="number">([-\d.]+)', line) for line in lines]
    gaps = [float(gap) for _, _, gap, *_ in cells]
    assert len(gaps) == 9
    assert gaps == sorted(gaps, reverse=True)
    assert (gaps[0], gaps[-1]) == (0.15, 0.05)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "A network trained at dijon loses 0.080 dice [0.050, 0.110] at toronto (8 patients), "
             "of which 0.020 because toronto is harder and 0.060 because of the shift [0.040, "
             "0.080] (p 0.01, Holm 0.02)."),
        ({"harder": -0.02, "shift": 0.1}, "toronto (8 patients); toronto is easier by 0.020, and "
                                          "the shift costs 0.100 [0.040, 0.080] (p 0.01, Holm 0."),
        ({"harder": 1e-17, "shift": 0.08}, "(8 patients), all of it because of the shift ["),
        ({"patients": 3, "tested": 6, "unpaired": 2}, "at toronto (8 patients), of which 0.020 "
         "because toronto is harder and 0.060 because of the shift [0.040, 0.080] (6 patients, p "),
        ({"tested": 5, "unpaired": 3, "p": 0.0625}, "at toronto (8 patients); 5 patients are too "
         "few to tell what the shift costs (estimate 0.060, p 0.062)."),
        ({"tested": 1, "p": 1.0}, "(1 patient); 1 patient is too few to tell what"),
        ({"harder": 0.09, "shift": -0.01}, "harder by 0.090, and the shift gains 0.010 ["),
        ({"gap_low": -0.01}, "is not shown to lose at toronto (8 patients): its gap is 0.080 dice "
                             "[-0.010"),
        ({"gap": -0.08, "gap_low": -0.1, "gap_high": -0.05, "harder": -0.1, "shift": 0.02},
         "does better at toronto (8 patients) than at home, a gap of -0.080 dice [-0.100, -0.050]; "
         "toronto is easier by 0.100, and the shift costs 0.020"),
        ({"gap_low": math.nan, "gap_high": math.nan}, "(no interval: too few patients "
         "with some structure), of"),
        ({"harder": math.nan, "shift": math.nan}, "; whether toronto is harder is unknown"),
        ({"metric": "hd95_mm", "gap": 12.0, "gap_low": 3.0, "gap_high": 20.0, "harder": 2.0,
          "shift": 10.0}, "is worse by 12.0 hd95_mm [3.0, 20.0] at toronto (8 patients), of which"),
        ({"set": "guideline-old"}, "loses 0.080 dice [0.050, 0.110] at guideline-old at toronto"),
    ],
)  # fmt: skip
def test_answers_in_words(values: dict[str, Any], said: str) -> None:
    gaps = pd.DataFrame([{**GAP, **values}])
    measure = MEASURES[values.get("metric", "dice")]
    (sentence,) = answers(gaps, measure=measure, sites=SITES)
    assert said in sentence
    assert overview(gaps, measure=measure) == ""  # one pair is said already


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_verb_follows_what_the_metric_declares(better: Any) -> None:
    (sentence,) = answers(
        pd.DataFrame([{**GAP, "metric": "mine"}]), measure=Measure("mine", "", better), sites=SITES
    )
    assert ("loses 0.080 mine" in sentence) == (better == "higher")
    assert ("is worse by 0.080 mine" in sentence) == (better == "lower")


def test_training_sites_are_said_shortly() -> None:
    def label(sites: list[str], every: Any) -> str:
        return train_label(trained_at(sites), every)

    assert label(["dijon"], SITES) == "dijon"
    assert label(["dijon", "bern"], SITES) == "bern and dijon"
    many = [f"s{number:02}" for number in range(30)]
    assert label(many[:-1], many) == "all but s29"
    assert label(many[:3], many) == "s00, s01 and s02"
    assert label(["A+B 3"], ("A", "A+B 3", "B")) == "A+B 3"
    assert label(["A", "B"], ("A", "A+B 3", "B")) == "A and B"


def test_what_tells_equal_names_apart_stays_in_the_short_name() -> None:
    train = trained_at(["A+B 3", "C"])
    for full, short in (("A+B 3+C", "A+B 3 and C"), ("A+B 3+C (again)", "A+B 3 and C (again)")):
        assert short_name(full, train, ("A+B 3", "B", "C")) == short


@pytest.mark.parametrize("measure", [DICE, HD95])
def test_ink_can_be_read_on_every_colour_and_the_best_is_bright(measure: Measure) -> None:
    scale = Scale(measure, 0.0, 1.0)
    for value in np.linspace(-0.2, 1.2, 101):  # people may be better than every network
        ground, ink = (f"rgb{tuple(bytes.fromhex(c[1:]))}" for c in scale.colours(value))
        assert contrast(ink, ground) >= 4.5
    best = 1.0 if measure.better == "higher" else 0.0
    assert scale.colours(best)[1] == "#000000"
    assert scale.colours(1 - best)[1] == "#ffffff"
    signed = Scale.of(pd.Series([-2.0, 0.1, 1.0]), measure=Measure("mine", "", "zero"))
    assert signed.ends == ("+-2.000", "+-0.100")
    assert signed.colours(-2.0) == signed.colours(2.0) != signed.colours(0.1)
    assert Scale.of(pd.Series([math.nan]), measure=measure).low == 0
    assert Scale.of(pd.Series([0.5]), measure=measure).colours(0.5)


def test_heat_map_has_networks_of_one_site_first_and_gaps_where_nothing_was_measured(
    folder: Path,
) -> None:
    study = read_study(folder)
    lines = train_test_matrix(study.rows).query("metric == 'dice' and structure == 'mean'")
    lines = lines[(lines["train"] != '["bern"]') | (lines["site"] != "toronto")]
    scale = Scale.of(lines["mean"], measure=DICE)
    heat = heat_of(lines, names=line_names(study.jobs), sites=SITES, scale=scale)
    assert list(heat.columns) == list(SITES)
    assert [line.name for line in heat.lines] == [
        "bern", "dijon", "toronto", "bern and dijon", "bern and toronto", "dijon and toronto",
    ]  # fmt: skip
    assert [cell.own if cell else None for cell in heat.lines[0].cells] == [True, False, None]


def test_lanes_are_the_own_network_then_those_that_do_not_know_the_site(folder: Path) -> None:
    study = read_study(folder)
    rows = acquired(study.rows)
    names = line_names(study.jobs)
    lanes = study_lanes(
        case_means(rows), train_test_matrix(rows), measure=DICE, names=names, sites=SITES
    )
    at_toronto = lanes.groups["", "toronto"]
    assert [(lane.name, lane.colour) for lane in at_toronto[:4]] == [
        ("toronto", HERE), ("bern and dijon", SEVERAL), ("bern", ELSEWHERE), ("dijon", ELSEWHERE),
    ]  # fmt: skip
    assert [lane.inside for lane in at_toronto[:2]] == [None, 70.5]
    assert at_toronto[1].mean == 60.5
    assert sorted(dot.text for dot in at_toronto[0].dots)[0] == f"{EVIL}: 0.755"
    assert len(at_toronto) <= LANES


@pytest.mark.parametrize(
    ("better", "order"), [("higher", ["dijon", "bern"]), ("lower", ["bern", "dijon"])]
)
def test_of_equal_kinds_the_better_lane_comes_first(folder: Path, better: Any, order: list) -> None:
    study = read_study(folder)
    rows = acquired(study.rows)
    matrix = train_test_matrix(rows)
    matrix.loc[matrix["train"] == '["dijon"]', "mean"] += 0.1
    lanes = study_lanes(
        case_means(rows), matrix, measure=Measure("dice", "", better),
        names=line_names(study.jobs), sites=SITES,
    )  # fmt: skip
    names = [lane.name for lane in lanes.groups["", "toronto"]]
    assert [name for name in names if name in order] == order


def test_worst_cases_stand_beside_what_the_own_network_made_of_them(page: str) -> None:
    part = page.split("<h2>Worst cases of every site")[1].split("<h2>")[0]
    captions = re.findall(r"<figcaption><b>(.*?)</b><br>(.*?)</figcaption>", part)
    assert captions[:4] == [
        ("dice 0.550", "toronto-5, trained at bern and dijon"),
        ("dice 0.650", "toronto-5, trained at toronto"),
        ("dice 0.570", "toronto-4, trained at bern and dijon"),
        ("dice 0.670", "toronto-4, trained at toronto"),
    ]
    assert re.findall(r"<h3>(.*?)</h3>", part) == ["toronto", "bern", "dijon"]


def areas_of(curves: pd.DataFrame) -> pd.DataFrame:
    return shift_areas(curves, MEASURES, by=["part", "variant", "train"])


def test_each_share_of_failures_has_its_n() -> None:
    """Of ten cases four have a lesion: one of them is missed."""
    line = {"variant": "", "train": '["a"]', "set": "site-b", "site": "b"}
    shares = {"failed": 0.1, "failed_n": 10, "empty": 0.25, "empty_n": 4}
    (told,), _, without = failure_lines(pd.DataFrame([line | shares]), sites=["a", "b"])
    assert (told["failed"], told["empty"], without) == (("10%", 10), ("25%", 4), 0)


def test_curves_name_the_shift_that_hurts_most(folder: Path) -> None:
    curves = shift_table(read_study(folder).rows, calibrated={"noise": True})
    mild = curves.assign(corruption="mild", mean=curves["mean"] + 0.01 * (curves["severity"] > 0))
    both = pd.concat([mild, curves])
    assert most_harmful(areas_of(both), measure=DICE) == ["noise", "mild"]
    assert most_harmful(areas_of(both), measure=HD95) == ["mild", "noise"]  # 0.01 mm more there
    start, end = (curves_sentence(areas_of(both), measure=DICE).split()[place] for place in (5, 7))
    assert float(start) - float(end) == pytest.approx(0.15, abs=0.0011)
    assert "hurts most" in curves_sentence(areas_of(both), measure=DICE)
    better = curves.assign(mean=curves["mean"] + 0.5 * (curves["severity"] > 0))
    assert "No ranked shift hurts" in curves_sentence(areas_of(better), measure=DICE)
    assert curves_sentence(areas_of(curves[:0]), measure=DICE) == ""


def test_attributions_are_said_in_words_and_disagreement_is_counted(folder: Path) -> None:
    table = read_attributions(folder, read_study(folder).jobs)
    pair = next(
        x for x in pair_verdicts(table, sites=SITES) if (x.train, x.test) == ("bern", "dijon")
    )
    assert [(one.what, one.answer, one.clear, one.p) for one in pair.verdicts] == [
        ("the images", "differ", True, "0.003"),
        ("the case mix", "not shown to differ", False, "0.6"),
        ("the annotation", "cannot be told", False, ""),
    ]
    odd = (table["kind"] == "covariate") & (table["seed"] == "1") & (table["fold"] == "0")
    table.loc[odd, ["answer", "p_corrected"]] = ["no", "0.2"]
    (first, *_) = pair_verdicts(table, sites=SITES)[4].verdicts
    assert (first.answer, first.clear, first.p) == ("differ in 3 of 4 jobs", False, "0.003 to 0.2")


def test_console_says_matrix_gaps_and_answer(folder: Path) -> None:
    text = io.StringIO()
    print_study(folder, console=Console(file=text, width=100))
    said = " ".join(text.getvalue().split())
    assert "bern 0.755* 0.655 0.605" in said
    assert "bern -> toronto 0.150 0.050 0.100 0.2812 6" in said
    assert "False alarms: a network trained at bern predicts a structure in 0.50 of the" in said
    assert "Of 9 pairs" in said


def test_a_half_finished_study_says_what_is_missing(tmp_path: Path) -> None:
    folder = fill_study(tmp_path, seeds=("",), pictures=False)
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    jobs.loc[jobs["part"] == "leave_site_out", ["status", "seconds"]] = ["waiting", ""]
    lost = jobs.index[(jobs["train"] == '["bern"]') & (jobs["fold"] == "1")]
    jobs.loc[lost, "status"] = "failed"
    jobs.to_csv(folder / "jobs.csv", index=False)
    for path in folder.glob("jobs/*/attribution.csv"):
        path.unlink()
    write_table(folder, acquired(read_rows(folder / "rows.csv")))
    page = write_study_report(folder).read_text(encoding="utf-8")
    name = jobs.loc[lost[0], "job"]
    answer = section(page, "Answer")
    assert f"{name} failed; its output is in jobs/{name}.log" in answer
    assert "3 jobs have not finished: leave_site_out-" in answer
    said = section(page, "Left out")
    assert "the shift at bern is of 3 of its 6 patients" in said
    assert "how much another training would differ: one seed" in said
    assert page.count('<td class="number">3 of 6</td>') == 2  # bern, seen from the two others
    for what in ("curves of growing shifts", "which shift it is", "worst cases"):
        assert what in said
    assert "Trained at several sites" not in page
    assert "jobs 5 of 9 done" in section(page, "What was run")


def test_nothing_of_earlier_contents_stays(tmp_path: Path) -> None:
    """A job that is gone from jobs.csv, or failed since, leaves no table, figure or number."""
    folder = fill_study(tmp_path, seeds=("0",), patients=2)
    write_study_report(folder)
    drawn = ["figures/matrix.png", "figures/gaps.png", "figures/curves.png", "figures/overlays"]
    assert all((folder / name).exists() for name in drawn)
    (folder / "figures" / "mine.png").touch()
    assert len(pd.read_csv(folder / "attribution.csv")) > 0
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    jobs.head(1).assign(status="failed").to_csv(folder / "jobs.csv", index=False)
    (folder / "rows.csv").unlink()
    page = write_study_report(folder).read_text(encoding="utf-8")
    assert pd.read_csv(folder / "attribution.csv").empty
    assert "Which shift is it?" not in page
    assert not any((folder / name).exists() for name in drawn)
    assert (folder / "figures" / "mine.png").exists()
    assert "memory" not in section(page, "What was run")  # a summary.json of each job lies there


def test_the_page_says_on_whom_networks_were_chosen(tmp_path: Path) -> None:
    folder = fill_study(tmp_path, sites=("bern", "dijon"), seeds=("0",), patients=2)
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str")["job"]
    assert "Chosen by" not in write_study_report(folder).read_text(encoding="utf-8")
    for job in jobs:
        config = {"selection": "source_val"}
        (folder / "jobs" / f"{job}.json").write_text(json.dumps({"config": config}))
    page = write_study_report(folder).read_text(encoding="utf-8")
    head = page.split("<h2>")[0]
    assert "Chosen by selection=source_val, patients of the training sites." in head
    assert 'class="trouble"' not in head
    config = {"selection": "oracle"}
    (folder / "jobs" / f"{jobs[0]}.json").write_text(json.dumps({"config": config}))
    head = write_study_report(folder).read_text(encoding="utf-8").split("<h2>")[0]
    assert "selection=source_val, patients of the training sites (3 of 4 jobs)." in head
    assert "selection=oracle, patients of the sites that it is tested at (1 of 4 jobs)" in head
    assert '<p class="trouble">1 of 4 jobs were chosen on patients of the sites that they' in head
    text = io.StringIO()
    print_study(folder, console=Console(file=text, width=300))
    assert "1 of 4 jobs were chosen on" in text.getvalue()


def test_the_own_network_beside_a_worst_case_is_of_the_same_variant_and_seed(
    tmp_path: Path,
) -> None:
    sites, variants = ("bern", "dijon"), ("loss=dice", "loss=focal")
    folder = fill_study(tmp_path, sites=sites, seeds=("0", "1"), variants=variants, patients=2)
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    rows = read_rows(folder / "rows.csv")
    foreign = (
        (jobs["train"] == '["bern"]') & (jobs["variant"] == "loss=focal") & (jobs["seed"] == "1")
    )
    worst = rows["run"].isin(jobs.loc[foreign, "job"]) & rows["set"].str.startswith("site-")
    rows.loc[worst & (rows["metric"] == "dice") & ~rows["reference_empty"], "value"] = 0.1
    write_table(folder, rows)
    study = read_study(folder)
    shown = worst_pictures(study.rows, folder, measure=DICE, structures=["liver", "tumour"])
    first, own, *_ = shown["dijon"]
    assert first.where.endswith("trained at bern, loss=focal")
    assert own.where.endswith("trained at dijon, loss=focal")
    case = first.where.split(",")[0]
    theirs = study.rows[
        (study.rows["case"] == case)
        & (study.rows["set"] == "in_domain")
        & (study.rows["metric"] == "dice")
        & (study.rows["variant"] == "loss=focal")
        & (study.rows["corruption"] == "")
    ]
    means = theirs.groupby("seed")["value"].mean()
    assert means["0"] != pytest.approx(means["1"])
    assert own.head == f"dice {means['1']:.3f}"
    # Without that network's results there is no other in its place.
    without = study.rows[(study.rows["seed"] != "1") | (study.rows["train"] != '["dijon"]')]
    alone = worst_pictures(without, folder, measure=DICE, structures=["liver", "tumour"])["dijon"]
    assert [picture.where.count("trained at dijon") for picture in alone] == [0, 0]


def test_a_job_of_two_parts_is_one_pair_and_one_job_on_the_page(tmp_path: Path) -> None:
    """Also in the means of the curves, though bern, which is named again, loses more there."""
    folder = fill_study(tmp_path, sites=("bern", "dijon"), seeds=("0",), pictures=False)
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    rows = read_rows(folder / "rows.csv")
    hit = rows["run"].str.startswith("single_source-bern") & (rows["severity"] == 3)
    rows.loc[hit, "value"] *= 0.3
    write_table(folder, rows)
    once = write_study_report(folder).read_text(encoding="utf-8")
    again = jobs[jobs["train"] == '["bern"]'].assign(part="again")
    pd.concat([jobs, again]).to_csv(folder / "jobs.csv", index=False)
    twice = write_study_report(folder).read_text(encoding="utf-8")
    for title in ("Answer", "What is lost, and why", "Under a growing shift"):
        assert section(twice, title) == section(once, title)
    assert "4 jobs" in section(twice, "What was run")
    assert "jobs 4 of 4 done" in section(twice, "What was run")
    assert "bern (again)" in section(twice, "Trained here")


def test_areas_under_the_curves_are_on_the_page(page: str) -> None:
    """In domain and elsewhere the mean falls by 0.05 a severity up to 3, and stays there."""
    lost = (0.025 + 0.075 + 0.125 + 2 * 0.15) / 5
    table = section(page, "Under a growing shift")
    numbers = [float(text) for text in table.split(" lost noise ")[1].split()]
    assert numbers[2::3] == pytest.approx([lost, lost], abs=1e-3)
    assert numbers[0] - numbers[1] == pytest.approx(lost, abs=2e-3)


def test_a_study_without_results_has_a_page(tmp_path: Path) -> None:
    write_jobs(
        tmp_path, [{"job": "A", "part": "p", "train": '["A"]', "status": "failed", "seconds": ""}]
    )
    page = write_study_report(tmp_path).read_text(encoding="utf-8")
    assert "There is no pair of a training and a test site" in page
    assert "A failed" in page
    assert "no job has finished" in page
    print_study(tmp_path, console=Console(file=io.StringIO()))


def test_one_site_one_case_and_undefined_values_have_a_page(tmp_path: Path) -> None:
    job = {"job": "A", "part": "p", "train": '["A"]', "seconds": "nan", "steps": ""}
    write_jobs(tmp_path, [job])
    write_measures(tmp_path, MEASURES.values())
    rows = [
        row("A", "in_domain", "a", "A", math.nan),
        row("A", "in_domain", "a", "A", 3.0, metric="hd95_mm"),
        row("A", "in_domain", "a", "A", math.nan, structure="tumour"),
    ]
    write_rows(tmp_path / "rows.csv", rows)
    page = write_study_report(tmp_path).read_text(encoding="utf-8")
    assert "all cases are of one site, A" in page
    assert "no interval" in page


def test_hostile_names_and_commas_reach_page_and_tables_whole(tmp_path: Path) -> None:
    names = ("<b>a</b>, a+b", "x" * 200, "NA")
    folder = fill_study(
        tmp_path,
        sites=names,
        seeds=("0",),
        variants=("model=<i>, b", "model=c"),
        noises=(0,),
        patients=2,
    )
    page = write_study_report(folder).read_text(encoding="utf-8")
    for name in names:
        assert name.replace("<", "&lt;").replace(">", "&gt;") in page
    assert "<b>a" not in page
    assert "<i>, b" not in page
    with (folder / "matrix.csv").open(encoding="utf-8", newline="") as file:
        assert {line["site"] for line in csv.DictReader(file)} == set(names)
    assert "Variants compared" in page
    text = io.StringIO()
    print_study(folder, console=Console(file=text, width=120))
    assert "NA" in text.getvalue()


def test_thirty_sites_fit(tmp_path: Path) -> None:
    sites = [f"hospital-{number:02}" for number in range(30)]
    folder = fill_study(
        tmp_path,
        sites=sites,
        trained=sites[:1],
        seeds=("0",),
        patients=2,
        pictures=False,
        noises=(0,),
    )
    page = write_study_report(folder).read_text(encoding="utf-8")
    assert "all but hospital-00" in page
    assert page.count('<th><span class="soft">tested at</span> hospital-29</th>') >= 1
    assert "the worst 24 of 30 pairs" in page


def test_a_chosen_metric_is_that_of_answers_and_ranks(tmp_path: Path) -> None:
    folder = fill_study(
        tmp_path, sites=("bern", "dijon"), seeds=("0",), pictures=False, noises=(0,)
    )
    page = write_study_report(folder, metric="hd95_mm").read_text(encoding="utf-8")
    assert "is worse by 4.5 hd95_mm" in section(page, "Answer")
    with pytest.raises(InputError, match=r"metric 'nsd': the study has measured dice, hd95_mm, "):
        write_study_report(folder, metric="nsd")


def test_a_study_may_be_judged_as_post_processing_left_its_masks(tmp_path: Path) -> None:
    folder = fill_study(tmp_path, seeds=("0",), pictures=False, noises=(0,))
    rows = read_rows(folder / "rows.csv")
    after = rows.assign(postprocessed=True, value=rows["value"] + 0.05)
    write_table(folder, pd.concat([rows, after]))
    told = "Masks are judged as post-processing left them."
    for postprocessed, mean in ((False, "bern 0.750 "), (True, "bern 0.800 ")):
        page = write_study_report(folder, postprocessed=postprocessed).read_text()
        assert (told in page) == postprocessed
        assert mean in section(page, "Trained here, tested there").split("more: by structure")[0]


def test_a_site_may_be_called_like_two_and_a_severity(tmp_path: Path) -> None:
    """Networks of A and of B stand beside the one of A+B 3, on the page and in a terminal."""
    folder = fill_study(tmp_path, sites=("A", "B", "A+B 3"), seeds=("0",), noises=(0, 3))
    page = write_study_report(folder).read_text(encoding="utf-8")
    matrix = page.split("<h2>Trained here")[1].split("</table>")[0]
    assert re.findall(r'title="(.*?)">(.*?)</th>', matrix) == [
        ("A", "A"), ("A+B 3", "A+B 3"), ("B", "B"), ("A+A+B 3", "A and A+B 3"), ("A+B", "A and B"),
        ("A+B 3+B", "A+B 3 and B"),
    ]  # fmt: skip
    assert re.findall(r"tested at</span> (.*?)</th>", matrix) == ["A", "A+B 3", "B"]
    # Framed is only what was trained there: A+B 3 is no network of A, nor of B.
    lines = matrix.split("<tr")[2:]
    assert [line.count('class="own"') for line in lines] == [1, 1, 1, 2, 2, 2]
    answer = section(page, "Answer")
    assert "A network trained at A and B loses 0.150 dice" in answer
    assert "at A+B 3 (6 patients), of which 0.050 because A+B 3 is harder" in answer
    assert "no set was tested under one" not in page
    assert "noise hurts most" in page
    assert ">A+B 3</td>" in page.split("<summary>9 jobs")[1]
    text = io.StringIO()
    print_study(folder, console=Console(file=text, width=100))
    assert "A and B -> A+B 3" in text.getvalue()
    assert "A+B 3 -> B" in text.getvalue()


class Recorder:
    """A run of wandb that keeps what it is given."""

    def __init__(self) -> None:
        self.logged: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.log = self.logged.update


def test_tables_figures_page_and_numbers_are_logged(folder: Path) -> None:
    run = Recorder()
    log_study_results(run, folder)
    assert set(run.logged) == {
        "matrix", "gaps", "leave_site_out", "failures", "shifts", "shift_areas", "attribution",
        "jobs", "curves", "report",
    }  # fmt: skip
    assert len(run.logged["jobs"].data) == 18
    assert isinstance(run.logged["curves"], wandb.Image)
    assert run.summary["study/bern/toronto/gap/dice"] == pytest.approx(0.15)


def test_without_a_key_the_summary_run_is_offline_and_in_the_group(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    started = {}
    init = wandb.init
    monkeypatch.setattr(wandb, "init", lambda **about: started.update(about) or init(**about))
    log_study(folder, project="segshift", group="a-study")
    assert (started["group"], started["name"]) == ("a-study", folder.name)
    assert "offline" in capsys.readouterr().out
    assert list((folder / "wandb").glob("offline-run-*"))
