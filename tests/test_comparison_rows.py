"""Compared beside the plain masks of runs: false alarms, people, post-processed masks."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from comparison_inputs import run_command, write_run
from row_inputs import DICE, row

from segshift.report.comparison import comparison_figure
from segshift.results import Row, bootstrap_means, compare, pair, patient_means
from segshift.results.rows import COLUMNS

SICK = np.random.default_rng(0).uniform(0.7, 0.9, 20)


def frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame([[getattr(r, c) for c in COLUMNS] for r in rows], columns=list(COLUMNS))


def of_patients(run: str, dice: np.ndarray, *, first: int = 0, **other: object) -> list[Row]:
    """A case of each patient, with its lesion's Dice or whatever `metric` says."""
    other = {"reference_empty": False, **other}
    return [
        row(run, "in_domain", f"c{n}", "A", float(value), structure="lesion", **other)
        for n, value in enumerate(dice, first)
    ]


def with_healthy(run: str, alarms: np.ndarray) -> list[Row]:
    """Twenty sick patients, equally good in every run, and as many healthy ones as alarms."""
    nothing = np.full(len(alarms), math.nan)
    empty: dict[str, Any] = {"first": len(SICK), "reference_empty": True}
    return [
        *of_patients(run, SICK),
        *of_patients(run, np.full(len(SICK), math.nan), metric="false_alarm"),
        *of_patients(run, nothing, **empty),
        *of_patients(run, alarms, metric="false_alarm", **empty),
    ]


def tables_of(*arguments: object, out: Path) -> dict[str, pd.DataFrame]:
    run_command(*arguments, "-o", out)
    return {name: pd.read_csv(out / f"{name}.csv") for name in ("comparison", "runs", "failures")}


def test_false_alarms_are_a_difference_of_their_own_and_none_of_dice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = np.repeat([1.0, 0.0], 10)
    folders = [
        write_run(tmp_path / "A", with_healthy("A", half)),
        write_run(tmp_path / "B", with_healthy("B", np.zeros(20))),
    ]
    tables = tables_of(*folders, out=tmp_path / "out")
    lines = tables["comparison"].set_index("metric")
    assert lines.loc["dice", ["difference", "low", "high", "n"]].tolist() == [0, 0, 0, 20]
    assert lines.loc["dice", "p"] == 1
    alarms = lines.loc["false_alarm"]
    assert (alarms["baseline"], alarms["run"], alarms["n"]) == ("A", "B", 20)
    assert alarms["difference"] == -0.5
    assert alarms["low"] < -0.5 < alarms["high"] < 0
    assert alarms["p"] == pytest.approx(2 / 2**10, abs=0.001)  # of ten that differ; signs are drawn
    assert alarms["p_holm"] == alarms["p"]  # a family of its own
    runs = tables["runs"].set_index(["metric", "run"])
    assert runs.loc[("false_alarm", "A"), ["mean", "rank"]].tolist() == [0.5, 2]
    assert runs.loc[("false_alarm", "B"), ["mean", "rank"]].tolist() == [0.0, 1]
    assert runs.loc["dice", "failed_of"].tolist() == [20, 20]
    printed = " ".join(capsys.readouterr().out.split())
    assert "in_domain: false_alarm, lower is better" in printed
    assert "with a Holm correction of its own" in printed
    failures = tables["failures"].set_index("run")
    assert failures["false_alarm"].to_dict() == {"A": 0.5, "B": 0.0}
    assert failures["false_alarm_n"].to_dict() == {"A": 20, "B": 20}


def test_without_healthy_cases_nothing_is_said_of_false_alarms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [write_run(tmp_path / name, with_healthy(name, np.zeros(0))) for name in "AB"]
    assert set(tables_of(*folders, out=tmp_path / "out")["comparison"]["metric"]) == {"dice"}
    assert "false_alarm" not in capsys.readouterr().out


