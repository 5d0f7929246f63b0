"""`segshift compare`: what it reads, leaves out, refuses, prints and writes."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from comparison_inputs import run_command, three_runs, write, write_run
from row_inputs import DICE, HD95, row

from segshift.errors import InputError
from segshift.metrics import Better, Measure
from segshift.results import read_runs
from segshift.results.measures import write_measures


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return three_runs(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a"], r"rows of 1 run\(s\); name two or more"),
        (["a", "a"], "is given twice"),
        (["a", "nothing"], r"nothing: no rows\.csv; name the folder of a run"),
        (["a", "elsewhere"], r"no case has dice .* a has sets in_domain, .*elsewhere has sets"),
        (["a", "others"], r"case 'c0-0' is of patient 'p0' in a and of .*'x0' in others"),
        (["a", "distances"], r"distances: no rows of the metric 'dice'; it has hd95_mm"),
    ],
)
def test_what_cannot_be_compared_is_said(tmp_path: Path, names: list[str], message: str) -> None:
    def changed(name: str, old: str, new: str) -> None:
        write(tmp_path / name, lambda p, s: 0.5)
        text = (tmp_path / name / "rows.csv").read_text()
        (tmp_path / name / "rows.csv").write_text(re.sub(old, new, text))

    write(tmp_path / "a", lambda p, s: 0.5)
    changed("elsewhere", ",in_domain,,0,c", ",site-B,,0,d")
    changed("others", r",p(\d)", r",x\1")
    changed("distances", ",dice,", ",hd95_mm,")
    with pytest.raises(InputError, match=message):
        run_command(*(tmp_path / name for name in names), "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [write(tmp_path / n, lambda p, s: 0.5, run="demo/1") for n in ("a", "b")]
    assert list(read_runs(paths)) == ["demo/1", f"demo/1 ({paths[1]})"]
    assert list(read_runs([paths[0] / "rows.csv", paths[1]])) == list(read_runs(paths))


def test_the_command_prints_and_writes_tables_and_a_figure(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_command(*three, "-o", tmp_path / "new" / "out", "--resamples", 1000)
    printed = capsys.readouterr().out
    assert "in_domain: dice, higher is better" in printed
    assert "corrected for 3 comparisons" in printed
    none = "failures: none at 3 sites of 3 runs; patients: 0 of 20 failed: up to 17 %"
    assert none in printed
    runs = pd.read_csv(tmp_path / "new" / "out" / "runs.csv")
    assert runs[["failed_patients", "failed_of"]].to_numpy().tolist() == [[0, 20]] * 3
    folder = tmp_path / "new" / "out"
    assert sorted(p.name for p in folder.iterdir()) == [
        "comparison.csv", "comparison.png", "failures.csv", "runs.csv",
    ]  # fmt: skip
    lines = pd.read_csv(folder / "comparison.csv")
    assert lines["metric"].eq("dice").all()
    assert lines["n"].eq(40).all()
    assert lines["patients"].eq(20).all()
    assert (folder / "comparison.png").stat().st_size > 10_000
    assert "not compared" not in printed  # there is one set


NOISY = {("in_domain", "noise", 3): 0.8, ("in_domain", "noise", 5): 0.7}
WHOLE = {("in_domain", "", 0): 0.9, **NOISY}


def two_runs(folder: Path, dice: dict[tuple[str, str, int], float]) -> list[Path]:
    """Of three patients in each set, with the same Dice in both."""
    for name in ("a", "b"):
        rows = [
            row(name, set_, f"c{p}", "A", value, corruption=corruption, severity=severity)
            for (set_, corruption, severity), value in dice.items()
            for p in range(3)
        ]
        write_run(folder / name, rows)
    return [folder / "a", folder / "b"]


@pytest.mark.parametrize(
    ("options", "expected", "left_out"),
    [
        ([], ["in_domain 0", "site-B 0"], "3 of 5 sets not compared: in_domain, noise 3; in_"),
        (["--shifted"], ["in_domain 0", "in_domain 3", "in_domain 5", "site-B 0", "site-B 3"], ""),
        (["--set", "in_domain"], ["in_domain 0"], "4 of 5 sets not compared: in_domain, noise 3;"),
        (["--set", "site-B", "--shifted"], ["site-B 0", "site-B 3"], "3 of 5 sets not compared"),
    ],
)
def test_sets_under_a_corruption_are_compared_if_asked_for(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: list[str],
    left_out: str,
) -> None:
    runs = two_runs(tmp_path, {**WHOLE, ("site-B", "", 0): 0.8, ("site-B", "noise", 3): 0.6})
    run_command(*runs, "-o", tmp_path / "out", "--resamples", 1000, *options)
    lines = pd.read_csv(tmp_path / "out" / "comparison.csv", keep_default_na=False)
    found = lines["set"] + " " + lines["severity"].astype(str)
    assert found.tolist() == expected  # as many as Holm's correction counts
    assert lines["corruption"].eq("noise").tolist() == [not x.endswith("0") for x in expected]
    printed = " ".join(capsys.readouterr().out.split())
    assert left_out in printed
    assert ("not compared" in printed) == bool(left_out)
    assert ("--shifted also" in printed) == ("--shifted" not in options or bool(left_out))
    assert ("--set NAME" in printed) == ("--set" in options)
    assert ("in_domain, noise 3: dice, higher is better" in printed) == ("in_domain 3" in expected)


def test_shifted_is_advised_only_if_a_set_under_a_corruption_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_runs(tmp_path, {("in_domain", "", 0): 0.9, ("site-B", "", 0): 0.8})
    run_command(*runs, "-o", tmp_path / "out", "--resamples", 1000, "--set", "in_domain")
    printed = capsys.readouterr().out
    assert "1 of 2 sets not compared: site-B. --set NAME compares one" in " ".join(printed.split())
    assert "--shifted" not in printed


def test_fewer_resamples_than_bounds_need_are_refused(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, WHOLE)
    with pytest.raises(InputError, match="--resamples 999: 1000 or more, 10000 to report"):
        run_command(*runs, "-o", tmp_path / "out", "--resamples", 999)


def test_sets_that_are_not_there_are_named(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, NOISY)
    with pytest.raises(InputError, match=r"--set mine: no run has this set; there are in_domain$"):
        run_command(*runs, "--set", "mine")
    with pytest.raises(
        InputError, match="only sets under a corruption: in_domain, noise 3; .* --shifted compares"
    ):
        run_command(*runs)


def test_failures_are_of_the_cases_that_all_runs_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = write(tmp_path / "more", lambda p, s: 0.0 if p >= 12 else 0.9)
    fewer = write(tmp_path / "fewer", lambda p, s: 0.9, patients=12, structures=("liver",))
    run_command(more, fewer, "-o", tmp_path / "out", "--resamples", 1000)
    assert "failures: none at 2 sites of 2 runs" in capsys.readouterr().out
    profile = pd.read_csv(tmp_path / "out" / "failures.csv").set_index("run")
    assert profile["failed"].to_dict() == {"fewer": 0, "more": 0}
    assert profile["failed_n"].to_dict() == {"fewer": 24, "more": 24}


def told_by(folder: Path, *measures: Measure) -> None:
    (folder / "metrics.json").unlink()
    if measures:
        write_measures(folder, measures)


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_which_end_is_better_is_what_the_runs_say(three: list[Path], better: Better) -> None:
    for path in three:
        told_by(path, Measure("dice", "", better))
    files = [path / "rows.csv" for path in three[:2]]  # metrics.json is beside them
    out = three[0].parent / "out"
    run_command(*files, "-o", out, "--resamples", 1000)
    runs = pd.read_csv(out / "runs.csv").set_index("run")
    best = "better" if better == "higher" else "base"
    assert runs["rank"].idxmin() == runs["rank_1"].idxmax() == best
    other = "lower" if better == "higher" else "higher"
    run_command(*files, "-o", out, "--resamples", 1000, "--better", other)
    assert pd.read_csv(out / "runs.csv").set_index("run")["rank"].idxmin() != best


def test_runs_that_do_not_say_what_they_measured_are_asked(three: list[Path]) -> None:
    def message(*options: str) -> str:
        with pytest.raises(InputError) as raised:
            run_command(*three, "-o", three[0].parent / "out", "--resamples", 1000, *options)
        return str(raised.value)

    told_by(three[0])
    run_command(*three, "-o", three[0].parent / "out", "--resamples", 1000)  # others say it
    for path in three[1:]:
        told_by(path, HD95)
    said = "no metrics.json beside the rows says which values of 'dice' are better; say --better"
    assert said in message()
    run_command(*three, "-o", three[0].parent / "out", "--resamples", 1000, "--better", "lower")
    told_by(three[1], DICE)
    told_by(three[2], Measure("dice", "%", "higher"))
    assert "mean different things by 'dice': " in message()
    for path in three[1:]:
        told_by(path, Measure("dice", "", "zero"))
    assert "--metric dice is signed: neither end of it is better" in message()


def test_comparing_needs_no_torch(three: list[Path], tmp_path: Path) -> None:
    code = (
        "import argparse, sys; from segshift.cli_compare import add_compare_command as add; "
        "parser = argparse.ArgumentParser(); add(parser); a = parser.parse_args(); a.run(a); "
        "print([m for m in ('torch', 'monai') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, three), "-o", str(tmp_path / "out")],
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
