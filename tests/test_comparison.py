"""Runs are compared on what all of them measured, patient by patient, and it says what was not."""

import io
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from comparison_inputs import LEVEL, three_runs, write, write_run
from rich.console import Console
from row_inputs import DICE, row

from segshift.report.comparison import comparison_figure
from segshift.report.comparison_console import print_comparison
from segshift.report.console import print_failures
from segshift.results import (
    Comparison,
    bootstrap_means,
    compare,
    pair,
    patient_means,
    read_rows,
    read_runs,
    sign_flip_p,
)


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return three_runs(tmp_path)


def compared(paths: list[Path]) -> Comparison:
    return compare(pair(read_runs(paths), metric="dice"), measure=DICE)


def test_a_constant_difference_is_found_exactly_and_beyond_chance(three: list[Path]) -> None:
    comparison = compared(three)
    first, second, _ = comparison.differences.to_dict("records")
    assert (first["baseline"], first["run"], first["n"]) == ("base", "better", 40)
    for number in ("difference", "low", "high"):
        assert first[number] == pytest.approx(0.05)
    assert first["p"] == 1 / 10_001
    assert first["p_holm"] == pytest.approx(3 / 10_001)
    assert second["low"] < 0 < second["high"]
    assert second["p"] > 0.05
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
    assert back["p"] == pytest.approx(forth["p"])


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
    assert "2 of 24 values left out, which are undefined for some of the runs only" in text
    assert "so these runs were judged against different references" in text


def test_a_rare_structure_is_in_every_resample_that_counts(tmp_path: Path) -> None:
    def run(name: str, lesion: float) -> Path:
        def dice(p: int, s: str) -> float:
            return 0.95 if s == "liver" else (lesion + 0.01 * p if p < 6 else math.nan)

        return write(tmp_path / name, dice, patients=30)

    comparison = compared([run("a", 0.1), run("b", 0.4)])
    (line,) = comparison.differences.to_dict("records")
    # All lesions are better by 0.3, the livers equal: no resample has another difference.
    for number in ("difference", "low", "high"):
        assert line[number] == pytest.approx(0.15)
    ranks = comparison.runs.set_index("run")
    assert ranks["rank_1"].to_dict() == {"a": 0.0, "b": 1.0}
    assert ranks["high"].max() < 0.7


def test_p_is_of_the_very_difference_that_is_shown(tmp_path: Path) -> None:
    """A patient adds to it by structure, the more the fewer have that; cases are averaged first."""
    gains = np.random.default_rng(5).normal(0.02, 0.04, (12, 2))

    def of(run: str, *, better: bool) -> Path:
        rows = [
            row(
                run,
                "in_domain",
                f"c{p}-{c}",
                "A",
                0.5 + better * gain,
                patient=f"p{p}",
                structure=s,
            )
            for p, of_patient in enumerate(gains)
            for s, gain, patients in zip(("liver", "tumour"), of_patient, (12, 7), strict=True)
            for c in range(1 + p % 3)
            if p < patients
        ]
        return write_run(tmp_path / run, rows)

    line = compared([of("a", better=False), of("b", better=True)]).differences.iloc[0]
    adds = gains[:, 0] / 12
    adds[:7] += gains[:7, 1] / 7
    assert line["difference"] == pytest.approx(adds.sum() / 2)
    assert line["p"] == sign_flip_p(adds)
    assert 0.01 < line["p"] < 0.5


@pytest.mark.parametrize("patients", [1, 5, 6])
def test_of_fewer_than_six_patients_there_is_neither_interval_nor_ranking(
    tmp_path: Path, patients: int
) -> None:
    paths = [
        write(tmp_path / n, lambda p, s, d=d: LEVEL[p] + d, patients=patients)
        for n, d in (("a", 0.0), ("b", 0.1))
    ]
    comparison = compared(paths)
    few = patients < 6
    assert comparison.differences[["low", "high"]].isna().all(axis=None) == few
    assert comparison.runs[["low", "high", "rank_1", "rank_2"]].isna().all(axis=None) == few
    assert comparison.runs["rank"].tolist() == [2, 1]
    assert comparison.differences["p"].eq(2 / 2**patients).all()
    file = io.StringIO()
    print_comparison(comparison, console=Console(file=file, width=100))
    who = "1 patient" if patients == 1 else f"{patients} patients"
    told = f"in_domain: with {who} no p can be below {2 / 2**patients:.2g}, and no mean has an"
    assert (told in file.getvalue()) == few
    comparison_figure(comparison, patient_means(pair(read_runs(paths), metric="dice")))


def test_a_rare_structure_takes_the_interval_of_the_mean_away(tmp_path: Path) -> None:
    def of(base: float) -> Callable[[int, str], float]:
        return lambda p, s: math.nan if s == "tumour" and p >= 5 else base

    comparison = compared([write(tmp_path / "a", of(0.5)), write(tmp_path / "b", of(0.6))])
    assert comparison.differences["difference"].tolist() == pytest.approx([0.1])
    for table in (comparison.differences[["low", "high"]], comparison.runs[["low", "rank_1"]]):
        assert table.isna().all(axis=None)


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
    expected = "base in_domain A 2 of 20 failed: 1 to 32 % 5% n 80"  # values: 4 of 80
    assert " ".join(line.split()) == expected
