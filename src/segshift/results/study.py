"""The rows of a study beside what each of its jobs is: what every table of a study is made of.

A *line* of a study is what was trained: a part of the study, a variant, the training sites. Seeds
and folds repeat a line. Of each case the mean over these repetitions is taken first, so that three
trainings are not taken for three times as many patients.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from segshift.errors import InputError
from segshift.results.rows import COLUMNS, read_rows, read_strings
from segshift.results.significance import holm
from segshift.results.tables import MEAN, is_shifted
from segshift.splits import IN_DOMAIN

LINE = ["part", "variant", "train"]
WHERE = ["set", "site"]
MEASURED = ["metric", "structure"]
JOB_COLUMNS = (
    "job",
    "part",
    "train",
    "variant",
    "seed",
    "fold",
    "status",
    "seconds",
    "steps",
)
DONE, FAILED = "done", "failed"


@dataclass(frozen=True, slots=True)
class Study:
    """`jobs` as in jobs.csv, seconds and steps as numbers; `rows` of those that are done.

    The rows have, beside their own columns, those of the line, `seed` and `fold`; `run` is the job.
    """

    jobs: pd.DataFrame
    rows: pd.DataFrame


def read_study(folder: Path) -> Study:
    """Read `jobs.csv` and, if there is one, `rows.csv` of a study.

    Raises InputError for a folder without jobs, and for rows of a job that jobs.csv lacks.
    """
    jobs = read_jobs(folder / "jobs.csv")
    path = folder / "rows.csv"
    rows = read_rows(path) if path.exists() else pd.DataFrame(columns=list(COLUMNS))
    unknown = sorted(set(rows["run"]) - set(jobs["job"]))
    if unknown:
        raise InputError(
            f"{path}: rows of {unknown[:3]}, which jobs.csv lacks; run the study again, which "
            "writes both anew"
        )
    return Study(jobs, rows_of_jobs(rows, jobs))


def read_jobs(path: Path) -> pd.DataFrame:
    """The table of jobs.csv. Raises InputError where it is absent or broken."""
    if not path.is_file():
        raise InputError(f"{path.parent}: no jobs.csv; name the folder of a study")
    jobs = read_strings(path, columns=JOB_COLUMNS, what="jobs")
    for name in ("seconds", "steps"):
        jobs[name] = pd.to_numeric(jobs[name], errors="coerce")
    return jobs[list(JOB_COLUMNS)]


def rows_of_jobs(rows: pd.DataFrame, jobs: pd.DataFrame) -> pd.DataFrame:
    """The rows of finished jobs, each with its line, seed and fold, in an order of their own.

    A job that two parts share is in both, once each. Raises InputError where two jobs are the same
    seed and fold of a line: a mean over different networks would pass for one over repetitions.
    """
    done = jobs.loc[jobs["status"] == DONE, ["job", *LINE, "seed", "fold"]].drop_duplicates()
    _refuse_two_of_one(done)
    joined = rows.merge(done, left_on="run", right_on="job", validate="many_to_many")
    # Sorted, because the last bit of a mean depends on the order.
    return joined.drop(columns="job").sort_values(
        [*LINE, *WHERE, *MEASURED, "case", "run"], ignore_index=True
    )


def acquired(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of sets that are shown as they were acquired, without a shift."""
    return rows[~rows["set"].map(is_shifted).astype(bool)]


def case_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every case its mean over seeds and folds, by line, set, site, metric and structure."""
    keys = [*LINE, *WHERE, *MEASURED, "case", "patient"]
    return rows.groupby(keys)["value"].mean().reset_index()


def seed_spread(rows: pd.DataFrame) -> pd.DataFrame:
    """`seeds`, their number, and `seed_low` and `seed_high`, the least and largest mean of one.

    By line, set, site, metric and structure, `mean` included; the mean of a seed is made as that
    of all: over folds, then cases, then structures.
    """
    keys = [*LINE, *WHERE, "seed", *MEASURED]
    of_cases = rows.groupby([*keys, "case"])["value"].mean()
    of_structures = of_cases.groupby(keys).mean().reset_index()
    over = of_structures.groupby(keys[:-1])["value"].mean().reset_index()
    every = pd.concat([of_structures, over.assign(structure=MEAN)])
    by_seed = every.groupby([*LINE, *WHERE, *MEASURED])
    names = {"seeds": "size", "seed_low": "min", "seed_high": "max"}
    return by_seed.agg(**{name: ("value", how) for name, how in names.items()}).reset_index()


def jobs_behind(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """By `keys` the column `jobs`: the names of those that measured it, joined by ;."""
    pairs = rows[[*keys, "run"]].drop_duplicates().sort_values([*keys, "run"])
    return pairs.groupby(keys)["run"].agg(";".join).rename("jobs").reset_index()


def distinct(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of a table without those that the same jobs gave in an earlier part."""
    return table.drop_duplicates(_same(table))


def corrected(table: pd.DataFrame, p: str, *, families: list[str]) -> "pd.Series[float]":
    """Holm's correction of the column `p` in each family; what two parts share is one test."""
    found = pd.Series(np.nan, index=table.index)
    for _, family in distinct(table[table[p].notna()]).groupby(families):
        found[family.index] = holm(family[p].to_numpy(np.float64))
    return found.groupby([table[name] for name in _same(table)]).transform("first")


def sites_of(train: str, known: set[str]) -> tuple[str, ...]:
    """The training sites in a line's name, of the `known` ones; a site's own name may have a +."""
    parts = tuple(train.split("+"))
    return parts if train not in known and set(parts) <= known else (train,)


def main_metric(rows: pd.DataFrame) -> str:
    """Dice, or else the first metric of the rows or of a table."""
    metrics = sorted(rows["metric"].unique())
    return "dice" if "dice" in metrics or not metrics else str(metrics[0])


def line_names(jobs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """By (part, train) the training sites, and the part behind them where several have the same."""
    pairs = sorted(set(zip(jobs["part"], jobs["train"], strict=True)))
    times = Counter(train for _, train in pairs)
    return {(p, train): train if times[train] == 1 else f"{train} ({p})" for p, train in pairs}


def place_name(set_: str, site: str) -> str:
    """The site, with the set before it if that is neither `in_domain` nor the whole site."""
    return site if set_ in (IN_DOMAIN, f"site-{site}") else f"{set_} at {site}"


def _refuse_two_of_one(jobs: pd.DataFrame) -> None:
    names = [*LINE, "seed", "fold"]
    twice = jobs[jobs.duplicated(names, keep=False)]
    if twice.empty:
        return
    first = twice.iloc[0]
    same = twice[(twice[names] == first[names]).all(axis=1)]["job"]
    what = ", ".join(f"{name}={first[name]}" for name in names if first[name])
    raise InputError(
        f"jobs.csv: {' and '.join(same)} are both {what}; a line of a study has one job for each "
        "seed and fold. Run the study again, or give what tells them apart as a variant"
    )


def _same(table: pd.DataFrame) -> list[str]:
    """The columns in which two lines agree that differ in nothing but the part."""
    names = ("baseline", "variant", "train", *WHERE, *MEASURED, "shift", "severity", "jobs")
    return [name for name in names if name in table]
