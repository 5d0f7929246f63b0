"""Runs are compared on what all of them measured, patient by patient, and it says what was not."""

import argparse
import inspect
import io
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from segshift import metrics
from segshift.cli_compare import add_compare_command
from segshift.errors import InputError
from segshift.report.comparison import comparison_figure
from segshift.report.console import print_comparison, print_failures
from segshift.results import (
    Row,
    bootstrap_means,
    compare,
    higher_is_better,
    pair,
    patient_means,
    read_rows,
    read_runs,
    write_rows,
)

LEVEL = np.random.default_rng(0).uniform(0.5, 0.9, 20)


def write(
    path: Path, dice: Callable[[int, str], float], *, patients: int = 20, run: str = "", **odd
) -> Path:
    """Two cases of each patient, of a liver and a tumour; `dice(patient, structure)`."""
    rows = [
        Row(run or path.name, "in_domain", f"c{p}-{c}", f"p{p}", "A", s, "dice", dice(p, s))
        for p in range(patients)
        for c in range(2)
        for s in odd.get("structures", ("liver", "tumour"))
    ]
    write_rows(path / "rows.csv", rows)
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """The second is better by 0.05 for every patient, the third differs by noise."""
    noise = np.random.default_rng(1).normal(0, 0.02, 20)
    return [
        write(tmp_path / "base", lambda p, s: LEVEL[p]),
        write(tmp_path / "better", lambda p, s: LEVEL[p] + 0.05),
        write(tmp_path / "other", lambda p, s: LEVEL[p] + noise[p]),
    ]


def compared(paths: list[Path]):
    return compare(pair(read_runs(paths), metric="dice"), higher_is_better=True)


