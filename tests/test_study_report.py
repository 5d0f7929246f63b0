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
from rich.console import Console
from study_inputs import EVIL, fill_study, row, write_jobs
from test_browser import contrast

from segshift.report.heat import Scale, heat_of
from segshift.report.study import write_study_report
from segshift.report.study_attribution import pair_verdicts, read_attributions
from segshift.report.study_console import print_study
from segshift.report.study_curves import curves_sentence, most_harmful
from segshift.report.study_lanes import ELSEWHERE, HERE, LANES, SEVERAL, study_lanes
from segshift.report.study_page import failure_lines
from segshift.report.study_words import answers, overview, train_label
from segshift.report.study_worst import worst_pictures
from segshift.results import (
    case_means,
    line_names,
    read_study,
    shift_table,
    train_test_matrix,
    write_rows,
)
from segshift.results.curves import shift_areas
from segshift.tracking import log_study, log_study_results

SITES = ("bern", "dijon", "toronto")
GAP = {
    "part": "single_source", "variant": "", "train": "dijon", "set": "site-toronto",
    "site": "toronto", "metric": "dice", "structure": "mean", "gap": 0.08, "gap_low": 0.05,
    "gap_high": 0.11, "harder": 0.02, "shift": 0.06, "shift_low": 0.04, "shift_high": 0.08,
    "p": 0.01, "p_holm": 0.02, "patients": 8, "tested": 8, "unpaired": 0,
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


def test_page_says_question_command_answer_and_cost(page: str) -> None:
    assert "How well will it do &lt;at&gt; the next hospital?" in page
    assert "<code>python study.py study=cross_site</code>" in page
    answer = section(page, "Answer")
    assert "Of 9 pairs of training and test site 7 lose dice, with the whole interval" in answer
    assert (
        "A network trained at bern loses 0.150 dice [0.097, 0.203] at toronto (6 patients), of "
        "which 0.050 because toronto is harder and 0.100 because of the shift [0.100, 0.100] "
        "(p 0.031, Holm 0.28)." in answer
    )
    assert "Incomplete" not in answer
    assert "time of all jobs 18 min 0 s time per job 60.0 s" in section(page, "What was run")
    assert page.count('href="jobs/') == 18
    assert "Left out" not in page


def test_cells_of_the_heat_map_are_those_of_the_matrix(folder: Path, page: str) -> None:
    matrix = section(page, "Trained here, tested there").split("more: by structure")[0]
    assert "bern 0.755 [0.72, 0.79] n 6 0.655 [0.62, 0.69] n 6 0.605 [0.57, 0.64] n 6" in matrix
    assert "2 seeds: 0.750 to 0.760; single_source-bern" in page  # what pointing at a cell says
    table = pd.read_csv(folder / "matrix.csv").query("metric == 'dice' and structure == 'mean'")
    assert page.split("<details>")[0].count('style="background: #') == len(table)


def test_page_loads_nothing_and_trusts_no_name(page: str) -> None:
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<b>U" not in page
    assert not re.search(r'(src|href)="(?!data:|jobs/|#|[\w.]+")', page)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", page)


def test_left_out_site_has_its_own_table(page: str) -> None:
    table = section(page, "Trained at several sites")
    # in domain, outside, gap, harder, shift, the oracle and the share of failures
    assert "toronto bern and dijon 0.755 [0.732, 0.778] 0.605 [0.568, 0.642] 0.150" in table
    assert table.split("toronto bern and dijon")[1].split("dijon")[0].endswith("0.705 0% ")


def test_the_pairs_are_listed_from_the_largest_gap_on(page: str) -> None:
    lines = page.split("9 pairs</summary>")[1].split("</table>")[0].split("<tr>")[2:]
    gaps = [float(re.findall(r"[-\d.]+", re.sub("<.*?>", " ", line))[6]) for line in lines]
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
    (sentence,) = answers(gaps, metric=values.get("metric", "dice"), sites=SITES)
    assert said in sentence
    assert overview(gaps, metric="dice") == ""  # one pair is said already


def test_training_sites_are_said_shortly() -> None:
    assert train_label("dijon", SITES) == "dijon"
    assert train_label("bern+dijon", SITES) == "bern and dijon"
    many = [f"s{number:02}" for number in range(30)]
    assert train_label("+".join(many[:-1]), many) == "all but s29"
    assert train_label("+".join(many[:3]), many) == "s00, s01 and s02"


@pytest.mark.parametrize("metric", ["dice", "hd95_mm"])
def test_ink_can_be_read_on_every_colour_and_the_best_is_bright(metric: str) -> None:
    scale = Scale(metric, 0.0, 1.0)
    for value in np.linspace(0, 1, 101):
        ground, ink = (f"rgb{tuple(bytes.fromhex(c[1:]))}" for c in scale.colours(value))
        assert contrast(ink, ground) >= 4.5
    best = 1.0 if metric == "dice" else 0.0
    assert scale.colours(best)[1] == "#000000"
    assert scale.colours(1 - best)[1] == "#ffffff"
    signed = Scale.of(pd.Series([-2.0, 0.1, 1.0]), metric="volume_difference_relative")
    assert signed.ends == ("+-2.000", "+-0.100")
    assert signed.colours(-2.0) == signed.colours(2.0) != signed.colours(0.1)
    assert Scale.of(pd.Series([math.nan]), metric=metric).low == 0
    assert Scale.of(pd.Series([0.5]), metric=metric).colours(0.5)


def test_heat_map_has_networks_of_one_site_first_and_gaps_where_nothing_was_measured(
    folder: Path,
) -> None:
    study = read_study(folder)
    lines = train_test_matrix(study.rows).query("metric == 'dice' and structure == 'mean'")
    lines = lines[(lines["train"] != "bern") | (lines["site"] != "toronto")]
    scale = Scale.of(lines["mean"], metric="dice")
    heat = heat_of(lines, names=line_names(study.jobs), sites=SITES, scale=scale)
    assert list(heat.columns) == list(SITES)
    assert [line.name for line in heat.lines] == [
        "bern", "dijon", "toronto", "bern and dijon", "bern and toronto", "dijon and toronto",
    ]  # fmt: skip
    assert [cell.own if cell else None for cell in heat.lines[0].cells] == [True, False, None]


def test_lanes_are_the_own_network_then_those_that_do_not_know_the_site(folder: Path) -> None:
    study = read_study(folder)
    rows = study.rows[~study.rows["set"].str.contains("noise")]
    names = line_names(study.jobs)
    lanes = study_lanes(
        case_means(rows), train_test_matrix(rows), metric="dice", names=names, sites=SITES
    )
    at_toronto = lanes.groups["", "toronto"]
    assert [(lane.name, lane.colour) for lane in at_toronto[:4]] == [
        ("toronto", HERE), ("bern and dijon", SEVERAL), ("bern", ELSEWHERE), ("dijon", ELSEWHERE),
    ]  # fmt: skip
    assert [lane.inside for lane in at_toronto[:2]] == [None, 70.5]
    assert at_toronto[1].mean == 60.5
    assert sorted(dot.text for dot in at_toronto[0].dots)[0] == f"{EVIL}: 0.755"
    assert len(at_toronto) <= LANES


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
    directions = {"dice": True, "hd95_mm": False}
    return shift_areas(curves, directions, by=["part", "variant", "train"])


def test_each_share_of_failures_has_its_n() -> None:
    """Of ten cases four have a lesion: one of them is missed."""
    line = {"variant": "", "train": "a", "set": "site-b", "site": "b"}
    shares = {"failed": 0.1, "failed_n": 10, "empty": 0.25, "empty_n": 4}
    (told,), _, without = failure_lines(pd.DataFrame([line | shares]), sites=["a", "b"])
    assert (told["failed"], told["empty"], without) == (("10%", 10), ("25%", 4), 0)


def test_curves_name_the_shift_that_hurts_most(folder: Path) -> None:
    curves = shift_table(read_study(folder).rows)
    mild = curves.assign(shift="mild", mean=curves["mean"] + 0.01 * (curves["severity"] > 0))
    both = pd.concat([mild, curves])
    assert most_harmful(areas_of(both), metric="dice") == ["noise", "mild"]
    assert most_harmful(areas_of(both), metric="hd95_mm") == ["mild", "noise"]  # 0.01 mm more there
    start, end = (curves_sentence(areas_of(both), metric="dice").split()[place] for place in (5, 7))
    assert float(start) - float(end) == pytest.approx(0.15, abs=0.0011)
    assert "hurts most" in curves_sentence(areas_of(both), metric="dice")
    better = curves.assign(mean=curves["mean"] + 0.5 * (curves["severity"] > 0))
    assert "No shift hurts" in curves_sentence(areas_of(better), metric="dice")
    assert curves_sentence(areas_of(curves[:0]), metric="dice") == ""


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
    assert "Of 9 pairs" in said


def test_a_half_finished_study_says_what_is_missing(tmp_path: Path) -> None:
    folder = fill_study(tmp_path, seeds=("",), pictures=False)
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    jobs.loc[jobs["part"] == "leave_site_out", ["status", "seconds"]] = ["waiting", ""]
    lost = jobs.index[(jobs["train"] == "bern") & (jobs["fold"] == "1")]
    jobs.loc[lost, "status"] = "failed"
    jobs.to_csv(folder / "jobs.csv", index=False)
    for path in folder.glob("jobs/*/attribution.csv"):
        path.unlink()
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    rows[~rows["set"].str.contains("noise")].to_csv(folder / "rows.csv", index=False)
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
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False, dtype={"value": float})
    foreign = (jobs["train"] == "bern") & (jobs["variant"] == "loss=focal") & (jobs["seed"] == "1")
    worst = rows["run"].isin(jobs.loc[foreign, "job"]) & rows["set"].str.startswith("site-")
    rows.loc[worst, "value"] = 0.1
    rows.to_csv(folder / "rows.csv", index=False)
    study = read_study(folder)
    shown = worst_pictures(study.rows, folder, metric="dice", structures=["liver", "tumour"])
    first, own, *_ = shown["dijon"]
    assert first.where.endswith("trained at bern, loss=focal")
    assert own.where.endswith("trained at dijon, loss=focal")
    case = first.where.split(",")[0]
    theirs = study.rows[
        (study.rows["case"] == case)
        & (study.rows["set"] == "in_domain")
        & (study.rows["metric"] == "dice")
        & (study.rows["variant"] == "loss=focal")
    ]
    means = theirs.groupby("seed")["value"].mean()
    assert means["0"] != pytest.approx(means["1"])
    assert own.head == f"dice {means['1']:.3f}"
    # Without that network's results there is no other in its place.
    without = study.rows[(study.rows["seed"] != "1") | (study.rows["train"] != "dijon")]
    alone = worst_pictures(without, folder, metric="dice", structures=["liver", "tumour"])["dijon"]
    assert [picture.where.count("trained at dijon") for picture in alone] == [0, 0]


