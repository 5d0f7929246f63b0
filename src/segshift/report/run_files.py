"""What a run's folder tells beside its rows: learning curves, reliability, cost, what is absent."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segshift.report.figures import loss_curve, reliability_diagram, validation_curve
from segshift.report.measures import duration
from segshift.report.page import drawn
from segshift.report.slices import sets_of
from segshift.results import acquired
from segshift.results.names import file_name, slice_folder

COSTS = {"train": "training", "test": "testing", "step": "a training step"}


def curves(folder: Path) -> list[str]:
    """Training loss and validation score as SVG; nothing of a run that did not train."""
    if not (folder / "metrics.csv").exists():
        return []
    log = pd.read_csv(folder / "metrics.csv")
    figures = {"loss": loss_curve(log), "validation": validation_curve(log)}
    return [drawn(figure, folder, name=name) for name, figure in figures.items()]


def reliability(folder: Path, *, structures: Sequence[str]) -> list[str]:
    """A reliability diagram of each set as SVG, of images as they were acquired."""
    path = folder / "reliability.csv"
    if not path.exists():
        return []
    # A set called 007 is not 7.
    names = dict.fromkeys(("set", "corruption", "site", "structure"), "str")
    empty = {column: ["", "nan"] for column in ("confidence", "accuracy")}  # of bins without voxels
    bins = acquired(pd.read_csv(path, dtype=names, keep_default_na=False, na_values=empty))
    figures = {
        set_: reliability_diagram(bins[bins["set"] == set_], structures=structures, title=set_)
        for set_ in sets_of(bins)
    }
    return [
        drawn(figure, folder, name=f"reliability-{file_name(set_)}")
        for set_, figure in figures.items()
    ]


def absent(folder: Path, without_slices: Sequence[str]) -> list[str]:
    """What cannot be shown, and which file it would come from."""
    lacking = {
        "metrics.csv": "learning curves",
        "cases.csv": "tables by guideline and rater",
        "reliability.csv": "reliability",
    }
    reasons = [
        f"overlays of {set_}: no slices in {slice_folder(Path(), set_)}" for set_ in without_slices
    ]
    reasons += [
        f"{what}: no {name}" for name, what in lacking.items() if not (folder / name).exists()
    ]
    return reasons


def cost(summary: Mapping[str, Any], environment: Mapping[str, Any]) -> dict[str, str]:
    """Time, memory and machine in words."""
    told = {}
    for key, value in summary.items():
        kind, _, name = key.partition("/")
        if kind == "time":
            name = name.removesuffix("_s")
            told[COSTS.get(name, name.replace("_", " "))] = duration(value)
        if kind == "memory":
            told[f"memory, {name.removesuffix('_gb').replace('_', ' ')}"] = f"{value:.3g} GB"
    machine = environment.get("gpu") or environment.get("processor")
    return told | ({"machine": f"{machine}, {environment['cpus']} CPU cores"} if machine else {})


def read_json(path: Path) -> dict[str, Any]:
    """The content of a file that the run wrote."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content