def run_command(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    add_compare_command(parser)
    parsed = parser.parse_args(list(map(str, arguments)))
    parsed.run(parsed)


def test_a_constant_difference_is_found_exactly_and_beyond_chance(three: list[Path]) -> None:
    comparison = compared(three)
    first, second, _ = comparison.differences.to_dict("records")
    assert (first["baseline"], first["run"], first["n"]) == ("base", "better", 40)
    for number in ("difference", "low", "high"):
        assert first[number] == pytest.approx(0.05)
    assert first["sign_flip_p"] == 1 / 10_001
    assert first["wilcoxon_p"] < 1e-3
    assert first["sign_flip_holm"] == pytest.approx(3 / 10_001)
    assert second["low"] < 0 < second["high"]
    assert second["sign_flip_p"] > 0.05
    ranks = comparison.runs.set_index("run")
    assert ranks.loc["better", ["rank", "rank_1", "rank_2"]].tolist() == [1, 1.0, 0.0]
    shares = ranks.loc[["base", "other"], ["rank_2", "rank_3"]]
    assert shares.sum(axis=1).tolist() == pytest.approx([1, 1])
    assert 0 < shares.loc["base", "rank_2"] < 1


def test_a_difference_of_patients_is_much_surer_than_that_of_means(three: list[Path]) -> None:
    comparison = compared(three)
    (line,) = comparison.differences.query("run == 'other' and baseline == 'base'").to_dict(
        "records"
    )
    means = comparison.runs.set_index("run").loc["base"]
    assert line["high"] - line["low"] < (means["high"] - means["low"]) / 3


def test_the_means_are_those_of_a_single_run(three: list[Path]) -> None:
    line = compared(three).runs.iloc[0]
    rows = read_rows(three[0] / "rows.csv")
    alone = bootstrap_means(rows["value"], list(rows["patient"]))
    for number in ("mean", "low", "high"):
        assert line[number] == pytest.approx(getattr(alone, number))


def test_swapping_two_runs_turns_the_sign_and_nothing_else(three: list[Path]) -> None:
    forth, back = (compared(paths).differences.iloc[0] for paths in (three[::2], three[::-2]))
    assert back["difference"] == pytest.approx(-forth["difference"])
    assert [back["low"], back["high"]] == pytest.approx([-forth["high"], -forth["low"]])
    for p in ("sign_flip_p", "wilcoxon_p"):
        assert back[p] == pytest.approx(forth[p])


def test_neither_the_order_of_rows_nor_a_second_time_changes_a_bit(three: list[Path]) -> None:
    before = compared(three)
    for path in three:
        header, *lines = (path / "rows.csv").read_text().splitlines()
        shuffled = np.random.default_rng(0).permutation(lines)
        (path / "rows.csv").write_text("\n".join([header, *shuffled]) + "\n")
    after = compared(three)
    pd.testing.assert_frame_equal(after.runs, before.runs, check_exact=True)
    pd.testing.assert_frame_equal(after.differences, before.differences, check_exact=True)


def test_only_what_all_runs_have_is_compared_and_the_rest_is_told(tmp_path: Path) -> None:
    first = write(tmp_path / "a", lambda p, s: LEVEL[p])
    fewer = write(
        tmp_path / "b", lambda p, s: LEVEL[p], patients=12, structures=("liver", "spleen")
    )
    undefined = write(
        tmp_path / "c", lambda p, s: math.nan if p == 3 and s == "liver" else LEVEL[p]
    )
    paired = pair(read_runs([first, fewer, undefined]), metric="dice")
    assert set(paired.values.index.unique("structure")) == {"liver"}
    assert len(paired.values) == 22
    text = "\n".join(paired.left_out)
    assert "a: 16 of 40 cases left out" in text
    assert "a: 1 of 2 structures left out, which not all runs have: tumour" in text
    assert "b: 1 of 2 structures left out, which not all runs have: spleen" in text
    assert "2 of 24 values left out, which are undefined for some" in text


def test_a_rare_structure_is_in_every_resample_that_counts(tmp_path: Path) -> None:
    def run(name: str, lesion: float) -> Path:
        def dice(p: int, s: str) -> float:
            return 0.95 if s == "liver" else (lesion + 0.01 * p if p < 3 else math.nan)

        return write(tmp_path / name, dice, patients=30)

    comparison = compared([run("a", 0.1), run("b", 0.4)])
    (line,) = comparison.differences.to_dict("records")
    # All lesions are better by 0.3, the livers equal: no resample has another difference.
    for number in ("difference", "low", "high"):
        assert line[number] == pytest.approx(0.15)
    ranks = comparison.runs.set_index("run")
    assert ranks["rank_1"].to_dict() == {"a": 0.0, "b": 1.0}
    assert ranks["high"].max() < 0.7


def test_without_a_resample_that_counts_there_is_neither_interval_nor_ranking(
    tmp_path: Path,
) -> None:
    """100 structures of two patients each: no resample draws one of the two of every pair."""
    for name, dice in (("a", 0.5), ("b", 0.6)):
        rows = [
            Row(name, "in_domain", f"c{p}", f"p{p}", "A", f"s{s % 100}", "dice", dice)
            for p in range(100)
            for s in (p, p + 1)
        ]
        write_rows(tmp_path / name / "rows.csv", rows)
    comparison = compared([tmp_path / "a", tmp_path / "b"])
    (line,) = comparison.differences.to_dict("records")
    assert line["difference"] == pytest.approx(0.1)
    assert math.isnan(line["low"])
    assert math.isnan(line["high"])
    assert comparison.runs["mean"].tolist() == pytest.approx([0.5, 0.6])
    assert comparison.runs["rank"].tolist() == [2, 1]
    assert comparison.runs[["low", "high", "rank_1", "rank_2"]].isna().all(axis=None)


def test_one_patient_gives_neither_interval_nor_ranking(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / n, lambda p, s, d=d: d, patients=1) for n, d in (("a", 0.5), ("b", 0.6))
    ]
    comparison = compared(paths)
    assert comparison.differences[["low", "high"]].isna().all(axis=None)
    assert comparison.runs[["low", "high", "rank_1", "rank_2"]].isna().all(axis=None)
    assert comparison.differences[["sign_flip_p", "wilcoxon_p"]].eq(1).all(axis=None)
    file = io.StringIO()
    print_comparison(comparison, console=Console(file=file, width=100))
    assert "with 1 patient neither test can say less than p = 1" in file.getvalue()
    comparison_figure(comparison, patient_means(pair(read_runs(paths), metric="dice")))


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
    changed("elsewhere", ",in_domain,c", ",site-B,d")
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
    assert "failures: none at 3 sites of 3 runs" in printed
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


NOISY = {"in_domain+noise3": 0.8, "in_domain+noise5": 0.7}


def two_runs(folder: Path, dice: dict[str, float]) -> list[Path]:
    """Of three patients in each set, with the same Dice in both."""
    for name in ("a", "b"):
        rows = [
            Row(name, set_, f"c{p}", f"p{p}", "A", "liver", "dice", value)
            for set_, value in dice.items()
            for p in range(3)
        ]
        write_rows(folder / name / "rows.csv", rows)
    return [folder / "a", folder / "b"]


