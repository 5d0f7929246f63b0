"""The benchmarks run; what they measure is not tested."""

import json
import os
import re
import subprocess
import sys

import pytest
from conftest import ROOT, TINY_TRAINING, composed

from segshift import run

# Benchmarks one after the other, in one process that pays for its imports once.
IN_TURN = """
import json, runpy, sys
for name, *arguments in json.load(sys.stdin):
    sys.argv = [name, *arguments]
    print("\\n# " + name, flush=True)
    runpy.run_path(name, run_name="__main__")
"""
TOGETHER = (
    ("intervals.py", "--rows=40", "--resamples=100", "--repeats=1"),
    ("coverage.py", "--studies=1", "--resamples=100"),
    ("shifts.py", "--edge=12", "--repeats=1"),
    ("metrics.py", "--size", "32", "32", "24", "--repeats=1"),
    ("losses.py", "focal", "--size=24", "--repeats=1"),  # the last: it tells malloc to give back
)


def printed(*command: str, **options: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT / "bench",
        capture_output=True, encoding="utf-8", check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"}, **options,
    )  # fmt: skip
    return done.stdout


@pytest.fixture(scope="module")
def tables() -> dict[str, list[list[str]]]:
    """What each benchmark of TOGETHER prints."""
    text = printed("-c", IN_TURN, input=json.dumps(TOGETHER))
    parts = (part.split("\n", 1) for part in text.split("\n# ")[1:])
    return {name: table(rest) for name, rest in parts}


def table(text: str) -> list[list[str]]:
    """The cells of Markdown tables, spaces around them taken off."""
    lines = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines]


def test_intervals_are_timed(tables):
    rows = tables["intervals.py"][2:]
    assert rows
    assert all(float(row[1]) >= 0 for row in rows)


def test_coverage_is_measured_of_few_and_many_patients(tables):
    rows = [row for row in tables["coverage.py"] if len(row) == 4][2:]
    assert [row[0] for row in rows] == ["4", "6", "12", "25", "60"]
    for _, *shares in rows:
        assert all(30 < float(share.removesuffix(" %")) <= 100 for share in shares)


def test_losses_are_measured_and_the_boundary_is_scipys(tables):
    rows = tables["losses.py"]
    (loss,) = [row for row in rows if row[0] == "`focal`"]
    assert all(float(cell) > 0 for cell in loss[1:])
    distance_mm, value = (float(cell.split()[0]) for cell in rows[-1][3:])
    assert distance_mm < 1e-4
    assert value < 1e-4


def test_the_store_is_read_warm_and_cold_and_its_memory_is_measured():
    small = ("--edge=32", "--volumes=2", "--rounds=1", "--cases", "2", "3", "--reads=20")
    rows = table(printed("store.py", *small))
    (rates,) = [row for row in rows if row[0] == "segshift"]
    assert all(float(cell) > 0 for cell in rates[2:])
    memory = [[float(cell) for cell in row] for row in rows if row[0] in ("2", "3")]
    assert len(memory) == 2
    assert all(0 < before <= after for _, before, after in memory)


def test_metrics_are_measured_and_agree_with_monais(tables):
    ours, theirs, ratio, difference = tables["metrics.py"][-1]
    assert float(ours.split()[0]) >= 0
    assert float(theirs.split()[0]) > 0
    assert float(ratio) > 0
    assert float(difference) < 1e-5


def test_shifts_are_timed_against_preprocessing(tables):
    rows = tables["shifts.py"][2:]
    assert len(rows) == 1 + 19
    assert all(float(row[1]) >= 0 for row in rows)
    assert {"`motion`", "`stain`", "`reconstruction`"} <= {row[0] for row in rows}


def test_choices_of_a_post_processing_are_counted():
    rows = table(printed("postprocessing.py", "--draws=2", "--patients", "8"))[2:]
    assert len({(row[0], row[1]) for row in rows}) == len(rows) == 6
    assert all(0 <= float(row[3].removesuffix(" %")) <= 100 for row in rows)


def test_a_manifest_is_read_and_checked():
    text = printed("manifest.py", "50")
    assert "cases    50" in text
    seconds, peak_mb = re.findall(r"together ([\d.]+) s, peak memory (\d+) MB", text)[0]
    assert float(seconds) >= 0
    assert int(peak_mb) > 0


@pytest.mark.slow
def test_both_sides_of_the_inference_are_measured(tmp_path, phantom, no_page):
    config = composed(*phantom, *TINY_TRAINING)
    run.train(config, tmp_path / "run", command="", choices={})
    text = printed("inference.py", f"checkpoint={tmp_path / 'run'}", "rounds=1", "cases=1")
    sides = {row[0]: [float(cell) for cell in row[1:]] for row in table(text)[2:]}
    assert set(sides) == {"monai", "segshift"}
    for seconds, cpu_seconds, dice, peak_mb in sides.values():
        assert seconds > 0
        assert cpu_seconds > 0
        assert 0 <= dice <= 1
        assert peak_mb > 100
    ratio = sides["monai"][0] / sides["segshift"][0]
    (told,) = re.findall(r"([\d.]+) times as fast", text)
    assert float(told) == pytest.approx(ratio, rel=0.1)
