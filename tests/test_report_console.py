"""The tables in a terminal: every site a line, the worst marked, no name cut."""

import io
import re
from pathlib import Path

import pandas as pd
import pytest
from report_inputs import DICE, HD95, fill
from rich.console import Console

from segshift.report import print_failures, print_group_tables, print_site_table
from segshift.report.measures import interval, worst_site
from segshift.results import read_cases, read_rows, site_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("run"))


def printed(rows: pd.DataFrame, *, width: int = 100, **chosen) -> list[str]:
    file = io.StringIO()
    print_site_table(rows, **(chosen or DICE), console=Console(file=file, width=width))
    return file.getvalue().splitlines()


def cells(line: str) -> list[str]:
    """An interval and its title count as one."""
    return re.sub(r"\[(\S+), (\S+)\]", r"[\1,\2]", line).replace("95% interval", "interval").split()


def between(rows: pd.DataFrame, metric: str, site: str) -> str:
    table = site_table(rows)
    (line,) = table[(table["site"] == site) & (table["structure"] == "mean")].to_dict("records")
    return interval(line, metric).replace(" ", "")


def marked(lines: list[str]) -> list[str]:
    return [line.split()[1] for line in lines if line.rstrip().endswith("worst")]


def test_the_console_table_has_one_line_per_site_and_marks_the_worst(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    lines = printed(rows)
    (header,) = [line for line in lines if "hd95_mm" in line]
    assert cells(header) == [
        "set",
        "site",
        "liver",
        "tumour",
        "mean",
        "interval",
        "hd95_mm",
        "n",
    ]
    (dijon,) = [line for line in lines if "dijon" in line]
    assert cells(dijon) == [
        "in_domain",
        "dijon",
        "0.840",
        "0.820",
        "0.830",
        between(rows, "dice", "dijon"),
        "5.1",
        "4",
    ]
    assert marked(lines) == ["bern"]


def test_the_console_table_of_a_distance_has_the_means_of_all_other_metrics(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    volumes = rows[rows["metric"] == "dice"].assign(metric="volume_ml", value=2.5)
    lines = printed(pd.concat([rows, volumes]), **HD95)
    assert lines[0].strip() == "hd95_mm per site"
    (header,) = [line for line in lines if "liver" in line]
    assert cells(header) == [
        "set",
        "site",
        "liver",
        "tumour",
        "mean",
        "interval",
        "dice",
        "volume_ml",
        "n",
    ]
    (dijon,) = [line for line in lines if "dijon" in line]
    assert cells(dijon) == [
        "in_domain",
        "dijon",
        "4.8",
        "5.4",
        "5.1",
        between(rows, "hd95_mm", "dijon"),
        "0.830",
        "2.500",
        "4",
    ]
    assert marked(lines) == ["bern"]


def test_the_console_never_cuts_a_name_and_reads_no_markup_in_it(run: Path) -> None:
    rows = read_rows(run / "rows.csv").replace({"site": {"bern": "[red]bern[/red]"}})
    text = "".join(printed(rows, width=80))
    assert "\u2026" not in text
    assert "[red]" in text


def test_the_console_prints_one_site_without_distances(run: Path) -> None:
    rows = read_rows(run / "rows.csv").query("site == 'dijon' and metric == 'dice'")
    text = "\n".join(printed(rows.query("structure == 'liver'")))
    assert "0.840" in text
    assert not re.search("worst|mean|hd95", text)


def test_the_console_has_a_table_by_rater(run: Path) -> None:
    file = io.StringIO()
    print_group_tables(
        read_rows(run / "rows.csv"),
        read_cases(run / "cases.csv"),
        metric="dice",
        console=Console(file=file, width=100),
    )
    lines = file.getvalue().splitlines()
    assert [line.strip() for line in lines if " per " in line] == ["dice per rater"]
    (header,) = [line for line in lines if "hd95_mm" in line]
    assert cells(header) == [
        "set",
        "rater",
        "liver",
        "tumour",
        "mean",
        "interval",
        "hd95_mm",
        "n",
    ]
    (ann,) = [line for line in lines if line.split()[:2] == ["in_domain", "ann"]]
    assert cells(ann) == ["in_domain", "ann", "0.900", "-", "0.900", "-", "3.0", "1"]


def test_a_site_under_a_shift_is_not_marked(run: Path) -> None:
    rows = read_rows(run / "rows.csv")
    noisy = rows[rows["set"] == "site-toronto"].assign(set="site-toronto+noise3", value=0.2)
    assert marked(printed(pd.concat([rows, noisy]))) == ["bern"]


def test_a_signed_metric_has_no_worst_site(run: Path) -> None:
    rows = read_rows(run / "rows.csv").query("metric == 'dice'")
    rows = rows.assign(metric="volume_difference_relative", value=rows["value"] - 1)
    signed = {"metric": "volume_difference_relative", "higher_is_better": False}
    assert worst_site(site_table(rows), **signed) is None
    assert not marked(printed(rows, **signed))


def test_what_has_no_room_is_named_and_no_name_is_broken(run: Path) -> None:
    """Three structures in a terminal of 80 columns, then in one that is far too narrow."""
    rows = read_rows(run / "rows.csv")
    kidney = rows[rows["structure"] == "liver"].assign(structure="kidney")
    rows = pd.concat([rows, kidney, rows[rows["metric"] == "dice"].assign(metric="nsd_2mm")])
    for width, shown, absent in (
        (120, ["kidney", "liver", "tumour", "mean", "hd95_mm", "nsd_2mm"], []),
        (80, ["kidney", "liver", "tumour", "mean"], ["hd95_mm", "nsd_2mm"]),
        (60, ["mean"], ["kidney", "liver", "tumour", "hd95_mm", "nsd_2mm"]),
    ):
        text = "\n".join(printed(rows, width=width))
        (head,) = [line for line in text.splitlines() if " mean " in line]
        assert [word for word in cells(head) if word in (*shown, *absent)] == shown
        for name in ("in_domain", "site-toronto", "site-bern", "dijon", "toronto", "bern", "worst"):
            assert re.search(rf"(^|\s){name}\s", text), (width, name)
        note = f"no room for {', '.join(absent)}: see report.html"
        assert (note in " ".join(text.split())) == bool(absent)


def test_each_share_of_failures_has_its_own_n(run: Path) -> None:
    """23 Dice, of which two are 0; false blobs were counted in four cases of one structure."""
    rows = read_rows(run / "rows.csv").query("metric == 'dice'")
    blobs = rows.query("structure == 'liver'").assign(metric="lesion_false_positives", value=1.0)
    file = io.StringIO()
    print_failures(pd.concat([rows, blobs]), console=Console(file=file, width=100))
    (bern,) = [line.split() for line in file.getvalue().splitlines() if "bern" in line]
    assert " ".join(bern) == "site-bern bern 25% n 8 100% n 4"


def test_without_a_failure_there_is_a_sentence(run: Path) -> None:
    rows = read_rows(run / "rows.csv").query("metric == 'dice'").assign(value=0.9)
    for some, told in ((rows, "3 sites"), (rows.query("site == 'bern'"), "1 site")):
        file = io.StringIO()
        print_failures(some, console=Console(file=file, width=100))
        assert file.getvalue().startswith(f"failures: none at {told} of ")