def test_healthy_cases_that_not_all_runs_have_judged_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, dice = with_healthy("A", np.zeros(5)), with_healthy("B", np.zeros(5))
    dice = [each for each in dice if each.metric == "dice"]
    folders = [write_run(tmp_path / "A", whole), write_run(tmp_path / "B", dice)]
    assert set(tables_of(*folders, out=tmp_path / "out")["comparison"]["metric"]) == {"dice"}
    printed = " ".join(capsys.readouterr().out.split())
    assert "cases without a structure are not compared: no such case has false_alarm" in printed


def test_false_alarms_themselves_are_compared_once(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name, with_healthy(name, np.eye(4)[0])) for name in "AB"]
    tables = tables_of(*folders, "--metric", "false_alarm", out=tmp_path / "out")
    assert tables["comparison"]["metric"].tolist() == ["false_alarm"]


def people(values: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = [each for name, own in values.items() for each in of_patients("A", own, rater=name)]
    return frame(rows)


def test_people_are_a_yardstick_without_rank_and_test() -> None:
    runs = {name: frame(of_patients(name, SICK + d)) for name, d in (("A", 0.0), ("B", 0.05))}
    two = {"ann": SICK[:12] - 0.1, "bob": SICK[:12] + 0.1, "cat": SICK[:6]}
    paired = pair(runs, metric="dice")
    raters = people(two)
    # Another run has rows of ann too, who counts once; what is not compared does not count.
    others = people({"ann": np.zeros(20)}).assign(case="another", patient="another")
    raters = pd.concat([raters, raters[raters["rater"] == "ann"].assign(run="B"), others])
    found = compare(paired, measure=DICE, raters=raters)
    line = found.runs.set_index("run").loc["raters"]
    alone = bootstrap_means(SICK[:12], [f"c{n}" for n in range(12)])
    assert line[["mean", "low", "high"]].tolist() == pytest.approx(
        [alone.mean, alone.low, alone.high]
    )
    assert (line["n"], line["patients"]) == (12, 12)
    assert line[["rank", "rank_1", "rank_2"]].isna().all()
    plain = compare(paired, measure=DICE)
    pd.testing.assert_frame_equal(found.differences, plain.differences)
    pd.testing.assert_frame_equal(found.runs.iloc[:2], plain.runs)
    comparison_figure(found, patient_means(paired))


def test_people_who_drew_other_structures_are_no_yardstick() -> None:
    def both(run: str) -> pd.DataFrame:
        rows = of_patients(run, SICK) + [
            row(run, "in_domain", f"c{n}", "A", 0.9, structure="organ") for n in range(20)
        ]
        return frame(rows)

    paired = pair({name: both(name) for name in "AB"}, metric="dice")
    found = compare(paired, measure=DICE, raters=people({"ann": SICK}))
    assert found.runs["run"].tolist() == ["A", "B"]


def test_post_processed_masks_are_compared_only_if_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = of_patients("A", SICK + 0.05, postprocessed=True)
    folders = [
        write_run(tmp_path / "A", of_patients("A", SICK) + chosen),
        write_run(tmp_path / "B", of_patients("B", SICK)),  # which chose no rule
    ]
    (plain,) = tables_of(*folders, out=tmp_path / "out")["comparison"].to_dict("records")
    assert plain["difference"] == 0
    assert "post-processed" not in capsys.readouterr().out
    tables = tables_of(*folders, "--postprocessed", out=tmp_path / "out")
    (line,) = tables["comparison"].to_dict("records")
    assert line["difference"] == pytest.approx(-0.05)
    assert "masks are post-processed where a run chose a rule" in capsys.readouterr().out


def test_people_are_printed_beside_the_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beside = [
        *of_patients("A", SICK - 0.1, rater="ann"),
        *of_patients("A", np.full(20, math.nan), rater="ann", metric="false_alarm"),
    ]
    folders = [
        write_run(tmp_path / "A", of_patients("A", SICK) + beside),
        write_run(tmp_path / "B", of_patients("B", SICK)),
    ]
    runs = tables_of(*folders, out=tmp_path / "out")["runs"].set_index("run")
    assert runs.loc["raters", "mean"] == pytest.approx(SICK.mean() - 0.1)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.strip().startswith("raters")]
    assert line.split()[-3:] == ["-", "-", "-"]  # failed patients, rank, shares
