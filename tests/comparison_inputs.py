"""Runs that are compared: their rows and what they say of their metrics, in folders."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from row_inputs import MEASURES, row

from segshift.cli_compare import add_compare_command
from segshift.results import Row, write_rows
from segshift.results.measures import write_measures

LEVEL = np.random.default_rng(0).uniform(0.5, 0.9, 20)


def write(
    path: Path, dice: Callable[[int, str], float], *, patients: int = 20, run: str = "", **odd
) -> Path:
    """Two cases of each patient, of a liver and a tumour; `dice(patient, structure)`."""
    name = run or path.name
    rows = [
        row(name, "in_domain", f"c{p}-{c}", "A", dice(p, s), patient=f"p{p}", structure=s)
        for p in range(patients)
        for c in range(2)
        for s in odd.get("structures", ("liver", "tumour"))
    ]
    return write_run(path, rows)


def write_run(path: Path, rows: list[Row]) -> Path:
    write_rows(path / "rows.csv", rows)
    write_measures(path, MEASURES.values())
    return path


def three_runs(tmp_path: Path) -> list[Path]:
    """The second is better by 0.05 for every patient, the third differs by noise."""
    noise = np.random.default_rng(1).normal(0, 0.02, 20)
    return [
        write(tmp_path / "base", lambda p, s: LEVEL[p]),
        write(tmp_path / "better", lambda p, s: LEVEL[p] + 0.05),
        write(tmp_path / "other", lambda p, s: LEVEL[p] + noise[p]),
    ]


def run_command(*arguments: object) -> None:
    parser = argparse.ArgumentParser()
    add_compare_command(parser)
    parsed = parser.parse_args(list(map(str, arguments)))
    parsed.run(parsed)