@pytest.mark.parametrize(
    ("options", "expected", "left_out"),
    [
        ([], ["in_domain"], "2 of 3 sets not compared: in_domain+noise3, in_domain+noise5;"),
        (["--shifted"], ["in_domain", *NOISY], ""),
        (["--set", "in_domain+noise3"], ["in_domain+noise3"], "2 of 3 sets not compared: in_dom"),
        (["--set", "in_domain", "--set", "in_domain+noise3"], ["in_domain", *NOISY][:2], "1 of 3"),
    ],
)
def test_sets_under_a_shift_are_compared_if_asked_for(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    expected: list[str],
    left_out: str,
) -> None:
    runs = two_runs(tmp_path, {"in_domain": 0.9, **NOISY})
    run_command(*runs, "-o", tmp_path / "out", "--resamples", 1000, *options)
    lines = pd.read_csv(tmp_path / "out" / "comparison.csv")
    assert lines["set"].tolist() == expected  # as many as Holm's correction counts
    printed = " ".join(capsys.readouterr().out.split())
    assert left_out in printed
    assert ("not compared" in printed) == bool(left_out)
    assert ("--shifted all" in printed) == bool(left_out)


def test_shifted_is_advised_only_if_a_set_under_a_shift_was_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = two_runs(tmp_path, {"in_domain": 0.9, "site-B": 0.8})
    run_command(*runs, "-o", tmp_path / "out", "--resamples", 1000, "--set", "in_domain")
    printed = capsys.readouterr().out
    assert "1 of 2 sets not compared: site-B; --set NAME compares one" in " ".join(printed.split())
    assert "--shifted" not in printed


def test_fewer_resamples_than_rare_structures_need_are_refused(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, {"in_domain": 0.9})
    with pytest.raises(InputError, match="--resamples 999: 1000 or more, 10000 to report"):
        run_command(*runs, "-o", tmp_path / "out", "--resamples", 999)


def test_sets_that_are_not_there_are_named(tmp_path: Path) -> None:
    runs = two_runs(tmp_path, NOISY)
    with pytest.raises(InputError, match=r"--set mine: .* in_domain\+noise3, in_domain\+noise5"):
        run_command(*runs, "--set", "mine")
    with pytest.raises(InputError, match="only sets under a shift: .* --shifted compares them"):
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


def test_a_number_and_its_bounds_have_the_same_decimals(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 1e-4, (2, 20))
    paths = [
        write(tmp_path / "a", lambda p, s: 0.5 + noise[0, p]),
        write(tmp_path / "b", lambda p, s: 0.5002 + noise[1, p]),
        write(tmp_path / "c", lambda p, s: 100 * noise[0, p]),
    ]
    file = io.StringIO()
    print_comparison(compared(paths), console=Console(file=file, width=120))
    seen = re.findall(r"([+-]?\d\.(\d+)) +\[-?\d\.(\d+), -?\d\.(\d+)\]", file.getvalue())
    assert len(seen) == 6
    assert all(len({len(digits) for digits in decimals}) == 1 for _, *decimals in seen)
    assert {len(number.partition(".")[2]) for number, *_ in seen} >= {3, 5}


def test_failures_are_printed_by_run_and_site(three: list[Path]) -> None:
    rows = pd.concat(read_runs(three).values())
    rows.loc[(rows["run"] == "base") & rows["case"].isin(["c0-0", "c1-0"]), "value"] = 0.0
    file = io.StringIO()
    print_failures(rows, console=Console(file=file, width=100))
    (line,) = [line for line in file.getvalue().splitlines() if "in_domain" in line]
    assert line.split() == ["base", "in_domain", "A", "5%", "n", "80"]


def test_the_direction_follows_from_the_names_of_our_metrics() -> None:
    given = {"tolerance_mm": 2.0, "width_mm": 2.0}
    checked = []
    for name in metrics.__all__:
        kind = getattr(metrics, name)
        if not inspect.isclass(kind) or not isinstance(getattr(kind, "higher_is_better", 0), bool):
            continue
        wanted = inspect.signature(kind).parameters
        metric = kind(**{key: value for key, value in given.items() if key in wanted})
        assert higher_is_better(metric.name) == metric.higher_is_better, metric.name
        checked.append(metric.name)
    assert {"dice", "hd95_mm", "nsd_2mm"} <= set(checked)
    assert not any(map(higher_is_better, ("ece", "brier", "nll", "lesion_false_positives_small")))


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
