"""The tables in a terminal: per site, by guideline and rater, failures, runs compared."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.report.measures import (
    decimals_beside,
    digits,
    interval,
    main_metrics,
    records,
    worst_site,
    written,
)
from segshift.results import (
    MEAN,
    Comparison,
    failure_profile,
    group_tables,
    is_shifted,
    site_table,
)
from segshift.results.significance import CAN_REACH_5_PERCENT

ALL_OTHERS = 3  # more metrics than these beside the chosen one would not fit; the page has all
INTERVAL = "95% interval"
MOST_COLUMNS = 10_000  # wider than any terminal
FAILURES = {
    "failed": "Dice < 0.1",
    "empty": "nothing predicted",
    "false_blobs": "with false blobs",
}


def print_site_table(
    rows: pd.DataFrame, *, metric: str, higher_is_better: bool, console: Console | None = None
) -> None:
    """Print one line per set and site: `metric` per structure, its mean and interval, others, n.

    The site with the worst mean of `metric` is marked if there is more than one; n is the number of
    its cases in which `metric` is defined. Of more than three other metrics two usual ones stay;
    what still does not fit (the others from the last one, then the structures) is left out, as no
    name is broken.
    """
    console = console or Console()
    sites = site_table(rows)
    worst = worst_site(sites, metric=metric, higher_is_better=higher_is_better)
    _print_fitting(
        sites, by="site", metric=metric, others=_others(rows, metric), worst=worst, console=console
    )


def print_group_tables(
    rows: pd.DataFrame, cases: pd.DataFrame, *, metric: str, console: Console | None = None
) -> None:
    """Print the same by each column of the cases in `group_tables`, if there is any."""
    console, others = console or Console(), _others(rows, metric)
    for column, groups in group_tables(rows, cases).items():
        _print_fitting(groups, by=column, metric=metric, others=others, worst=None, console=console)


def print_failures(rows: pd.DataFrame, *, console: Console | None = None) -> None:
    """Print the share of each kind of failure by run, set and site, each with n: its values.

    Sites without a failure and sets under a shift have no line; a sentence if no site has one.
    """
    console = console or Console()
    profile = failure_profile(rows[~rows["set"].map(is_shifted)])
    kinds = [kind for kind in FAILURES if kind in profile]
    if not kinds:
        return
    failed = profile[(profile[kinds] > 0).any(axis=1)]
    if failed.empty:
        sites = "1 site" if len(profile) == 1 else f"{len(profile)} sites"
        console.print(f"failures: none at {sites} of {_several(rows)}")
        return
    several = rows["run"].nunique() > 1
    names = ["run", "set", "site"] if several else ["set", "site"]
    table = empty_table("failures per site: share of the structures of all cases", names)
    for kind in kinds:
        table.add_column(FAILURES[kind], justify="right")
    for line in failed.to_dict("records"):
        shares = [f"{_share(line[kind])} n {line[f'{kind}_n']}" for kind in kinds]
        table.add_row(*(Text(str(line[name])) for name in names), *shares)
    console.print(table)


def print_comparison(
    comparison: Comparison, *, left_out: Iterable[str] = (), console: Console | None = None
) -> None:
    """Print for each set the runs with their ranks, then all differences with both tests."""
    console = console or Console()
    better = "higher" if comparison.higher_is_better else "lower"
    for set_, runs in comparison.runs.groupby("set"):
        title = f"{set_}: {comparison.metric}, {better} is better"
        console.print(_runs(runs, comparison.metric, title=title))
        of_set = comparison.differences[comparison.differences["set"] == set_]
        console.print(_differences(of_set, comparison.metric))
    tests = len(comparison.differences)
    console.print(
        "p: sign flips of patients, p (W.): Wilcoxon's signed ranks; Holm: that p corrected for "
        f"{tests} comparison{'s' if tests > 1 else ''}"
    )
    few = comparison.runs[comparison.runs["patients"] < CAN_REACH_5_PERCENT]
    for set_, patients in dict(zip(few["set"], few["patients"], strict=True)).items():
        reach = f"{2 / 2**patients:.2g}"
        who = f"{patients} patient" + ("s" if patients > 1 else "")
        console.print(Text(f"{set_}: with {who} neither test can say less than p = {reach}"))
    for sentence in left_out:
        console.print(Text(sentence))


def _runs(runs: pd.DataFrame, metric: str, *, title: str) -> Table:
    table = empty_table(title, ["run"])
    for name in ("mean", INTERVAL, "n", "patients", "rank"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("resamples with rank")
    for line in records(runs):
        shares = {k: line[f"rank_{k}"] for k in range(1, len(runs) + 1)}
        ranks = ", ".join(f"{k}: {_share(share)}" for k, share in shares.items() if share > 0)
        numbers = (line["n"], line["patients"], line["rank"])
        cells = *_estimate(line, "mean", metric=metric), *map(str, numbers), ranks or "-"
        table.add_row(Text(line["run"]), *cells)
    return table


def _differences(differences: pd.DataFrame, metric: str) -> Table:
    table = empty_table("", ["run", "minus"])
    for name in ("", INTERVAL, "n", "p", "Holm", "p (W.)", "Holm"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in records(differences):
        names = Text(line["run"]), Text(line["baseline"])
        tests = ("sign_flip_p", "sign_flip_holm", "wilcoxon_p", "wilcoxon_holm")
        p = (f"{line[test]:.4f}" for test in tests)
        estimate = _estimate(line, "difference", metric=metric, sign="+")
        table.add_row(*names, *estimate, str(line["n"]), *p)
    return table


def _estimate(
    line: Mapping[str, Any], name: str, *, metric: str, sign: str = "-"
) -> tuple[str, str]:
    """A number of a comparison and its interval, all with the same decimals."""
    number, low, high = (line[key] for key in (name, "low", "high"))
    decimals = decimals_beside([number, low, high], least=digits(metric))
    bounds = "-" if pd.isna(low) else f"[{low:.{decimals}f}, {high:.{decimals}f}]"
    return f"{number:{sign}.{decimals}f}", bounds


def _print_fitting(
    lines: pd.DataFrame,
    *,
    by: str,
    metric: str,
    others: list[str],
    worst: tuple[str, str] | None,
    console: Console,
) -> None:
    """The first table that the console has room for, else the narrowest, and what it leaves out."""
    names = [name for name in lines["structure"].unique() if name != MEAN]
    structures = [*names, MEAN] if len(names) > 1 else names
    shown = [(structures, others[:count]) for count in range(len(others), -1, -1)]
    shown += [([MEAN], [])] if len(names) > 1 else []
    for columns, more in shown:
        table = _table(lines, by=by, metric=metric, structures=columns, others=more, worst=worst)
        if _width(table, console) <= console.width:
            break
    console.print(table)
    absent = [name for name in (*structures, *others) if name not in (*columns, *more)]
    if absent:
        console.print(Text(f"no room for {', '.join(absent)}: see report.html"))


def _width(table: Table, console: Console) -> int:
    """What the table takes where no cell is broken."""
    boundless = console.options.update_width(MOST_COLUMNS)
    return table.__rich_measure__(console, boundless).maximum


def _table(
    lines: pd.DataFrame,
    *,
    by: str,
    metric: str,
    structures: list[str],
    others: list[str],
    worst: tuple[str, str] | None,
) -> Table:
    values = lines.pivot(index=["set", by], columns="structure", values=metric)
    means = lines[lines["structure"] == MEAN].set_index(["set", by])
    table = empty_table(f"{metric} per {by}", ["set", by])
    for name in [*structures, INTERVAL, *others, "n"]:
        table.add_column(Text(name), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for key in means.index:
        mean = {str(name): value for name, value in means.loc[key].items()}
        cells = [written(values.loc[key, name], digits(metric)) for name in structures]
        cells.append(interval(mean, metric) or "-")
        cells += [written(mean[other], digits(other)) for other in others]
        marked = key == worst
        table.add_row(
            *map(Text, key),
            *cells,
            str(mean[f"{metric}_n"]),
            "worst" if marked else "",
            style="bold red" if marked else "",
        )
    return table


def empty_table(title: str, names: Iterable[str]) -> Table:
    """A table without lines, whose columns `names` are text."""
    table = Table(title=Text(title) if title else None, title_justify="left", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for name in names:
        table.add_column(name, overflow="fold")  # two cut names could look the same
    return table


def _others(rows: pd.DataFrame, metric: str) -> list[str]:
    others = sorted(set(rows["metric"]) - {metric})
    return others if len(others) <= ALL_OTHERS else main_metrics(others, metric=metric)[1:]


def _several(rows: pd.DataFrame) -> str:
    names = rows["run"].unique()
    return f"{len(names)} runs" if len(names) > 1 else "the run"


def _share(share: float) -> str:
    if pd.isna(share):
        return "-"
    return f"{100 * share:.0f}%" if share == 0 or share >= 0.005 else "<1%"
