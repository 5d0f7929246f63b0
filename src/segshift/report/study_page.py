"""What the page of a study says in tables: tables in, plain lines for the template out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pandas as pd

from segshift.metrics import Measure
from segshift.report.cells import Cell, failed_of
from segshift.report.console import FAILURES
from segshift.report.measures import digits, duration, lines_of, records, written
from segshift.report.study_words import fixed, train_label
from segshift.results import DONE, place_name

GAP_COLUMNS = ("in_domain", "out", "gap", "harder", "shift")
LISTED = 200  # lines of a table; more make the page slow, the CSV has all
FILES = {
    "rows.csv": "every measured number; run is the job",
    "metrics.json": "what the metrics mean",
    "corruptions.json": "which shifts may be ranked",
    "matrix.csv": "means of every training at every site",
    "raters.csv": "how well people agree on the same cases",
    "gaps.csv": "what is lost at another site, split",
    "leave_site_out.csv": "trainings at several sites, at the one that was left out",
    "variants.csv": "variants compared",
    "failures.csv": "shares of failures",
    "shifts.csv": "means by shift and severity",
    "shift_areas.csv": "the areas under these curves",
    "attribution.csv": "which shift is it",
    "jobs.csv": "what was run",
    "summary.json": "the means as flat keys",
}


def gap_lines(
    table: pd.DataFrame, *, measure: Measure, sites: Sequence[str]
) -> list[dict[str, Any]]:
    """Lines of the gap table, or the one of held-out sites, of the mean over structures."""
    lines = []
    for line in records(lines_of(table, measure).head(LISTED)):
        tested, whole = line["tested"], line["tested"] + line["unpaired"]
        cells = {name: _cell(line, name, measure) for name in GAP_COLUMNS}
        for side in ("in_domain", "out"):
            failed = failed_of(line, measure, side=f"{side}_")
            cells[side] = replace(cells[side], notes=(failed,) if failed else ())
        lines.append(
            {
                "variant": line["variant"],
                "trained": train_label(line["train"], sites),
                "test": place_name(line["set"], line["site"]),
                "cells": list(cells.values()),
                "oracle": written(line["oracle"], digits(measure)),
                "p": written(line["p"], 4),
                "holm": written(line["p_holm"], 4),
                "patients": f"{tested} of {whole}" if 0 < tested < whole else f"{whole}",
            }
        )
    return lines


def variant_lines(
    table: pd.DataFrame, *, measure: Measure, sites: Sequence[str]
) -> list[dict[str, Any]]:
    """Lines of the table of variants."""
    return [
        {
            **{name: line[name] for name in ("variant", "baseline", "set", "patients")},
            "trained": train_label(line["train"], sites),
            "cells": [_cell(line, "difference", measure, ends=("low", "high"))],
            "p": written(line["p"], 4),
            "holm": written(line["p_holm"], 4),
        }
        for line in records(table[table["metric"] == measure.name].head(LISTED))
    ]


def failure_lines(
    table: pd.DataFrame, *, sites: Sequence[str]
) -> tuple[list[dict[str, Any]], list[tuple[str, str]], int]:
    """Lines of pairs with a failure, the kinds that were measured, and the pairs without any.

    Of each kind a line has the share and of how many: lesions are not in every case.
    """
    kinds = [(kind, said) for kind, said in FAILURES.items() if kind in table]
    names = [kind for kind, _ in kinds]
    failed = table[(table[names] > 0).any(axis=1)]
    lines = [
        {
            "variant": line["variant"],
            "trained": train_label(line["train"], sites),
            "test": place_name(line["set"], line["site"]),
            **{kind: (_share(line[kind]), line[f"{kind}_n"]) for kind in names},
        }
        for line in records(failed.head(LISTED))
    ]
    return lines, kinds, len(table) - len(failed)


def job_lines(jobs: pd.DataFrame, *, sites: Sequence[str], pages: set[str]) -> list[dict[str, Any]]:
    """Lines of jobs.csv; `pages` are the jobs that have a report of their own."""
    return [
        {
            **{name: job[name] for name in ("job", "part", "variant", "seed", "fold", "status")},
            "trained": train_label(job["train"], sites),
            "time": "-" if pd.isna(job["seconds"]) else duration(job["seconds"]),
            "steps": "-" if pd.isna(job["steps"]) else f"{job['steps']:.0f}",
            "page": f"jobs/{quote(job['job'])}/report.html" if job["job"] in pages else "",
        }
        for job in records(jobs)
    ]


def cost(jobs: pd.DataFrame, *, memory_gb: float | None) -> dict[str, str]:
    """What the study has taken, in words."""
    own = jobs.drop_duplicates("job")
    done = own[own["status"] == DONE]
    said = {"jobs": f"{len(done)} of {len(own)} done"}
    if len(done) and done["seconds"].notna().any():
        said["time of all jobs"] = duration(done["seconds"].sum())
        said["time per job"] = f"{duration(done['seconds'].mean())} in the mean"
    if done["steps"].notna().any():
        said["training steps"] = f"{done['steps'].sum():.0f}"
    if memory_gb is not None:
        said["memory, peak"] = f"{memory_gb:.3g} GB"
    return said


def _cell(
    line: Mapping[str, Any], name: str, measure: Measure, *, ends: tuple[str, str] | None = None
) -> Cell:
    low, high = ends or (f"{name}_low", f"{name}_high")
    text, *bounds = (fixed(line[key], measure) for key in (name, low, high))
    return Cell(text, "" if pd.isna(line[low]) else f"[{', '.join(bounds)}]")


def _share(share: float) -> str:
    return "-" if pd.isna(share) else f"{100 * share:.0f}%"
