"""What the page of a study says in tables: tables in, plain lines for the template out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pandas as pd

from segshift.report.console import FAILURES
from segshift.report.measures import digits, duration, records, written
from segshift.report.study_words import fixed, train_label
from segshift.results import DONE, MEAN, place_name
from segshift.results.significance import CAN_REACH_5_PERCENT

GAP_COLUMNS = ("in_domain", "out", "gap", "harder", "shift")
LISTED = 200  # lines of a table; more make the page slow, the CSV has all
FILES = {
    "rows.csv": "every measured number; run is the job",
    "matrix.csv": "means of every training at every site",
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


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number and its interval, written."""

    text: str
    interval: str


def gap_lines(table: pd.DataFrame, *, metric: str, sites: Sequence[str]) -> list[dict[str, Any]]:
    """Lines of the gap table, or the one of held-out sites, of the mean over structures.

    The shift has an interval only of enough patients for a test to reach 5 %: resamples of fewer
    often leave out 0 where there is no shift (of two patients every second time).
    """
    of_metric = table[(table["metric"] == metric) & (table["structure"] == MEAN)]
    lines = []
    for line in records(of_metric.head(LISTED)):
        tested, whole = line["tested"], line["tested"] + line["unpaired"]
        if tested < CAN_REACH_5_PERCENT:
            line |= {"shift_low": math.nan, "shift_high": math.nan}
        lines.append(
            {
                "variant": line["variant"],
                "trained": train_label(line["train"], sites),
                "test": place_name(line["set"], line["site"]),
                "cells": [_cell(line, name, metric) for name in GAP_COLUMNS],
                "oracle": written(line["oracle"], digits(metric)),
                "p": written(line["p"], 4),
                "holm": written(line["p_holm"], 4),
                "patients": f"{tested} of {whole}" if 0 < tested < whole else f"{whole}",
                "failed": _share(line.get("failed")),
            }
        )
    return lines


def variant_lines(
    table: pd.DataFrame, *, metric: str, sites: Sequence[str]
) -> list[dict[str, Any]]:
    """Lines of the table of variants."""
    return [
        {
            **{name: line[name] for name in ("variant", "baseline", "set", "patients")},
            "trained": train_label(line["train"], sites),
            "cells": [_cell(line, "difference", metric, ends=("low", "high"))],
            "p": written(line["sign_flip_p"], 4),
            "holm": written(line["sign_flip_holm"], 4),
        }
        for line in records(table[table["metric"] == metric].head(LISTED))
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
    line: Mapping[str, Any], name: str, metric: str, *, ends: tuple[str, str] | None = None
) -> Estimate:
    low, high = ends or (f"{name}_low", f"{name}_high")
    text, *bounds = (fixed(line[key], metric) for key in (name, low, high))
    return Estimate(text, "" if pd.isna(line[low]) else f"[{', '.join(bounds)}]")


def _share(share: float | None) -> str:
    return "-" if share is None or pd.isna(share) else f"{100 * share:.0f}%"
