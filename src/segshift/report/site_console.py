"""The means of a run in a terminal: a line per set and site, then by guideline and rater.

What stands beside the chosen metric is what no mean tells: how well people agree on the same
images, how many patients were failed, and what is predicted where nothing is.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.metrics import FalseAlarm, Measure
from segshift.report.cells import failed_patients
from segshift.report.console import INTERVAL, empty_table
from segshift.report.measures import digits, interval, records, the_worst_site, written
from segshift.results import (
    MEAN,
    acquired,
    group_tables,
    of_network,
    of_raters,
    site_table,
    with_raters,
)

MOST_COLUMNS = 10_000  # wider than any terminal
Place = tuple[str, str]  # set, and site or group


@dataclass(frozen=True, slots=True)
class Column:
    """What a table shows of every place; of `rank` above 0 it may be left out, the highest first.

    `about` is how a sentence names it that was left out.
    """

    heading: str
    cells: Mapping[Place, str]
    about: str = ""
    rank: int = 0


def print_site_table(
    rows: pd.DataFrame,
    *,
    measure: Measure,
    others: Sequence[Measure] = (),
    console: Console | None = None,
) -> None:
    """Print one line per set and site: `measure` per structure, its mean and interval, n.

    `rows` are all of a run. Beside the network's mean stand that of the raters, the patients that
    were failed and the false alarms, where there are any to tell, and the first of the `others`;
    n is the number of its cases in which `measure` is defined. The worst site of the summary is
    marked. What does not fit (the others from the last one, then the structures, then what stands
    beside) is left out and named, as no name is broken.
    """
    console = console or Console()
    own = acquired(of_network(rows))
    sites = with_raters(site_table(own), acquired(of_raters(rows)))
    worst = the_worst_site(own, measure)
    place = (worst.set, worst.site) if worst else None
    _print_fitting(sites, "site", measure=measure, others=others, worst=place, console=console)


def print_group_tables(
    rows: pd.DataFrame,
    cases: pd.DataFrame,
    *,
    measure: Measure,
    others: Sequence[Measure] = (),
    console: Console | None = None,
) -> None:
    """Print the same by each column of the cases in `group_tables`, if there is any.

    `rows` are all rows of a run.
    """
    console = console or Console()
    shown = acquired(rows)
    tables = group_tables(of_network(shown), cases, raters=of_raters(shown))
    for by, groups in tables.items():
        _print_fitting(groups, by, measure=measure, others=others, worst=None, console=console)


def _print_fitting(
    lines: pd.DataFrame,
    by: str,
    *,
    measure: Measure,
    others: Sequence[Measure],
    worst: Place | None,
    console: Console,
) -> None:
    """The widest table that the console has room for, and what it leaves out."""
    columns = list(_columns(lines, by, measure=measure, others=others))
    title = f"{measure.name} per {by}"
    for most in sorted({column.rank for column in columns}, reverse=True):
        shown = [column for column in columns if column.rank <= most]
        table = _table(title, ["set", by], shown, worst=worst)
        if _width(table, console) <= console.width:
            break
    console.print(table)
    absent = [column.about for column in columns if column not in shown]
    if absent:
        console.print(Text(f"no room for {', '.join(absent)}: see report.html"))


def _columns(
    lines: pd.DataFrame, by: str, *, measure: Measure, others: Sequence[Measure]
) -> Iterator[Column]:
    """Structures, their mean, what stands beside it, other metrics, n."""
    of_structures = {
        str(name): {(line["set"], line[by]): line for line in records(own)}
        for name, own in lines.groupby("structure")
    }
    means = of_structures.pop(MEAN)
    several = len(of_structures) > 1
    for name, own in of_structures.items():
        values = {key: _value(own.get(key, {}), measure) for key in means}
        yield Column(name, values, name, rank=4 if several else 0)
    if several:
        yield Column(MEAN, {key: _value(line, measure) for key, line in means.items()})
    yield Column(INTERVAL, {key: interval(line, measure) or "-" for key, line in means.items()})
    for heading, rank, told in (
        ("raters", 3, _raters),
        ("failed", 1, _failed),
        ("false\nalarms", 2, _false_alarms),
    ):
        cells = {key: told(line, measure) for key, line in means.items()}
        if any(cells.values()):
            shown = {key: text or "-" for key, text in cells.items()}
            yield Column(heading, shown, heading.replace("\n", " "), rank)
    for rank, other in enumerate(_known(others, means.values(), measure), start=5):
        cells = {key: _value(line, other) for key, line in means.items()}
        yield Column(other.name, cells, other.name, rank)
    yield Column("n", {key: str(line[f"{measure.name}_n"]) for key, line in means.items()})


def _known(
    others: Iterable[Measure], lines: Iterable[Mapping[str, Any]], measure: Measure
) -> list[Measure]:
    """Those of which some line has a value, without what has a column already."""
    shown = {measure.name, FalseAlarm.name}
    found = [dict(line) for line in lines]
    return [
        other
        for other in others
        if other.name not in shown and any(pd.notna(line.get(other.name)) for line in found)
    ]


def _value(line: Mapping[str, Any], measure: Measure) -> str:
    return written(line.get(measure.name), digits(measure))


def _raters(line: Mapping[str, Any], measure: Measure) -> str:
    mean = line.get(f"{measure.name}_raters")
    return "" if mean is None or pd.isna(mean) else written(mean, digits(measure))


def _failed(line: Mapping[str, Any], measure: Measure) -> str:
    failed = failed_patients(line, measure)
    return f"{failed.patients} of {failed.of}" if failed else ""


def _false_alarms(line: Mapping[str, Any], measure: Measure) -> str:
    share = line.get(FalseAlarm.name)
    if share is None or pd.isna(share) or measure.name == FalseAlarm.name:
        return ""
    return f"{share:.2f} n {line[f'{FalseAlarm.name}_n']}"


def _table(
    title: str, names: Sequence[str], columns: Sequence[Column], *, worst: Place | None
) -> Table:
    table = empty_table(title, names)
    for column in columns:
        table.add_column(Text(column.heading), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for key in columns[-1].cells:
        marked = key == worst
        table.add_row(
            *map(Text, key),
            *(column.cells[key] for column in columns),
            "worst" if marked else "",
            style="bold red" if marked else "",
        )
    return table


def _width(table: Table, console: Console) -> int:
    """What the table takes where no cell is broken."""
    boundless = console.options.update_width(MOST_COLUMNS)
    return table.__rich_measure__(console, boundless).maximum
