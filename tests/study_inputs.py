"""The folder of a finished study, as small as its tables and its report can be made from."""

import csv
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from segshift.results import Row, write_rows

STRUCTURES = ("liver", "tumour")
EVIL = "<script>alert(1)</script>"


def write_jobs(folder: Path, jobs: Iterable[Mapping[str, str]]) -> None:
    """jobs.csv; what a job does not say is empty, its status is done."""
    columns = ("job", "part", "train", "variant", "seed", "fold", "status", "seconds", "steps")
    with (folder / "jobs.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        for job in jobs:
            writer.writerow({"status": "done", "seconds": "60", "steps": "100", **job})


def row(job: str, set_: str, case: str, site: str, value: float, **other: str) -> Row:
    """Of the liver's Dice, of a patient with one case, unless told otherwise."""
    names = {"patient": case, "structure": "liver", "metric": "dice", **other}
    return Row(job, set_, case, names["patient"], site, names["structure"], names["metric"], value)


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
    variant is better by 0.02. Case 0 of the last site has a name that wants to be a script.
    """
    jobs, rows = [], []
    for variant in variants:
        for seed in seeds:
            for site in sites if trained is None else trained:
                for fold in ("0", "1"):
                    jobs.append(_job("single_source", site, variant, seed, fold))
                if len(sites) > 2:
                    others = "+".join(each for each in sites if each != site)
                    jobs.append(_job("leave_site_out", others, variant, seed, ""))
    for job in jobs:
        rows += list(_measured(job, sites, patients, variants, noises))
    write_jobs(folder, jobs)
    write_rows(folder / "rows.csv", rows)
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
        for one in {(one.run, one.set, one.case) for one in rows if "noise" not in one.set}:
            _slice(folder / "jobs" / one[0] / "figures/slices" / one[1], one[2])
    return folder


def _job(part: str, train: str, variant: str, seed: str, fold: str) -> dict[str, str]:
    label = "-".join(filter(None, (part, train, variant, seed, fold)))
    job = "".join(c if c.isalnum() or c in "-+" else "_" for c in label)
    names = {"part": part, "train": train, "variant": variant, "seed": seed, "fold": fold}
    return {"job": f"{job[:80]}-{zlib.crc32(repr(names).encode()) % 10**8:08d}", **names}


def _measured(
    job: Mapping[str, str],
    sites: Sequence[str],
    patients: int,
    variants: Sequence[str],
    noises: Sequence[int],
) -> Iterable[Row]:
    own = sites if job["train"] in sites else [s for s in sites if s in job["train"].split("+")]
    own = [job["train"]] if job["train"] in sites else own
    for site in sites:
        for number in range(patients):
            home = site in own
            if home and job["fold"] and number % 2 != int(job["fold"]):
                continue
            case = EVIL if site == sites[-1] and number == 0 else f"{site}-{number}"
            dice = 0.85 - 0.02 * number - (0.05 if site == sites[-1] else 0) - (0 if home else 0.1)
            dice += 0.02 * variants.index(job["variant"]) + 0.01 * int(job["seed"] or 0)
            for noise in noises:
                set_ = "in_domain" if home else f"site-{site}"
                set_ += f"+noise{noise}" if noise else ""
                for structure in STRUCTURES:
                    value = dice - (0.1 if structure == "tumour" else 0) - 0.05 * noise
                    for metric, measured in (("dice", value), ("hd95_mm", 30 * (1 - value))):
                        yield Row(job["job"], set_, case, case, site, structure, metric, measured)


def _attribution(job: Mapping[str, str], sites: Sequence[str]) -> str:
    lines = ["train,set,site,kind,statistic,p,p_corrected,answer,detail"]
    for site in sites:
        if site in job["train"].split("+"):
            continue
        lines.append(f'"{job["train"]}","site-{site}","{site}",covariate,0.4,0.001,0.003,yes,MMD')
        lines.append(f'"{job["train"]}","site-{site}","{site}",prevalence,0.1,0.3,0.6,no,<b>U')
        lines.append(f'"{job["train"]}","site-{site}","{site}",concept,,,,unknown,few patients')
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
