"""The folder of a finished run, as small as a report can be drawn from."""

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import row_inputs
from row_inputs import DICE, HD95

from segshift.cohort import Case
from segshift.metrics import FalseAlarm, FalseAlarmVolume, measure_of
from segshift.postprocessing import RECORD
from segshift.results import (
    Row,
    acquired,
    of_network,
    of_raters,
    read_rows,
    summarise,
    write_cases,
    write_measures,
    write_rows,
)

STRUCTURES = ("liver", "tumour")
ALARM, ALARM_ML = measure_of(FalseAlarm()), measure_of(FalseAlarmVolume())
MEASURES = {measure.name: measure for measure in (DICE, HD95, ALARM, ALARM_ML)}
SITES = {"dijon": "in_domain", "toronto": "site-toronto", "bern": "site-bern"}
CASES = 7  # of each site and of as many patients, so that six of them have a tumour in domain
EVIL = "<script>alert(1)</script>"


def row(set_: str, case: str, site: str, structure: str, metric: str, value: float) -> Row:
    """Of the network's own mask of a patient with one case that has the structure."""
    what = {"structure": structure, "metric": metric, "reference_empty": False}
    return row_inputs.row("demo/1", set_, case, site, value, **what)


def fill(folder: Path) -> Path:
    """A finished run: three sites with seven cases each.

    The first case in domain has no tumour, and 2.5 ml of one are predicted there all the same.
    """
    rng, rows = np.random.default_rng(0), []
    for site, set_ in SITES.items():
        slices = folder / "figures" / "slices" / set_
        slices.mkdir(parents=True)
        for number in range(CASES):
            case = EVIL if (site, number) == ("bern", CASES - 1) else f"{site}-{number}"
            rows += _measured(set_, case, site, number)
            reference = np.zeros((2, 20, 30), dtype=bool)
            reference[0, 5:15, 0:12], reference[1, 8:12, 15:20] = True, True
            np.savez_compressed(
                slices / f"{number}.npz",
                case=case,
                image=rng.normal(size=(20, 30)).astype(np.float32),
                reference=reference,
                prediction=np.zeros_like(reference)
                if case == EVIL
                else np.roll(reference, 2, axis=2),
                spacing_mm=np.array([2.0, 1.0]),
            )
    write_rows(folder / "rows.csv", rows)
    write_measures(folder, MEASURES.values())
    # Raters share the cases of every site, guidelines are those of the sites.
    cases: dict[str, list[Case]] = {}
    for one in {row.case: row for row in rows}.values():
        tags = {"rater": "ann" if one.case.endswith("-0") else "<b>bob", "guideline": one.site}
        case = Case(one.case, one.patient, one.site, (Path("i.nii"),), tags=tags)
        cases.setdefault(one.set, []).append(case)
    write_cases(folder / "cases.csv", cases)
    summarised(folder)
    contents = {
        "split": {
            "train": ["a", "b"],
            "val": ["c", "d", "e"],
            **{set_: ["d"] * CASES for set_ in SITES.values()},
        },
        "plan": {"spacing_mm": [1, 1, 1]},
        "environment": {
            "command": "python train.py seed=7",
            "choices": {"model": "unet3d"},
            "gpu": None,
            "processor": "abacus",
            "cpus": 2,
        },
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "config.yaml").write_text("seed: 7  # </pre><script>\n")
    (folder / "metrics.csv").write_text(
        "epoch,lr-AdamW,step,train/loss,val/selection_score,val/dice\n"
        "0,0.1,4,,,\n0,,4,1.5,,\n0,,9,1.0,,\n0,,9,,0.4,0.9\n1,,14,0.8,,\n1,,19,,0.7,0.3\n"
    )
    bins = [
        f"{set_},,0,{site},{structure},{low},{low + 0.5},{voxels},{confidence},{accuracy}"
        for site, set_ in SITES.items()
        for structure in STRUCTURES
        for low, voxels, confidence, accuracy in ((0.0, 900, 0.1, 0.05), (0.5, 100, 0.8, 0.6))
    ]
    header = "set,corruption,severity,site,structure,low,high,voxels,confidence,accuracy"
    (folder / "reliability.csv").write_text("\n".join([header, *bins]) + "\n")
    return folder


def _measured(set_: str, case: str, site: str, number: int) -> Iterator[Row]:
    """What a run measures of one case: a value of every metric, NaN where it is not of the case."""
    for structure in STRUCTURES:
        dice = 0.9 - 0.04 * number - (0 if site == "dijon" else 0.3)
        dice = 0.0 if case == EVIL else dice
        empty = (site, number, structure) == ("dijon", 0, "tumour")
        values = {"dice": dice, "hd95_mm": 30 * (1 - dice), "false_alarm": 1, "false_alarm_ml": 2.5}
        for metric, value in values.items():
            known = metric.startswith("false_alarm") == empty
            one = row(set_, case, site, structure, metric, value if known else math.nan)
            yield replace(one, reference_empty=empty)


def summarised(folder: Path) -> None:
    """summary.json of the rows in the folder, as a run writes it."""
    every = acquired(read_rows(folder / "rows.csv"))
    numbers = summarise(of_network(every), MEASURES)
    judges = {"raters": of_raters(every), "postprocessed": every[every["postprocessed"]]}
    for scope, rows in judges.items():
        numbers |= summarise(rows.assign(run="demo/1"), MEASURES, scope=scope)
    measured = {"selection": "source_val", "time/train_s": 12.345, "memory/peak_gb": 1.5}
    (folder / "summary.json").write_text(json.dumps({**measured, **numbers}))


def write_table(folder: Path, rows: pd.DataFrame) -> None:
    """rows.csv of a table of `read_rows`."""
    write_rows(folder / "rows.csv", [Row(*line) for line in rows.itertuples(index=False)])


def add_rows(folder: Path, more: Iterable[Row]) -> None:
    """Rows that the run has measured, too; summary.json is that of all."""
    both = [read_rows(folder / "rows.csv"), pd.DataFrame(more)]
    write_table(folder, pd.concat(both))
    summarised(folder)


def add_raters(folder: Path) -> None:
    """Two people have drawn the second case in domain, too: Dice 0.95 and 0.91 of both structures.

    One of them has drawn the third: 0.93.
    """
    drawn = {("dijon-1", "carl"): 0.95, ("dijon-1", "dora"): 0.91, ("dijon-2", "carl"): 0.93}
    add_rows(
        folder,
        [
            replace(row("in_domain", case, "dijon", structure, "dice", dice), rater=rater)
            for (case, rater), dice in drawn.items()
            for structure in STRUCTURES
        ],
    )


def add_postprocessing(folder: Path) -> None:
    """The liver's largest component alone, which adds 0.05 Dice; nothing for the tumour."""
    own = read_rows(folder / "rows.csv")
    own = own[(own["metric"] == "dice") & (own["rater"] == "")]
    gained = own["value"] + 0.05 * (own["structure"] == "liver")
    after = own.assign(postprocessed=True, value=gained)
    add_rows(folder, [Row(*line) for line in after.itertuples(index=False)])
    rule = {"rule": "largest_component", "value": None, "score_before": 0.8125}
    rule |= {"score_after": 0.8304, "patients": 12}
    reason = "3 validation patients have it, at least 8 are needed"
    record = {"rules": {"liver": [rule], "tumour": []}, "reasons": {"tumour": reason}}
    (folder / RECORD).write_text(json.dumps(record))
