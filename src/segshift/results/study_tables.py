"""All tables of a study from its rows, and the files and the flat summary that hold them."""

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from segshift.errors import InputError
from segshift.results.curves import shift_losses
from segshift.results.drafts import write_whole
from segshift.results.gaps import gap_table, leave_site_out_table
from segshift.results.intervals import MEAN
from segshift.results.matrix import area_table, failure_table, shift_table, train_test_matrix
from segshift.results.rows import acquired, read_strings
from segshift.results.shrinkage import site_means, worst_site
from segshift.results.study import (
    DONE,
    LINE,
    MEASURED,
    WHERE,
    Study,
    case_means,
    distinct,
    line_names,
    place_name,
)
from segshift.results.tables import estimates
from segshift.results.variants import variant_table
from segshift.splits import IN_DOMAIN


@dataclass(frozen=True, slots=True)
class StudyTables:
    """The tables that `write_study_tables` writes, each as <name>.csv."""

    matrix: pd.DataFrame
    gaps: pd.DataFrame
    leave_site_out: pd.DataFrame
    variants: pd.DataFrame
    failures: pd.DataFrame
    shifts: pd.DataFrame
    shift_areas: pd.DataFrame
    raters: pd.DataFrame


def study_tables(study: Study) -> StudyTables:
    """Derive every table from the rows; one of a study without rows is empty."""
    gaps, failures = gap_table(study.rows, study.measures), failure_table(study.rows)
    curves = shift_table(study.rows, calibrated=study.calibrated)
    return StudyTables(
        matrix=train_test_matrix(study.rows),
        gaps=gaps,
        leave_site_out=leave_site_out_table(gaps, failures),
        variants=variant_table(study.rows, study.measures),
        failures=failures,
        shifts=curves,
        shift_areas=area_table(curves, study.measures),
        raters=estimates(study.raters, WHERE).drop(columns="is_mean"),
    )


def study_summary(study: Study, tables: StudyTables) -> dict[str, float]:
    """Flat summary of the means over structures; what is undefined (NaN) has no key.

    | key                                          | value                                         |
    |----------------------------------------------|-----------------------------------------------|
    | `study/<variant>/<train>/<test>/<metric>`    | mean of the matrix                            |
    | `study/<variant>/<train>/<test>/gap/<metric>`| of the gap table; so are `harder` and `shift` |
    | `study/<variant>/worst/<metric>`             | mean of the worst pair outside the training   |
    |                                              | sites, as `worst_site` of a run chooses it;   |
    |                                              | `_patients` and `_shrunken` beside it         |
    | `study/raters/<test>/<metric>`               | how well people agree there                   |
    | `study/<variant>/gap/<metric>`               | mean of the gaps of all pairs                 |
    | `study/<variant>/shift/<corruption>/<metric>`| mean loss of `shift_areas`, over lines, sets  |
    | `jobs/all`, `jobs/done`, `time/jobs_s`       | jobs, and what the finished ones took         |

    `_low` and `_high` behind a mean, a gap and its parts are the interval. `<train>` and `<test>`
    are those of `line_names` and `place_name`, a / in them is a _; "" as a variant has no level.
    """
    jobs = study.jobs.drop_duplicates("job")
    done = jobs[jobs["status"] == DONE]
    summary = {
        "jobs/all": float(len(jobs)),
        "jobs/done": float(len(done)),
        "time/jobs_s": float(done["seconds"].sum()),
    }
    names = line_names(study.jobs)

    def add(table: pd.DataFrame, column: str, *, below: str = "") -> None:
        for line in table[table["structure"] == MEAN].to_dict("records"):
            test = place_name(line["set"], line["site"])
            levels = [line["variant"], names[line["part"], line["train"]], test]
            for end in ("", "_low", "_high"):
                key = f"{_key(levels)}/{below}{line['metric']}{end}"
                summary[key] = line[f"{column}{end}"]

    add(tables.matrix.rename(columns={"low": "mean_low", "high": "mean_high"}), "mean")
    for column in ("gap", "harder", "shift"):
        add(tables.gaps, column, below=f"{column}/")
    gaps = distinct(tables.gaps)
    gaps = gaps[gaps["structure"] == MEAN]
    for (variant, metric), gap in gaps.groupby(["variant", "metric"])["gap"]:
        summary[f"{_key([str(variant)])}/gap/{metric}"] = gap.mean()
    places = distinct(tables.matrix)[[*LINE, *WHERE]].drop_duplicates()
    outside = case_means(acquired(study.rows[study.rows["set"] != IN_DOMAIN])).merge(places)
    for (variant, metric), own in outside.groupby(["variant", "metric"]):
        sites = site_means(own, keys=[*LINE, *WHERE])
        worst = worst_site(sites, measure=study.measures[str(metric)])
        if worst:
            key = f"{_key([str(variant)])}/worst/{metric}"
            summary |= {key: worst.mean, f"{key}_patients": worst.patients}
            summary[f"{key}_shrunken"] = worst.shrunken
    people = tables.raters
    for line in people[people["structure"] == MEAN].to_dict("records"):
        place = place_name(line["set"], line["site"])
        summary[f"{_key(['raters', place])}/{line['metric']}"] = line["mean"]
    for line in shift_losses(distinct(tables.shift_areas), by=["variant"]).to_dict("records"):
        key = _key([line["variant"], "shift", line["corruption"]])
        summary[f"{key}/{line['metric']}"] = line["loss"]
    return {key: float(value) for key, value in sorted(summary.items()) if not math.isnan(value)}


def write_study_tables(folder: Path, study: Study) -> StudyTables:
    """Write the tables and summary.json into the study's folder, each file whole or not at all."""
    tables = study_tables(study)
    for field in fields(tables):
        write_whole(folder / f"{field.name}.csv", getattr(tables, field.name).to_csv(index=False))
    summary = study_summary(study, tables)
    write_whole(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return tables


def read_means(path: Path) -> pd.DataFrame:
    """matrix.csv or gaps.csv of a study. Raises InputError where it is absent or broken."""
    if not path.is_file():
        raise InputError(f"{path} is absent; run the study again, which writes its tables")
    names = [*LINE, *WHERE, *MEASURED]
    table = read_strings(path, columns=names, what="means")
    numbers = [str(name) for name in table if name not in {*names, "jobs"}]
    return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})


def _key(levels: list[str]) -> str:
    return "/".join(["study", *(level.replace("/", "_") for level in levels if level)])
