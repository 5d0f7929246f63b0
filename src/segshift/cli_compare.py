"""`segshift compare RUN RUN ...`: which run is better, by how much, and whether that is chance.

Reads rows.csv of each run, prints tables and writes comparison.csv, runs.csv and comparison.png.
Needs no torch.
"""

import argparse
from pathlib import Path

from segshift.errors import InputError


def add_compare_command(parser: argparse.ArgumentParser) -> None:
    """The options of `segshift compare`; sets `run` to what it does."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, or their rows.csv"
    )
    parser.add_argument("--metric", default="dice", help="which rows to compare; dice")
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
    import pandas as pd

    from segshift.results import compare, higher_is_better, pair, patient_means, read_runs
    from segshift.results.names import SIGNED

    if arguments.resamples < 100:
        raise InputError(f"--resamples {arguments.resamples}: 100 or more, 10000 to report")
    if arguments.output.exists() and not arguments.output.is_dir():
        raise InputError(f"--output {arguments.output} is a file; name a folder")
    if SIGNED.fullmatch(arguments.metric) and not arguments.better:
        raise InputError(
            f"--metric {arguments.metric} is signed: neither end of it is better; take another "
            "metric, or say --better higher or lower"
        )
    runs = read_runs(arguments.runs)
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

    print_comparison(comparison, left_out=paired.left_out)
    print_failures(pd.concat([rows.assign(run=name) for name, rows in runs.items()]))
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    figure = comparison_figure(comparison, patient_means(paired))
    figure.savefig(folder / "comparison.png")
    for name, table in (("comparison", comparison.differences), ("runs", comparison.runs)):
        table.assign(metric=comparison.metric).to_csv(folder / f"{name}.csv", index=False)
    for name in ("comparison.csv", "runs.csv", "comparison.png"):
        print(f"{name:<15} {folder / name}")