def test_a_job_of_two_parts_is_one_pair_and_one_job_on_the_page(tmp_path: Path) -> None:
    """Also in the means of the curves, though bern, which is named again, loses more there."""
    folder = fill_study(tmp_path, sites=("bern", "dijon"), seeds=("0",), pictures=False)
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False, dtype={"value": float})
    hit = rows["run"].str.startswith("single_source-bern") & rows["set"].str.endswith("noise3")
    rows.loc[hit, "value"] *= 0.3
    rows.to_csv(folder / "rows.csv", index=False)
    once = write_study_report(folder).read_text(encoding="utf-8")
    again = jobs[jobs["train"] == "bern"].assign(part="again")
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
        tmp_path, [{"job": "A", "part": "p", "train": "A", "status": "failed", "seconds": ""}]
    )
    page = write_study_report(tmp_path).read_text(encoding="utf-8")
    assert "There is no pair of a training and a test site" in page
    assert "A failed" in page
    assert "no job has finished" in page
    print_study(tmp_path, console=Console(file=io.StringIO()))


def test_one_site_one_case_and_undefined_values_have_a_page(tmp_path: Path) -> None:
    write_jobs(tmp_path, [{"job": "A", "part": "p", "train": "A", "seconds": "nan", "steps": ""}])
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
