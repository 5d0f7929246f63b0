"""`segshift compare RUN RUN ...`: which run is better, by how much, and whether that is chance.

Reads rows.csv of each run, prints tables and writes comparison.csv, runs.csv, failures.csv and
comparison.png. Sets under a shift are left out unless they are asked for: each would be one more
test that Holm's correction has to pay for. Needs no torch.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from segshift.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 5  # of the sets left out
LEAST_RESAMPLES = 1000  # some count for nothing: those without a rare structure


def add_compare_command(parser: argparse.ArgumentParser) -> None:
    """The options of `segshift compare`; sets `run` to what it does."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, or their rows.csv"
    )
    parser.add_argument("--metric", default="dice", help="which rows to compare; dice")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME",
        help="evaluation set to compare, repeatable; default: all that are under no shift",
    )  # fmt: skip
    parser.add_argument("--shifted", action="store_true", help="also all sets under a shift")
    parser.add_argument(
        "--better",
        choices=("higher", "lower"),
        help="which values are better; default: as for the metric of that name here",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("comparison"), metavar="FOLDER",
        help="where the tables and the figure are written; default: comparison",
    )  # fmt: skip
    parser.add_argument("--resamples", type=int, default=10_000, metavar="N", help="10000")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples; 0")
    parser.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    from segshift.metrics import SIGNED
    from segshift.results import (
        common_rows,
        compare,
        failure_profile,
        higher_is_better,
        pair,
        patient_means,
        read_runs,
    )

    if arguments.resamples < LEAST_RESAMPLES:
        raise InputError(
            f"--resamples {arguments.resamples}: {LEAST_RESAMPLES} or more, 10000 to report"
        )
    if arguments.output.exists() and not arguments.output.is_dir():
        raise InputError(f"--output {arguments.output} is a file; name a folder")
    if SIGNED.fullmatch(arguments.metric) and not arguments.better:
        raise InputError(
            f"--metric {arguments.metric} is signed: neither end of it is better; take another "
            "metric, or say --better higher or lower"
        )
    every = read_runs(arguments.runs)
    sets = _sets(every)
    chosen = _chosen(sets, named=arguments.set, shifted=arguments.shifted)
    runs = {name: rows[rows["set"].isin(chosen)] for name, rows in every.items()}
    paired = pair(runs, metric=arguments.metric)
    better = arguments.better
    comparison = compare(
        paired,
        higher_is_better=better == "higher" if better else higher_is_better(arguments.metric),
        resamples=arguments.resamples,
        seed=arguments.seed,
    )
    from segshift.report.comparison import comparison_figure  # heavy, and not for wrong input
    from segshift.report.console import print_comparison, print_failures

    common = common_rows(runs)
    print_comparison(comparison, left_out=[*_left_out(sets, chosen), *paired.left_out])
    print_failures(common)
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    figure = comparison_figure(comparison, patient_means(paired))
    figure.savefig(folder / "comparison.png")
    for name, table in (("comparison", comparison.differences), ("runs", comparison.runs)):
        table.assign(metric=comparison.metric).to_csv(folder / f"{name}.csv", index=False)
    failure_profile(common).to_csv(folder / "failures.csv", index=False)
    for name in ("comparison.csv", "runs.csv", "failures.csv", "comparison.png"):
        print(f"{name:<15} {folder / name}")


def _sets(runs: Mapping[str, "pd.DataFrame"]) -> list[str]:
    return sorted({str(name) for rows in runs.values() for name in rows["set"].unique()})


def _chosen(sets: list[str], *, named: list[str], shifted: bool) -> list[str]:
    """Those named, else those under no shift; with `shifted` those under one as well."""
    from segshift.results import is_shifted

    unknown = [name for name in named if name not in sets]
    if unknown:
        raise InputError(f"--set {unknown[0]}: no run has this set; there are {', '.join(sets)}")
    base = named or [name for name in sets if not is_shifted(name)]
    chosen = [name for name in sets if name in base or (shifted and is_shifted(name))]
    if not chosen:
        raise InputError(f"only sets under a shift: {', '.join(sets)}; --shifted compares them")
    return chosen


def _left_out(sets: list[str], chosen: list[str]) -> list[str]:
    """A sentence on the sets that were not chosen, if there are any."""
    from segshift.results import is_shifted

    others = [name for name in sets if name not in chosen]
    if not others:
        return []
    shown = ", ".join(others[:SHOWN]) + (", ..." if len(others) > SHOWN else "")
    how = "--set NAME compares one"
    if any(map(is_shifted, others)):
        how += ", --shifted all under a shift"
    return [f"{len(others)} of {len(sets)} sets not compared: {shown}; {how}"]
