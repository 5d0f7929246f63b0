"""The rows of a study beside what each of its jobs is: what every table of a study is made of.

A *line* of a study is what was trained: a part of the study, a variant, the training sites. Seeds
and folds repeat a line. Of each case the mean over these repetitions is taken first, so that three
trainings are not taken for three times as many patients. The training sites are a list, written as
JSON, because a site's name may hold any sign.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from segshift.errors import InputError
from segshift.metrics import Measure
from segshift.results.curves import read_corruptions
from segshift.results.intervals import MEAN
from segshift.results.measures import Measures, check_measured, read_measures
from segshift.results.rows import acquired, no_rows, of_network, of_raters, read_rows, read_strings
from segshift.results.significance import holm
from segshift.splits import IN_DOMAIN, site_set

LINE = ["part", "variant", "train"]
WHERE = ["set", "site"]
CORRUPTED = ["corruption", "severity"]
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
    `raters` are rows of other people's masks, each once, whichever job has measured it.
    `calibrated` says which corruptions may be ranked.
    """

    jobs: pd.DataFrame
    rows: pd.DataFrame
    raters: pd.DataFrame
    measures: Measures
    calibrated: Mapping[str, bool]


def read_study(folder: Path, *, postprocessed: bool = False) -> Study:
    """Read `jobs.csv` and, once a job is done, the rows of a study and what is said of them.

    With `postprocessed` the masks are judged as post-processing left them. Raises InputError for a
    folder without jobs, for rows of a job that jobs.csv lacks and of a metric that metrics.json
    lacks.
    """
    jobs = read_jobs(folder / "jobs.csv")
    path = folder / "rows.csv"
    rows = read_rows(path) if path.exists() else no_rows()
    unknown = sorted(set(rows["run"]) - set(jobs["job"]))
    if unknown:
        raise InputError(
            f"{path}: rows of {unknown[:3]}, which jobs.csv lacks; run the study again, which "
            "writes both anew"
        )
    measures = read_measures(folder) if len(rows) else {}
    check_measured(rows["metric"], measures)
    own = rows_of_jobs(of_network(rows, postprocessed=postprocessed), jobs)
    once = [*WHERE, "case", "rater", *MEASURED]
    raters = of_raters(acquired(rows)).drop_duplicates(once).assign(run="raters")
    return Study(jobs, own, raters, measures, read_corruptions([folder]))


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
        [*LINE, *WHERE, *CORRUPTED, *MEASURED, "case", "run"], ignore_index=True
    )


def case_means(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every case its mean over seeds and folds.

    By line, set, site, corruption and severity, metric and structure.
    """
    keys = [*LINE, *WHERE, *CORRUPTED, *MEASURED, "case", "patient"]
    return rows.groupby(keys)["value"].mean().reset_index()


def seed_spread(rows: pd.DataFrame) -> pd.DataFrame:
    """`seeds`, their number, and `seed_low` and `seed_high`, the least and largest mean of one.

    By line, set, site, metric and structure, `mean` included; the mean of a seed is made as that
    of all: over folds, then cases, patients and structures.
    """
    keys = [*LINE, *WHERE, "seed", *MEASURED]
    of_cases = rows.groupby([*keys, "patient", "case"])["value"].mean()
    of_patients = of_cases.groupby([*keys, "patient"]).mean()
    of_structures = of_patients.groupby(keys).mean().reset_index()
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


def trained_at(sites: Iterable[str]) -> str:
    """The cell `train` of a job that was trained at these sites: their names, sorted, as JSON."""
    return json.dumps(sorted(sites), ensure_ascii=False)


def sites_of(train: str) -> tuple[str, ...]:
    """The training sites that `trained_at` wrote. Raises InputError for another cell."""
    try:
        sites = json.loads(train)
    except ValueError:
        sites = None
    if not isinstance(sites, list):
        raise InputError(f'train is {train!r}; a list of sites is wanted: ["dijon"]')
    return tuple(map(str, sites))


def main_measure(measures: Measures) -> Measure:
    """The first one: what tables and pages are about."""
    return next(iter(measures.values()))


def line_names(jobs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """By (part, train) what people read: the training sites, then what tells equal ones apart."""
    pairs = sorted(set(zip(jobs["part"], jobs["train"], strict=True)))
    names = {pair: "+".join(sites_of(pair[1])) for pair in pairs}
    for place in (0, 1):  # first by the part, then by the list itself
        times = Counter(names.values())
        names = {p: n if times[n] == 1 else f"{n} ({p[place]})" for p, n in names.items()}
    return names


def place_name(set_: str, site: str) -> str:
    """The site, with the set before it if that is neither `in_domain` nor the whole site."""
    return site if set_ in (IN_DOMAIN, site_set(site)) else f"{set_} at {site}"


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
    names = ("baseline", "variant", "train", *WHERE, *MEASURED, *CORRUPTED, "jobs")
    return [name for name in names if name in table]
