"""Means by a column of the cases: which guideline, which rater. Pure functions of two tables.

A case whose column is empty is in no group. Groups never pool evaluation sets: in one set the
cases are judged under the same conditions, in two they are not.
"""

import math

import pandas as pd

from segshift.errors import InputError
from segshift.results.intervals import MEAN
from segshift.results.tables import site_table, with_raters

GROUPINGS = ("guideline", "rater")


def grouped(
    rows: pd.DataFrame, cases: pd.DataFrame, *, column: str, raters: pd.DataFrame | None = None
) -> pd.DataFrame:
    """As `site_table`, with one line per (set, value of `column`, structure), then `mean`.

    `cases` is the table of `read_cases`; of the rows of other `raters` there are the columns of
    `with_raters`. Raises InputError for a column that it lacks, and for a
    case of the rows that it lacks.
    """
    if column not in cases.columns:
        raise InputError(f"the cases have no column {column!r}; they have {list(cases.columns)}")

    def by_value(own: pd.DataFrame) -> pd.DataFrame:
        valued = own.assign(site=_values(own, cases, column))
        return valued[valued["site"] != ""]

    table = site_table(by_value(rows))
    if raters is not None and len(raters):
        table = with_raters(table, by_value(raters))
    return table.rename(columns={"site": column})


def group_tables(
    rows: pd.DataFrame, cases: pd.DataFrame, *, raters: pd.DataFrame | None = None
) -> dict[str, pd.DataFrame]:
    """By each of `GROUPINGS` that says something, its `grouped` table.

    It does where the cases of one set have several values and the values do not coincide with the
    sites, as in a set where each site follows a guideline of its own: those means are in the site
    table already. Where each set has one value, they are the means of the sets.
    """
    return {
        column: grouped(rows, cases, column=column, raters=raters)
        for column in GROUPINGS
        if column in cases.columns and _says_something(rows, cases, column)
    }


def summarise_groups(rows: pd.DataFrame, cases: pd.DataFrame) -> dict[str, float]:
    """`test/<set>/<column>-<value>/<metric>`, the mean of the structure means, NaN left out.

    For each of `GROUPINGS` of which the evaluated cases have several values.
    """
    summary: dict[str, float] = {}
    for column in GROUPINGS:
        if column not in cases.columns or len(set(cases[column].str.strip()) - {""}) < 2:
            continue
        table = grouped(rows, cases, column=column)
        for line in table[table["structure"] == MEAN].to_dict("records"):
            for metric in rows["metric"].unique():
                value = str(line[column]).replace("/", "_")  # which separates a key's parts
                name = f"test/{line['set']}/{column}-{value}/{metric}"
                summary[name] = float(line[metric])
    return {key: value for key, value in sorted(summary.items()) if not math.isnan(value)}


def _values(rows: pd.DataFrame, cases: pd.DataFrame, column: str) -> list[str]:
    """What the column says of the case of each row, in its set; InputError for an unknown case."""
    by_case = cases.set_index(["set", "case"], drop=False)[column].str.strip()
    asked = pd.MultiIndex.from_frame(rows[["set", "case"]])
    unknown = sorted(set(asked[~asked.isin(by_case.index)]))
    if unknown:
        raise InputError(f"{len(unknown)} cases have rows but no line in cases.csv: {unknown[:10]}")
    return by_case.loc[asked].to_list()


def _says_something(rows: pd.DataFrame, cases: pd.DataFrame, column: str) -> bool:
    seen = rows[["set", "case", "site"]].drop_duplicates()
    seen = seen.assign(value=_values(seen, cases, column))
    for _, members in seen[seen["value"] != ""].groupby("set"):
        pairs = members[["site", "value"]].drop_duplicates()
        coincide = pairs["site"].is_unique and pairs["value"].is_unique
        if members["value"].nunique() > 1 and not coincide:
            return True
    return False
