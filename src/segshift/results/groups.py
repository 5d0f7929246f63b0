"""Means by a column of the cases: which guideline, which rater. Pure functions of two tables.

A case whose column is empty is in no group. Groups never pool evaluation sets: in one set the
cases are judged under the same conditions, in two they are not.
"""

import math

import pandas as pd

from segshift.errors import InputError
from segshift.results.tables import MEAN, site_table

GROUPINGS = ("guideline", "rater")


def grouped(rows: pd.DataFrame, cases: pd.DataFrame, *, column: str) -> pd.DataFrame:
    """As `site_table`, with one line per (set, value of `column`, structure), then `mean`.

    `cases` is the table of `read_cases`. Raises InputError for a column that it lacks, and for a
    case of the rows that it lacks.
    """
    if column not in cases.columns:
        raise InputError(f"the cases have no column {column!r}; they have {list(cases.columns)}")
    unknown = sorted(set(rows["case"]) - set(cases["case"]))
    if unknown:
        raise InputError(f"{len(unknown)} cases have rows but no line in cases.csv: {unknown[:10]}")
    by_value = rows.assign(site=rows["case"].map(_by_case(cases, column)))
    return site_table(by_value[by_value["site"] != ""]).rename(columns={"site": column})


def group_tables(rows: pd.DataFrame, cases: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """By each of `GROUPINGS` that says something, its `grouped` table.

    It does where the cases of one set have several values and the values do not coincide with the
    sites, as in a set where each site follows a guideline of its own: those means are in the site
    table already. Where each set has one value, they are the means of the sets.
    """
    return {
        column: grouped(rows, cases, column=column)
        for column in GROUPINGS
        if column in cases.columns and _says_something(rows, cases, column)
    }


def summarise_groups(rows: pd.DataFrame, cases: pd.DataFrame) -> dict[str, float]:
    """`test/<set>/<column>-<value>/<metric>`, the mean of the structure means, NaN left out.

    For each of `GROUPINGS` of which the evaluated cases have several values.
    """
    summary: dict[str, float] = {}
    for column in GROUPINGS:
        if column not in cases.columns or len(set(_by_case(cases, column)) - {""}) < 2:
            continue
        table = grouped(rows, cases, column=column)
        for line in table[table["structure"] == MEAN].to_dict("records"):
            for metric in rows["metric"].unique():
                value = str(line[column]).replace("/", "_")  # which separates a key's parts
                name = f"test/{line['set']}/{column}-{value}/{metric}"
                summary[name] = float(line[metric])
    return {key: value for key, value in sorted(summary.items()) if not math.isnan(value)}


def _by_case(cases: pd.DataFrame, column: str) -> "pd.Series[str]":
    return cases.set_index("case", drop=False)[column].str.strip()


def _says_something(rows: pd.DataFrame, cases: pd.DataFrame, column: str) -> bool:
    seen = rows[["set", "case", "site"]].drop_duplicates()
    seen = seen.assign(value=seen["case"].map(_by_case(cases, column)))
    for _, members in seen[seen["value"] != ""].groupby("set"):
        pairs = members[["site", "value"]].drop_duplicates()
        coincide = pairs["site"].is_unique and pairs["value"].is_unique
        if members["value"].nunique() > 1 and not coincide:
            return True
    return False
