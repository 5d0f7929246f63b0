"""Several runs compared, as tables in a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.metrics import Measure
from segshift.report.console import INTERVAL, empty_table, share
from segshift.report.measures import decimals_beside, digits, records
from segshift.results import Comparison, Failed, set_label
from segshift.results.pairing import SHOWN, of_sets, sets_of
from segshift.results.significance import CAN_REACH_5_PERCENT


def print_comparison(
    comparison: Comparison, *, left_out: Iterable[str] = (), console: Console | None = None
) -> None:
    """Print for each set the runs with their ranks, then all differences with their test."""
    console = console or Console()
    measure = comparison.measure
    for key in sets_of(comparison.differences):
        title = f"{set_label(*key)}: {measure.name}, {measure.better} is better"
        console.print(_runs(of_sets(comparison.runs, [key]), measure, title=title))
        console.print(_differences(of_sets(comparison.differences, [key]), measure))
    tests = len(comparison.differences)
    several = f"{tests} comparison{'s' if tests > 1 else ''} of {measure.name}"
    console.print(Text(f"p: sign flips of patients; Holm: that p corrected for {several}"))
    few = comparison.differences[comparison.differences["patients"] < CAN_REACH_5_PERCENT]
    for line in records(few.drop_duplicates(SHOWN)):
        patients = line["patients"]
        who = f"{patients} patient" + ("s" if patients > 1 else "")
        name = set_label(*(line[level] for level in SHOWN))
        reach = f"with {who} no p can be below {2 / 2**patients:.2g}"
        console.print(Text(f"{name}: {reach}, and no mean has an interval"))
    for sentence in left_out:
        console.print(Text(sentence))


def _runs(runs: pd.DataFrame, measure: Measure, *, title: str) -> Table:
    table = empty_table(title, ["run"])
    for name in ("mean", INTERVAL, "n", "patients"):
        table.add_column(name, justify="right", no_wrap=True)
    has_failures = "failed_of" in runs and bool(runs["failed_of"].notna().any())
    if has_failures:
        table.add_column("patients with Dice < 0.1")
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("resamples with rank")
    for line in records(runs):
        places = {k: line.get(f"rank_{k}") for k in range(1, len(runs) + 1)}
        ranks = ", ".join(f"{k}: {share(of)}" for k, of in places.items() if of and of > 0)
        cells = [*_estimate(line, "mean", measure=measure), str(line["n"]), str(line["patients"])]
        if has_failures:
            cells.append(_failed(line))
        rank = "-" if pd.isna(line["rank"]) else str(line["rank"])
        table.add_row(Text(line["run"]), *cells, rank, ranks or "-")
    return table


def _differences(differences: pd.DataFrame, measure: Measure) -> Table:
    table = empty_table("", ["run", "minus"])
    for name in ("", INTERVAL, "n", "p", "Holm"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in records(differences):
        names = Text(line["run"]), Text(line["baseline"])
        p = (f"{line[test]:.4f}" for test in ("p", "p_holm"))
        estimate = _estimate(line, "difference", measure=measure, sign="+")
        table.add_row(*names, *estimate, str(line["n"]), *p)
    return table


def _estimate(
    line: Mapping[str, Any], name: str, *, measure: Measure, sign: str = "-"
) -> tuple[str, str]:
    """A number of a comparison and its interval, all with the same decimals."""
    number, low, high = (line[key] for key in (name, "low", "high"))
    decimals = decimals_beside([number, low, high], least=digits(measure))
    bounds = "-" if pd.isna(low) else f"[{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{number:{sign}.{decimals}f}", bounds


def _failed(line: Mapping[str, Any]) -> str:
    if pd.isna(line["failed_of"]):
        return "-"
    return Failed(int(line["failed_patients"]), int(line["failed_of"])).told
