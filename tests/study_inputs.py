"""The folder of a finished study, as small as its tables and its report can be made from."""

import csv
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import row_inputs
from report_inputs import MEASURES
from row_inputs import row

from segshift.metrics import Measure
from segshift.results import (
    Row,
    Study,
    read_rows,
    read_study,
    sites_of,
    trained_at,
    write_measures,
    write_rows,
)
from segshift.results.curves import write_corruptions

STRUCTURES = ("liver", "tumour")
EVIL = "<script>alert(1)</script>"
HEALTHY = 2  # more patients of each site, known to have no tumour; nobody has drawn their liver


def write_jobs(folder: Path, jobs: Iterable[Mapping[str, str]]) -> None:
    """jobs.csv; what a job does not say is empty, its status is done. `train` is its list."""
    columns = ("job", "part", "train", "variant", "seed", "fold", "status", "seconds", "steps")
    with (folder / "jobs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for job in jobs:
            writer.writerow({"status": "done", "seconds": "60", "steps": "100", **job})


def job_of(name: str, *sites: str, **other: str) -> dict[str, str]:
    """A line of jobs.csv: a network of these sites."""
    return {"job": name, "part": "single_source", "train": trained_at(sites), **other}


def study_of(
    folder: Path,
    jobs: Iterable[Mapping[str, str]],
    rows: Iterable[Row],
    *,
    measures: Iterable[Measure] = tuple(row_inputs.MEASURES.values()),
) -> Study:
    """The study that is read from a folder with these jobs and rows."""
    write_jobs(folder, jobs)
    write_rows(folder / "rows.csv", rows)
    write_measures(folder, measures)
    write_corruptions(folder, {"noise": True})
    return read_study(folder)


def line_of(table: pd.DataFrame, **values: object) -> "pd.Series[Any]":
    """The one line of the table that has these values."""
    found = table[(table[list(values)] == list(values.values())).all(axis=1)]
    assert len(found) == 1, found
    return found.iloc[0]


def two_sites(folder: Path) -> Study:
    """Six patients of A, by two folds and two seeds, and six of B by one; a1 has two cases.

    a1 to a3 are tested in fold 0 of A's network, a4 to a6 in fold 1.
    """
    at_home = {  # by seed
        "a1-x": (0.5, 0.6), "a1-y": (0.3, 0.3), "a2": (0.9, 0.8), "a3": (0.7, 0.8),
        "a4": (0.9, 0.9), "a5": (0.5, 0.4), "a6": (0.8, 0.65),
    }  # fmt: skip
    outside = {  # by seed and fold
        "b1": (0.4, 0.5, 0.6, 0.7), "b2": (0.3, 0.3, 0.3, 0.3), "b3": (0.2, 0.2, 0.4, 0.4),
        "b4": (0.5, 0.5, 0.5, 0.5), "b5": (0.6, 0.4, 0.4, 0.6), "b6": (0.1, 0.3, 0.3, 0.5),
    }  # fmt: skip
    # B's network, where it was trained and at A.
    own = dict(zip(outside, (0.9, 0.7, 0.8, 0.45, 0.9, 0.45), strict=True))
    back = dict(zip(at_home, (0.5, 0.4, 0.6, 0.3, 0.7, 0.5, 0.55), strict=True))
    names = ("A00", "A01", "A10", "A11")  # seed, fold
    rows = []
    for case, dice in at_home.items():
        who = {"patient": case[:2]}
        for seed, value in enumerate(dice):
            fold = int(case >= "a4")
            rows.append(row(f"A{seed}{fold}", "in_domain", case, "A", value, **who))
        rows.append(row("B", "site-A", case, "A", back[case], **who))
    for case, dice in outside.items():
        rows += [row(name, "site-B", case, "B", x) for name, x in zip(names, dice, strict=True)]
        rows.append(row("B", "in_domain", case, "B", own[case]))
    jobs = [job_of(name, "A", seed=name[1], fold=name[2]) for name in names]
    return study_of(folder, [*jobs, job_of("B", "B", seed="0", fold="0")], rows)


def fill_study(
    folder: Path,
    *,
    sites: Sequence[str] = ("bern", "dijon", "toronto"),
    seeds: Sequence[str] = ("0", "1"),
    variants: Sequence[str] = ("",),
    patients: int = 6,
    pictures: bool = True,
    trained: Sequence[str] | None = None,
    noises: Sequence[int] = (0, 1, 3),
) -> Path:
    """A cross-site study: two folds alone at each site, then each site left out if there are three.

    `trained` are the sites that this is done for, by default all.

    Every site away from home costs 0.1 Dice, the last site is harder by 0.05, and the second
    variant is better by 0.02. Case 0 of the last site has a name that wants to be a script. Away
    from home a tumour is predicted in the first of two patients without one, at home in none.
    """
    jobs, rows = [], []
    for variant in variants:
        for seed in seeds:
            for site in sites if trained is None else trained:
                for fold in ("0", "1"):
                    jobs.append(_job("single_source", [site], variant, seed, fold))
                if len(sites) > 2:
                    others = [each for each in sites if each != site]
                    jobs.append(_job("leave_site_out", others, variant, seed, ""))
    for job in jobs:
        rows += list(_measured(job, sites, patients, variants, noises))
    write_jobs(folder, jobs)
    write_rows(folder / "rows.csv", rows)
    write_measures(folder, MEASURES.values())
    write_corruptions(folder, {"noise": True})
    (folder / "study.yaml").write_text(
        "command: python study.py study=cross_site\n"
        "study:\n  question: How well will it do <at> the next hospital?\n"
    )
    for job in jobs:
        own = folder / "jobs" / job["job"]
        own.mkdir(parents=True)
        (own / "summary.json").write_text(json.dumps({"memory/peak_gb": 1.25}))
        (own / "plan.json").write_text(json.dumps({"structures": STRUCTURES}))
        (own / "report.html").write_text("<!DOCTYPE html>")
        (own / "attribution.csv").write_text(_attribution(job, sites))
    if pictures:
        for one in {(one.run, one.set, one.case) for one in rows if not one.corruption}:
            _slice(folder / "jobs" / one[0] / "figures/slices" / one[1], one[2])
    return folder


def add_raters(folder: Path) -> None:
    """Dora has drawn the cases of bern, too: Dice 0.9, measured by every job that tests them."""
    rows = [Row(*line) for line in read_rows(folder / "rows.csv").itertuples(index=False)]
    drawn = [
        replace(one, rater="dora", value=0.9)
        for one in rows
        if one.site == "bern" and one.metric == "dice" and not one.corruption
    ]
    write_rows(folder / "rows.csv", [*rows, *(one for one in drawn if not one.reference_empty)])


def _job(part: str, train: Sequence[str], variant: str, seed: str, fold: str) -> dict[str, str]:
    label = "-".join(filter(None, (part, "+".join(train), variant, seed, fold)))
    job = "".join(c if c.isalnum() or c in "-+" else "_" for c in label)
    names = {"part": part, "train": trained_at(train), "variant": variant}
    names |= {"seed": seed, "fold": fold}
    return {"job": f"{job[:80]}-{zlib.crc32(repr(names).encode()) % 10**8:08d}", **names}


def _measured(
    job: Mapping[str, str],
    sites: Sequence[str],
    patients: int,
    variants: Sequence[str],
    noises: Sequence[int],
) -> Iterable[Row]:
    own = sites_of(job["train"])
    for site in sites:
        home = site in own
        set_ = "in_domain" if home else f"site-{site}"
        for number in range(patients + HEALTHY):
            of_fold = number if number < patients else number - patients
            if home and job["fold"] and of_fold % 2 != int(job["fold"]):
                continue
            case = EVIL if site == sites[-1] and number == 0 else f"{site}-{number}"
            one = row(job["job"], set_, case, site, 0.0)
            if number >= patients:
                yield from _healthy(one, alarm=not home and number == patients)
                continue
            dice = 0.85 - 0.02 * number - (0.05 if site == sites[-1] else 0) - (0 if home else 0.1)
            dice += 0.02 * variants.index(job["variant"]) + 0.01 * int(job["seed"] or 0)
            for noise in noises:
                seen = replace(one, corruption="noise" if noise else "", severity=noise)
                for structure in STRUCTURES:
                    value = dice - (0.1 if structure == "tumour" else 0) - 0.05 * noise
                    values = {"dice": value, "hd95_mm": 30 * (1 - value)}
                    values |= {"false_alarm": math.nan, "false_alarm_ml": math.nan}
                    for metric, measured in values.items():
                        yield replace(seen, structure=structure, metric=metric, value=measured)


def _healthy(one: Row, *, alarm: bool) -> Iterator[Row]:
    values = {"dice": math.nan, "hd95_mm": math.nan, "false_alarm": alarm, "false_alarm_ml": alarm}
    for metric, value in values.items():
        yield replace(
            one, structure="tumour", reference_empty=True, metric=metric, value=float(value)
        )


def _attribution(job: Mapping[str, str], sites: Sequence[str]) -> str:
    lines = ["set,site,kind,statistic,p,p_corrected,answer,detail"]
    for site in sites:
        if site in sites_of(job["train"]):
            continue
        lines.append(f'"site-{site}","{site}",covariate,0.4,0.001,0.003,yes,MMD')
        lines.append(f'"site-{site}","{site}",prevalence,0.1,0.3,0.6,no,<b>U')
        lines.append(f'"site-{site}","{site}",concept,,,,unknown,few patients')
    return "\n".join(lines) + "\n"


def _slice(folder: Path, case: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    number = len(list(folder.glob("*.npz")))
    reference = np.zeros((2, 20, 30), dtype=bool)
    reference[0, 5:15, 2:12], reference[1, 8:12, 15:20] = True, True
    np.savez_compressed(
        folder / f"{number}.npz",
        case=case,
        image=np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32),
        reference=reference,
        prediction=np.roll(reference, 2, axis=2),
        spacing_mm=np.array([2.0, 1.0]),
    )
