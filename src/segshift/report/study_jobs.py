"""What a study's folder tells beside its rows: question, selection rules, structures, memory."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from segshift.errors import InputError
from segshift.metrics import Dice, Measure, measure_of
from segshift.results import DONE, Measures, Study, main_measure
from segshift.splits.selection import LEAVE_ONE_SITE_OUT, ORACLE, SOURCE_VAL

QUESTION = "How well will it do at the next hospital?"
CHOSEN_ON = {
    SOURCE_VAL: "patients of the training sites",
    LEAVE_ONE_SITE_OUT: "patients of a training site that was not learned from",
    ORACLE: "patients of the sites that it is tested at",
}


def chosen_measure(measures: Measures, metric: str | None) -> Measure:
    """The measure called `metric`, by default the main one; Dice where nothing was measured yet.

    Raises InputError for a metric that was not measured.
    """
    if not measures:
        return measure_of(Dice())
    if metric is None:
        return main_measure(measures)
    if metric not in measures:
        raise InputError(f"metric {metric!r}: the study has measured {', '.join(measures)}")
    return measures[metric]


def told(folder: Path) -> Mapping[str, str]:
    """`question` and `command` of study.yaml, and its text as `study_yaml`."""
    path = folder / "study.yaml"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    content = yaml.safe_load(text) or {}
    question = (content.get("study") or {}).get("question") or QUESTION
    return {"question": question, "command": content.get("command") or "", "study_yaml": text}


def selection(folder: Path, jobs: pd.DataFrame) -> tuple[str, str]:
    """By whom the finished jobs were chosen, and what an oracle among them means; "" for neither.

    Jobs that do not say it are not counted.
    """
    configs = [_read(folder / f"jobs/{job}.json").get("config", {}) for job in finished(jobs)]
    rules = Counter(str(config["selection"]) for config in configs if "selection" in config)
    if not rules:
        return "", ""
    total = rules.total()
    said = [
        f"selection={rule}" + (f", {CHOSEN_ON[rule]}" if rule in CHOSEN_ON else "")
        + ("" if times == total else f" ({times} of {total} jobs)")
        for rule, times in sorted(rules.items())
    ]  # fmt: skip
    warning = (
        f"{rules[ORACLE]} of {total} jobs were chosen on patients of the sites that they are "
        "tested at (selection=oracle), which nobody has at a new hospital: what they reach there "
        "is a bound, not an answer"
    )
    return f"Chosen by {'; '.join(said)}.", warning if rules[ORACLE] else ""


def structures_of(folder: Path, study: Study) -> list[str]:
    """In the order of the stored masks, as the jobs say it; those of the rows otherwise."""
    known = sorted(study.rows["structure"].unique())
    for job in study.rows["run"].unique():
        config = _read(folder / f"jobs/{job}.json").get("config", {})
        regions = list(config.get("task", {}).get("regions", {}))
        planned = _read(folder / f"jobs/{job}/plan.json").get("structures", [])
        for ordered in (regions, planned):
            if sorted(ordered) == known:
                return list(ordered)
    return known


def peak_memory_gb(folder: Path, jobs: pd.DataFrame) -> float | None:
    """The largest of the finished jobs, None where none tells."""
    summaries = [_read(folder / f"jobs/{job}/summary.json") for job in finished(jobs)]
    peaks = [value for each in summaries for k, value in each.items() if k.startswith("memory/")]
    return max(peaks, default=None)


def finished(jobs: pd.DataFrame) -> list[str]:
    """The names of the jobs whose numbers are in the tables."""
    return list(jobs.loc[jobs["status"] == DONE, "job"].unique())


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content
