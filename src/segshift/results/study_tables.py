"""All tables of a study from its rows, and the files and the flat summary that hold them."""

import json
import math
import os
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from segshift.errors import InputError
from segshift.results.comparison import higher_is_better
from segshift.results.gaps import gap_table, leave_site_out_table
from segshift.results.matrix import failure_table, shift_table, train_test_matrix
from segshift.results.names import SIGNED
from segshift.results.rows import read_strings
from segshift.results.study import DONE, LINE, MEASURED, WHERE, Study, line_names, place_name
from segshift.results.tables import IN_DOMAIN, MEAN
from segshift.results.variants import variant_table


@dataclass(frozen=True, slots=True)
class StudyTables:
    """The tables that `write_study_tables` writes, each as <name>.csv."""

    matrix: pd.DataFrame
    gaps: pd.DataFrame
    leave_site_out: pd.DataFrame
    variants: pd.DataFrame
    failures: pd.DataFrame
    shifts: pd.DataFrame


def study_tables(study: Study) -> StudyTables:
    """Derive every table from the rows; one of a study without rows is empty."""
    gaps, failures = gap_table(study.rows), failure_table(study.rows)
    return StudyTables(
        matrix=train_test_matrix(study.rows),
        gaps=gaps,
        leave_site_out=leave_site_out_table(gaps, failures, sites=set(study.rows["site"])),
        variants=variant_table(study.rows),
        failures=failures,
        shifts=shift_table(study.rows),
    )


def study_summary(study: Study, tables: StudyTables) -> dict[str, float]:
    """Flat summary of the means over structures; what is undefined (NaN) has no key.

    | key                                          | value                                         |
    |----------------------------------------------|-----------------------------------------------|
    | `study/<variant>/<train>/<test>/<metric>`    | mean of the matrix                            |
    | `study/<variant>/<train>/<test>/gap/<metric>`| of the gap table; so are `harder` and `shift` |
    | `study/<variant>/worst/<metric>`             | worst mean outside the training sites         |
    | `study/<variant>/gap/<metric>`               | mean of the gaps of all pairs                 |
    | `study/<variant>/shift/<shift>/<metric>`     | mean loss over lines, sets and severities     |
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
    gaps = tables.gaps[tables.gaps["structure"] == MEAN]
    for (variant, metric), gap in gaps.groupby(["variant", "metric"])["gap"]:
        summary[f"{_key([str(variant)])}/gap/{metric}"] = gap.mean()
    outside = tables.matrix[
        (tables.matrix["structure"] == MEAN)
        & (tables.matrix["set"] != IN_DOMAIN)
        & ~_signed(tables.matrix)
    ]
    for (variant, metric), means in outside.groupby(["variant", "metric"])["mean"]:
        worst = means.min() if higher_is_better(str(metric)) else means.max()
        summary[f"{_key([str(variant)])}/worst/{metric}"] = worst
    for (variant, shift, metric), loss in shift_losses(tables.shifts).items():
        summary[f"{_key([variant, 'shift', shift])}/{metric}"] = loss
    return {key: float(value) for key, value in sorted(summary.items()) if not math.isnan(value)}


def shift_losses(curves: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """By variant, shift and metric how much worse the means are than without the shift."""
    means = curves[(curves["structure"] == MEAN) & ~_signed(curves)]
    keys = [*LINE, "set", "shift", "metric"]
    start = means[means["severity"] == 0].set_index(keys)["mean"].rename("start")
    shifted = means[means["severity"] > 0].join(start, on=keys)
    sign = shifted["metric"].map(lambda metric: 1.0 if higher_is_better(metric) else -1.0)
    loss = shifted.assign(loss=sign * (shifted["start"] - shifted["mean"]))
    keys = ["variant", "shift", "metric"]
    by = loss.groupby(keys)["loss"].mean().reset_index()
    names = zip(*(by[key] for key in keys), strict=True)
    return dict(zip(names, by["loss"].astype(float), strict=True))


def write_study_tables(folder: Path, study: Study) -> StudyTables:
    """Write the tables and summary.json into the study's folder, each file whole or not at all."""
    tables = study_tables(study)
    for field in fields(tables):
        write_text(folder / f"{field.name}.csv", getattr(tables, field.name).to_csv(index=False))
    summary = study_summary(study, tables)
    write_text(folder / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return tables


def read_means(path: Path) -> pd.DataFrame:
    """matrix.csv or gaps.csv of a study. Raises InputError where it is absent or broken."""
    if not path.is_file():
        raise InputError(f"{path} is absent; run the study again, which writes its tables")
    names = [*LINE, *WHERE, *MEASURED]
    table = read_strings(path, columns=names, what="means")
    numbers = [str(name) for name in table if name not in {*names, "jobs"}]
    return table.assign(**{name: pd.to_numeric(table[name]) for name in numbers})


def write_text(path: Path, text: str) -> None:
    """Replace the file at once."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8", newline="")
    draft.replace(path)


def _signed(table: pd.DataFrame) -> "pd.Series[bool]":
    return table["metric"].str.fullmatch(SIGNED).astype(bool)


def _key(levels: list[str]) -> str:
    return "/".join(["study", *(level.replace("/", "_") for level in levels if level)])
