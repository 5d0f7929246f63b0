"""The tables in a terminal: every site a line, the worst marked, no name cut."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from report_inputs import (
    ALARM,
    ALARM_ML,
    DICE,
    HD95,
    add_postprocessing,
    add_raters,
    add_rows,
    fill,
    row,
)
from rich.console import Console

from segshift.metrics import Measure
from segshift.report import print_failures, print_group_tables, print_site_table
from segshift.report.measures import interval, the_worst_site
from segshift.results import read_cases, read_rows, site_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("run"))


def printed(
    rows: pd.DataFrame, *, width: int = 120, measure: Measure = DICE, others=(HD95,)
) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width)
    print_site_table(rows, measure=measure, others=others, console=console)
    return file.getvalue().splitlines()


def cells(line: str) -> list[str]:
    """An interval, its title, and a count with what it is of are one each."""
    line = re.sub(r"\[(\S+), (\S+)\]", r"[\1,\2]", line).replace("95% interval", "interval")
    return re.sub(r"(\S+) (of|n) (\d+)", r"\1_\2_\3", line).split()


def between(rows: pd.DataFrame, measure: Measure, site: str) -> str:
    table = site_table(rows)
    (line,) = table[(table["site"] == site) & (table["structure"] == "mean")].to_dict("records")
    return interval(line, measure).replace(" ", "")


def marked(lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines if line.rstrip().endswith("worst")]


def test_the_console_table_has_one_line_per_site_and_marks_the_worst(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    lines = printed(rows)
    (header,) = [line for line in lines if "hd95_mm" in line]
    assert cells(header) == [
        "set", "site", "liver", "tumour", "mean", "interval", "failed", "alarms", "hd95_mm", "n",
    ]  # fmt: skip
    assert "false" in lines[lines.index(header) - 1].split()
    (dijon,) = [line for line in lines if "dijon" in line]
    assert cells(dijon) == [
        "in_domain", "dijon", "0.780", "0.760", "0.770", between(rows, DICE, "dijon"), "0_of_7",
        "1.00_n_1", "6.9", "7",
    ]  # fmt: skip
    (bern,) = [line for line in lines if "bern" in line]
    assert cells(bern)[6:8] == ["1_of_7", "-"]
    assert marked(lines) == ["bern"]


def test_the_console_table_of_a_distance_has_the_means_of_all_other_metrics(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    volumes = rows[rows["metric"] == "dice"].assign(metric="volume_ml", value=2.5)
    others = (DICE, Measure("volume_ml", "ml", "lower"), Measure("absent", "", "lower"))
    lines = printed(pd.concat([rows, volumes]), measure=HD95, others=others)
    assert lines[0].strip() == "hd95_mm per site"
    (header,) = [line for line in lines if "liver" in line]
    assert cells(header) == [
        "set", "site", "liver", "tumour", "mean", "interval", "alarms", "dice", "volume_ml", "n",
    ]  # fmt: skip
    (dijon,) = [line for line in lines if "dijon" in line]
    assert cells(dijon) == [
        "in_domain", "dijon", "6.6", "7.2", "6.9", between(rows, HD95, "dijon"), "1.00_n_1",
        "0.770", "2.500", "7",
    ]  # fmt: skip
    assert marked(lines) == ["bern"]


def test_raters_stand_beside_the_network_and_post_processing_does_not(tmp_path: Path) -> None:
    plain = printed(read_rows(fill(tmp_path) / "rows.csv"))
    add_postprocessing(tmp_path)
    assert printed(read_rows(tmp_path / "rows.csv")) == plain
    add_raters(tmp_path)
    lines = printed(read_rows(tmp_path / "rows.csv"), others=())
    (header,) = [line for line in lines if "liver" in line]
    place = cells(header).index("raters")
    (dijon,), (bern,) = ([line for line in lines if site in line] for site in ("dijon", "bern"))
    assert (cells(dijon)[place], cells(bern)[place]) == ("0.930", "-")
    assert cells(dijon)[:6] == cells(next(line for line in plain if "dijon" in line))[:6]


def test_without_a_case_that_lacks_a_structure_there_are_no_false_alarms(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    text = "\n".join(printed(rows[rows["case"] != "dijon-0"], others=(HD95, ALARM, ALARM_ML)))
    assert "alarm" not in text


def test_the_console_never_cuts_a_name_and_reads_no_markup_in_it(run: Path) -> None:
    rows = read_rows(run / "rows.csv").replace({"site": {"bern": "[red]bern[/red]"}})
    text = "".join(printed(rows, width=80))
    assert "\u2026" not in text
    assert "[red]" in text


def test_the_console_prints_one_site_without_distances(run: Path) -> None:
    rows = read_rows(run / "rows.csv").query("site == 'dijon' and metric == 'dice'")
    text = "\n".join(printed(rows.query("structure == 'liver'")))
    assert "0.780" in text
    assert not re.search("worst|mean|hd95", text)


def test_the_console_has_a_table_by_rater(run: Path) -> None:
    file = io.StringIO()
    print_group_tables(
        read_rows(run / "rows.csv"),
        read_cases(run / "cases.csv"),
        measure=DICE,
        others=[HD95],
        console=Console(file=file, width=120),
    )
    lines = file.getvalue().splitlines()
    assert [line.strip() for line in lines if " per " in line] == ["dice per rater"]
    (header,) = [line for line in lines if "hd95_mm" in line]
    assert cells(header) == [
        "set", "rater", "liver", "tumour", "mean", "interval", "failed", "alarms", "hd95_mm", "n",
    ]  # fmt: skip
    (ann,) = [line for line in lines if line.split()[:2] == ["in_domain", "ann"]]
    assert cells(ann) == [
        "in_domain", "ann", "0.900", "-", "0.900", "-", "0_of_1", "1.00_n_1", "3.0", "1",
    ]  # fmt: skip


def test_a_site_under_a_shift_is_not_marked(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    toronto = rows[rows["set"] == "site-toronto"]
    noisy = toronto.assign(corruption="noise", severity=3, value=0.2)
    assert printed(pd.concat([rows, noisy])) == printed(rows)
    assert marked(printed(rows)) == ["bern"]


def test_the_mark_is_at_the_site_of_the_summary(tmp_path: Path) -> None:
    """At oslo one patient has 0.4; the seven of bern have 0.429, of which more is known."""
    fill(tmp_path)
    add_rows(tmp_path, [row("site-oslo", "o", "oslo", s, "dice", 0.4) for s in ("liver", "tumour")])
    assert marked(printed(read_rows(tmp_path / "rows.csv"))) == ["bern"]


def test_a_signed_metric_has_no_worst_site(run: Path) -> None:
    rows = read_rows(run / "rows.csv").query("metric == 'dice'")
    for name in ("volume_difference_relative", "mine"):  # whatever it is called
        signed, judged = Measure(name, "", "zero"), Measure(name, "", "lower")
        own = rows.assign(metric=name, value=rows["value"] - 1)
        assert the_worst_site(own, signed) is None
        assert not marked(printed(own, measure=signed))
        assert marked(printed(own, measure=judged)) == ["dijon"]


def test_what_has_no_room_is_named_and_no_name_is_broken(tmp_path: Path) -> None:
    """Three structures, raters and another metric: what is least goes first."""
    add_raters(fill(tmp_path))
    rows = read_rows(tmp_path / "rows.csv")
    kidney = rows[rows["structure"] == "liver"].assign(structure="kidney")
    rows = pd.concat([rows, kidney, rows[rows["metric"] == "dice"].assign(metric="nsd_2mm")])
    others = (HD95, Measure("nsd_2mm", "", "higher"))
    columns = ["kidney", "liver", "tumour", "mean", "raters", "failed", "alarms"]
    for width, shown, absent in (
        (130, [*columns, "hd95_mm", "nsd_2mm"], []),
        (110, columns, ["hd95_mm", "nsd_2mm"]),
        (85, ["mean", "raters", "failed", "alarms"], ["kidney", "liver", "tumour", "hd95_mm"]),
        (75, ["mean", "failed", "alarms"], ["kidney", "liver", "tumour", "raters"]),
        (60, ["mean"], ["kidney", "liver", "tumour", "raters", "failed", "false alarms"]),
    ):
        lines = printed(rows, width=width, others=others)
        text = "\n".join(lines)
        (head,) = [line for line in lines if " mean " in line]
        assert [word for word in cells(head) if word in (*columns, "hd95_mm", "nsd_2mm")] == shown
        for name in ("in_domain", "site-toronto", "site-bern", "dijon", "toronto", "bern", "worst"):
            assert re.search(rf"(^|\s){name}\s", text), (width, name)
        note = f"no room for {', '.join(absent)}"
        assert (note in " ".join(text.split())) == bool(absent)


def test_each_share_of_failures_has_its_own_n(run: Path) -> None:
    """41 Dice, of which two are 0; false blobs were counted in seven cases of one structure."""
    rows = read_rows(run / "rows.csv").query("metric == 'dice'")
    blobs = rows.query("structure == 'liver'").assign(metric="lesion_false_positives", value=1.0)
    file = io.StringIO()
    print_failures(pd.concat([rows, blobs]), console=Console(file=file, width=100))
    (bern,) = [line.split() for line in file.getvalue().splitlines() if "bern" in line]
    assert " ".join(bern) == ("site-bern bern 1 of 7 failed: 0 to 58 % 14% n 14 100% n 7")


def test_without_a_failure_there_is_a_sentence(run: Path) -> None:
    rows = read_rows(run / "rows.csv").query("metric == 'dice'").assign(value=0.9)
    for some, told in ((rows, "3 sites"), (rows.query("site == 'bern'"), "1 site")):
        file = io.StringIO()
        print_failures(some, console=Console(file=file, width=100))
        assert file.getvalue().startswith(f"failures: none at {told} of ")
