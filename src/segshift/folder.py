"""What a run leaves in its folder: before it starts what it is, at the end what came out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.plan import Plan
from segshift.report import print_failures, print_group_tables, print_site_table, write_report
from segshift.report.measures import main_metrics, sizes_told
from segshift.report.shifts import print_shifts
from segshift.results import (
    acquired,
    by_name,
    main_measure,
    of_network,
    of_raters,
    read_cases,
    read_rows,
    summarise,
    summarise_groups,
    write_cases,
    write_measures,
)
from segshift.results.curves import (
    read_corruptions,
    shift_curves,
    summarise_shifts,
    write_corruptions,
    write_curves,
)
from segshift.shifts import is_calibrated
from segshift.splits import EvaluationSet
from segshift.tasks import TALLIED, Task


def run_name(folder: Path) -> str:
    """What rows and trackers call the run: its last two folders."""
    return "/".join(folder.resolve().parts[-2:])


def describe(
    folder: Path,
    config_yaml: str,
    sides: Mapping[str, Sequence[Case]],
    sets: Sequence[EvaluationSet],
    plan: Plan,
    about: Mapping[str, Any],
) -> None:
    """Write what is needed to repeat the run and to join its rows, into a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / "config.yaml").open("x", encoding="utf-8") as file:
            file.write(config_yaml)
    except FileExistsError as error:
        raise InputError(
            f"{folder} holds another run; set name=... or hydra.run.dir=..."
        ) from error
    write_json(folder / "split.json", {n: [c.id for c in cases] for n, cases in sides.items()})
    write_cases(folder / "cases.csv", {s.name: s.cases for s in sets})
    corruptions = {s.shift.name: is_calibrated(s.shift) for s in sets if s.shift.severity}
    if corruptions:
        write_corruptions(folder, corruptions)
    write_json(folder / "plan.json", asdict(plan))
    write_json(folder / "environment.json", about)


def conclude(folder: Path, task: Task, measured: Mapping[str, Any]) -> None:
    """From rows to summary, pictures, page and table.

    All are of the network as it is; what post-processing makes of it stands beside.
    """
    every, cases = read_rows(folder / "rows.csv"), read_cases(folder / "cases.csv")
    found = set(every["metric"])
    declared = (measure for measure in task.measures.values() if measure.name in found)
    measures = by_name([*declared, *TALLIED])
    measure = main_measure(measures)
    rows = of_network(every)
    plain, curves = acquired(rows), shift_curves(rows, calibrated=read_corruptions([folder]))
    means = {**summarise(plain, measures), **summarise_groups(plain, cases)}
    means |= summarise_shifts(curves, measures)
    scopes = {"postprocessed": every[every["postprocessed"]], "raters": of_raters(every)}
    for scope, judged in scopes.items():
        means |= summarise(acquired(judged), measures, scope=scope)
    write_measures(folder, measures.values())
    write_json(folder / "summary.json", {**measured, **means})
    if len(curves):
        write_curves(folder / "shifts.csv", curves)
    write_report(folder, structures=task.structures, measure=measure)
    beside = main_metrics(measures.values(), measure)[1:]
    print_site_table(every, measure=measure, others=beside)
    print_shifts(curves, measure=measure)
    print_group_tables(every, cases, measure=measure, others=beside)
    print_failures(plain)
    if told := sizes_told(plain, measures):
        print(f"sizes:     {told}")
    for name in ("rows.csv", "report.html", "figures"):
        print(f"{name:<12} {folder / name}")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """JSON that every reader takes: a NaN is an error of ours."""
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
