"""The benchmarks run; what they measure is not tested."""

import os
import subprocess
import sys

from conftest import ROOT


def test_losses_are_measured_and_the_boundary_is_scipys():
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "losses.py", "focal", "--size=24", "--repeats=1"],
        capture_output=True, encoding="utf-8", check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("|")]
    (loss,) = [row for row in rows if row[0].strip() == "`focal`"]
    assert all(float(cell) > 0 for cell in loss[1:])
    distance_mm, value = (float(cell.split()[0]) for cell in rows[-1][3:])
    assert distance_mm < 1e-4
    assert value < 1e-4
