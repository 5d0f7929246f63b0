"""The tables in a terminal: per site, and by guideline and rater where those say more."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.report.measures import digits, worst_site, written
from segshift.results import MEAN, group_tables, site_table


def print_site_table(
    rows: pd.DataFrame, *, metric: str, higher_is_better: bool, console: Console | None = None
) -> None:
    """Print one line per set and site: `metric` per structure, the mean of every metric, n.

    The site with the worst mean of `metric` is marked if there is more than one; n is the number of
    its cases in which `metric` is defined.
    """
    others = sorted(set(rows["metric"]) - {metric})
    sites = site_table(rows)
    worst = worst_site(sites, metric=metric, higher_is_better=higher_is_better)
    table = _table(sites, by="site", metric=metric, others=others, worst=worst)
    (console or Console()).print(table)


def print_group_tables(
    rows: pd.DataFrame, cases: pd.DataFrame, *, metric: str, console: Console | None = None
) -> None:
    """Print the same by each column of the cases in `group_tables`, if there is any."""
    others = sorted(set(rows["metric"]) - {metric})
    for column, groups in group_tables(rows, cases).items():
        (console or Console()).print(_table(groups, by=column, metric=metric, others=others))


def _table(
    lines: pd.DataFrame,
    *,
    by: str,
    metric: str,
    others: list[str],
    worst: tuple[str, str] | None = None,
) -> Table:
    values = lines.pivot(index=["set", by], columns="structure", values=metric)
    means = lines[lines["structure"] == MEAN].set_index(["set", by])
    names = list(values.columns.drop(MEAN))
    structures = [*names, MEAN] if len(names) > 1 else names
    table = Table(title=f"{metric} per {by}", title_justify="left", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for name in ("set", by):
        table.add_column(name, overflow="fold")  # two cut names could look the same
    for name in [*structures, *others, "n"]:
        table.add_column(Text(name), justify="right")
    table.add_column("")
    for key in means.index:
        cells = [written(values.loc[key, name], digits(metric)) for name in structures]
        cells += [written(means.loc[key, other], digits(other)) for other in others]
        marked = key == worst
        table.add_row(
            *map(Text, key),
            *cells,
            str(means.loc[key, f"{metric}_n"]),
            "worst" if marked else "",
            style="bold red" if marked else "",
        )
    return table
