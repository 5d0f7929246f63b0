"""`segshift compare RUN RUN ...`: which run is better, by how much, and whether that is chance.

Reads rows.csv and metrics.json of each run, prints tables and writes comparison.csv, runs.csv,
failures.csv and comparison.png. Sets under a corruption are left out unless they are asked for:
each would be one more test that Holm's correction has to pay for. Needs no torch.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segshift.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from segshift.metrics import Better, Measure
    from segshift.results import Comparison
    from segshift.results.pairing import Shown

    Runs = Mapping[str, pd.DataFrame]

SHOWN_NAMES = 5  # of the sets left out
ALARM = "false_alarm"  # compared beside the metric that is asked for
LEAST_RESAMPLES = 1000  # of fewer the bounds are chance


def add_compare_command(parser: argparse.ArgumentParser) -> None:
    """The options of `segshift compare`; sets `run` to what it does."""
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, or their rows.csv"
    )
    parser.add_argument("--metric", default="dice", help="which rows to compare; dice")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME",
        help="evaluation set to compare, repeatable; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--shifted", action="store_true", help="these sets also under their corruptions"
    )
    parser.add_argument(
        "--postprocessed", action="store_true",
        help="with post-processing where a run chose some; gaps and comparisons are without it "
        "unless asked",
    )  # fmt: skip
    parser.add_argument(
        "--better",
        choices=("higher", "lower"),
        help="which values are better; default: what metrics.json of the runs says",
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

    from segshift.results import (
        common_rows,
        compare,
        of_network,
        of_raters,
        pair,
        patient_means,
        read_runs,
        with_failures,
    )
    from segshift.results.pairing import of_sets, sets_of

    if arguments.resamples < LEAST_RESAMPLES:
        raise InputError(
            f"--resamples {arguments.resamples}: {LEAST_RESAMPLES} or more, 10000 to report"
        )
    if arguments.output.exists() and not arguments.output.is_dir():
        raise InputError(f"--output {arguments.output} is a file; name a folder")
    read = read_runs(arguments.runs)
    chosen_rows = arguments.postprocessed
    every = {name: of_network(rows, postprocessed=chosen_rows) for name, rows in read.items()}
    sets = sorted({key for rows in every.values() for key in sets_of(rows)})
    chosen = _chosen(sets, named=arguments.set, shifted=arguments.shifted)
    runs = {name: of_sets(rows, chosen) for name, rows in every.items()}
    paired = pair(runs, metric=arguments.metric)
    measure = _measure(arguments.runs, metric=arguments.metric, better=arguments.better)
    options = {
        "raters": pd.concat([of_raters(rows) for rows in read.values()]),
        "resamples": arguments.resamples,
        "seed": arguments.seed,
    }
    common = common_rows(runs)
    comparison = with_failures(compare(paired, measure=measure, **options), common)
    alarms, notes = _false_alarms(runs, options=options) if measure.name != ALARM else (None, [])
    from segshift.report.comparison import comparison_figure  # heavy, and not for wrong input
    from segshift.report.comparison_console import print_comparison
    from segshift.report.console import print_failures

    if arguments.postprocessed:
        notes.append("masks are post-processed where a run chose a rule")
    print_comparison(comparison, left_out=[*_left_out(sets, chosen), *paired.left_out, *notes])
    if alarms:
        apart = f"{ALARM} is of the cases without the structure, with a Holm correction of its own"
        print_comparison(alarms, left_out=[apart])
    print_failures(common)
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure = comparison_figure(comparison, patient_means(paired))
    figure.savefig(arguments.output / "comparison.png")
    _write_tables(arguments.output, [comparison, *([alarms] if alarms else [])], common)
    for name in ("comparison.csv", "runs.csv", "failures.csv", "comparison.png"):
        print(f"{name:<15} {arguments.output / name}")


def _measure(paths: Sequence[Path], *, metric: str, better: "Better | None") -> "Measure":
    """What the runs say of the metric; the end that is `better` may be said instead."""
    from segshift.metrics import Measure
    from segshift.results.measures import RECORD, read_measures

    said: dict[Measure, Path] = {}
    for folder in (path if path.is_dir() else path.parent for path in paths):
        if (folder / RECORD).is_file() and (one := read_measures(folder).get(metric)):
            said.setdefault(one, folder)
    if len(said) > 1:
        meanings = "; ".join(
            f"{folder / RECORD}: unit {one.unit!r}, better {one.better}"
            for one, folder in said.items()
        )
        raise InputError(f"the runs mean different things by {metric!r}: {meanings}")
    known = next(iter(said), None)
    if better:
        return Measure(metric, known.unit if known else "", better)
    if known is None:
        raise InputError(
            f"no {RECORD} beside the rows says which values of {metric!r} are better; say --better "
            "higher or --better lower"
        )
    if known.signed:
        raise InputError(
            f"--metric {metric} is signed: neither end of it is better; take another metric, or "
            "say --better higher or lower"
        )
    return known


def _false_alarms(
    runs: "Runs", *, options: Mapping[str, Any]
) -> "tuple[Comparison | None, list[str]]":
    """The runs on the cases without the structure, if there are any, and what is to be said."""
    from segshift.metrics import FalseAlarm, measure_of
    from segshift.results import compare, pair_if_any

    paired = pair_if_any(runs, metric=ALARM)
    if paired is not None:
        return compare(paired, measure=measure_of(FalseAlarm()), **options), list(paired.left_out)
    if any(rows["reference_empty"].any() for rows in runs.values()):
        return None, [
            f"cases without a structure are not compared: no such case has {ALARM} in all runs"
        ]
    return None, []


def _write_tables(
    folder: Path, comparisons: "Sequence[Comparison]", common: "pd.DataFrame"
) -> None:
    import pandas as pd

    from segshift.results import MEAN, failed_patients, failure_profile
    from segshift.results.failures import KEYS

    runs = pd.concat([each.runs for each in comparisons], ignore_index=True)
    differences = pd.concat([each.differences for each in comparisons], ignore_index=True)
    patients = failed_patients(common)
    patients = patients[patients["structure"] == MEAN].drop(columns="structure")
    failures = failure_profile(common).merge(patients, on=list(KEYS), how="left")
    for name, table in (("runs", runs), ("comparison", differences), ("failures", failures)):
        table.to_csv(folder / f"{name}.csv", index=False)


def _chosen(sets: "list[Shown]", *, named: list[str], shifted: bool) -> "list[Shown]":
    """Those named, else all; those under a corruption only with `shifted`."""
    there = list(dict.fromkeys(name for name, *_ in sets))
    unknown = [name for name in named if name not in there]
    if unknown:
        raise InputError(f"--set {unknown[0]}: no run has this set; there are {', '.join(there)}")
    base = [key for key in sets if not named or key[0] in named]
    chosen = [key for key in base if shifted or not key[1]]
    if not chosen:
        raise InputError(f"only sets under a corruption: {_shown(base)}; --shifted compares them")
    return chosen


def _left_out(sets: "list[Shown]", chosen: "list[Shown]") -> list[str]:
    """A sentence on the sets that were not chosen, if there are any."""
    others = [key for key in sets if key not in chosen]
    if not others:
        return []
    how = []
    if {name for name, *_ in others} - {name for name, *_ in chosen}:
        how.append("--set NAME compares one")
    if any(corruption for _, corruption, _ in others):
        how.append("--shifted also those under a corruption")
    return [f"{len(others)} of {len(sets)} sets not compared: {_shown(others)}. {', '.join(how)}"]


def _shown(sets: "Iterable[Shown]") -> str:
    from segshift.results import set_label

    names = [set_label(*key) for key in sets]
    return "; ".join(names[:SHOWN_NAMES]) + ("; ..." if len(names) > SHOWN_NAMES else "")
