"""Failures per site in a terminal, and what its tables have in common."""

from collections.abc import Iterable

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.report.measures import records
from segshift.results import MEAN, Failed, acquired, failed_patients, failure_profile

INTERVAL = "95% interval"
FAILURES = {
    "failed": "Dice < 0.1",
    "empty": "nothing predicted",
    "false_alarm": "false alarm",
    "false_blobs": "with false blobs",
}


def print_failures(rows: pd.DataFrame, *, console: Console | None = None) -> None:
    """Print the patients that failed and the share of each kind of failure, with n: its values.

    A line per run, set and site with a failure, of images as they were acquired; a sentence if no
    site has one.
    """
    console = console or Console()
    plain = acquired(rows)
    keys = ["run", "set", "site"]
    profile = failure_profile(plain, by=keys)
    kinds = [kind for kind in FAILURES if kind in profile]
    if not kinds:
        return
    failed = profile[(profile[kinds] > 0).any(axis=1)]
    if failed.empty:
        sites = "1 site" if len(profile) == 1 else f"{len(profile)} sites"
        told = "; ".join(dict.fromkeys(_patients(plain, ["run"]).values()))
        console.print(Text(f"failures: none at {sites} of {_several(rows)}; patients: {told}"))
        return
    names = keys if rows["run"].nunique() > 1 else keys[1:]
    table = empty_table("failures per site: patients, and the share of structures of cases", names)
    for title in ("patients with Dice < 0.1", *(FAILURES[kind] for kind in kinds)):
        table.add_column(title, justify="right")
    patients = _patients(plain, keys)
    for line in records(failed):
        told = patients.get(tuple(line[key] for key in keys), "-")
        shares = [f"{share(line[kind])} n {line[f'{kind}_n']}" for kind in kinds]
        table.add_row(*(Text(str(line[name])) for name in names), told, *shares)
    console.print(table)


def _patients(rows: pd.DataFrame, keys: list[str]) -> dict[tuple[str, ...], str]:
    """By keys how many patients failed in any structure, in words; none without Dice."""
    lines = failed_patients(rows, by=keys)
    return {
        tuple(line[key] for key in keys): Failed(line["failed_patients"], line["failed_of"]).told
        for line in records(lines[lines["structure"] == MEAN])
    }


def empty_table(title: str, names: Iterable[str]) -> Table:
    """A table without lines, whose columns `names` are text."""
    table = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for name in names:
        table.add_column(name, overflow="fold")  # two cut names could look the same
    return table


def _several(rows: pd.DataFrame) -> str:
    names = rows["run"].unique()
    return f"{len(names)} runs" if len(names) > 1 else "the run"


def share(of: float) -> str:
    """A share in percent, or - where there is none; one that is not 0 is not told as 0."""
    if pd.isna(of):
        return "-"
    return f"{100 * of:.0f}%" if of == 0 or of >= 0.005 else "<1%"
