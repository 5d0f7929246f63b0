"""Rows of several runs side by side: what all of them measured, and what not.

A (set, corruption, severity, case, structure) that one run lacks, or in which the metric is
undefined for one of them, is left out of all of them, and counted: means of other cases are no
comparison. Rows are those of networks, with or without post-processing, of each number one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from segshift.errors import InputError
from segshift.results.names import set_label
from segshift.results.rows import read_rows

SHOWN = ["set", "corruption", "severity"]  # the cases of a set under a corruption are another set
KEY = [*SHOWN, "case", "structure"]
Shown = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class Paired:
    """Values of one metric: by `KEY`, patient and site (index) and run (columns).

    `left_out` says in sentences what not all runs have.
    """

    metric: str
    values: pd.DataFrame
    left_out: tuple[str, ...]


def read_runs(paths: Sequence[Path]) -> dict[str, pd.DataFrame]:
    """The rows of run folders or rows.csv files, by the name of the run.

    Raises InputError for a folder without rows, a file that is given twice, and a single run.
    """
    runs: dict[str, pd.DataFrame] = {}
    seen: set[Path] = set()
    for path in paths:
        file = path / "rows.csv" if path.is_dir() else path
        if not file.is_file():
            raise InputError(f"{path}: no rows.csv; name the folder of a run that has ended")
        if file.resolve() in seen:
            raise InputError(f"{path} is given twice; name different runs")
        seen.add(file.resolve())
        table = read_rows(file)
        for name in table["run"].unique():
            unique = name if name not in runs else f"{name} ({path})"
            runs[unique] = table[table["run"] == name]
    if len(runs) < 2:
        given = ", ".join(map(str, paths))
        raise InputError(f"{given}: rows of {len(runs)} run(s); name two or more to compare")
    return runs


def sets_of(table: pd.DataFrame) -> list[Shown]:
    """What `SHOWN` says of the lines, sorted: a set comes before itself under a corruption."""
    found = table[SHOWN].drop_duplicates().sort_values(SHOWN)
    return [(str(name), str(shift), int(grade)) for name, shift, grade in found.to_numpy()]


def of_sets(table: pd.DataFrame, sets: Iterable[Shown]) -> pd.DataFrame:
    """The lines of these sets."""
    return table[pd.MultiIndex.from_frame(table[SHOWN]).isin(list(sets))]


def common_rows(runs: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The rows of all `runs`, of the cases, sets and structures that each of them has."""
    rows = pd.concat([rows.assign(run=name) for name, rows in runs.items()], ignore_index=True)
    return rows[rows.groupby(KEY)["run"].transform("nunique") == len(runs)]


def pair(runs: Mapping[str, pd.DataFrame], *, metric: str) -> Paired:
    """The values of `metric` that all `runs` have, by name of the run.

    Raises InputError if there are none, for a case that is measured twice, and for one that is of
    different patients in two runs.
    """
    _check_people(runs)
    measured = {name: _values(name, rows, metric) for name, rows in runs.items()}
    wide = pd.concat(measured, axis=1, join="inner").sort_index()
    if wide.empty:
        raise InputError(
            f"no case has {metric} of the same structure in all runs; "
            + "; ".join(f"{name} has {_sides(values)}" for name, values in measured.items())
        )
    common = wide.dropna()
    if common.empty:
        raise InputError(
            f"{metric} is undefined in all of the {len(wide)} common values: their references do "
            "not have the structures; --metric false_alarm compares such cases"
        )
    first = next(iter(runs.values())).drop_duplicates(KEY).set_index(KEY)
    who = first.loc[common.index, ["patient", "site"]]
    values = common.set_index([who["patient"], who["site"]], append=True)
    return Paired(metric, values.rename_axis(columns="run"), _left_out(measured, wide, common))


def pair_if_any(runs: Mapping[str, pd.DataFrame], *, metric: str) -> Paired | None:
    """`pair`, or None where no value is in all runs, as in a study that is half finished."""
    try:
        return pair(runs, metric=metric)
    except InputError:
        return None


def patient_means(paired: Paired) -> pd.DataFrame:
    """By `SHOWN`, site and patient (index), the mean over structures of each run (columns)."""
    keys = [*SHOWN, "site", "patient"]
    by_structure = paired.values.groupby([*keys, "structure"]).mean()
    return by_structure.groupby(keys).mean()


def _values(name: str, rows: pd.DataFrame, metric: str) -> "pd.Series[float]":
    of_metric = rows[rows["metric"] == metric]
    if of_metric.empty:
        known = ", ".join(sorted(rows["metric"].unique()))
        raise InputError(f"{name}: no rows of the metric {metric!r}; it has {known}")
    values = of_metric.set_index(KEY)["value"]
    twice = values.index[values.index.duplicated()]
    if len(twice):
        raise InputError(f"{name}: {metric} of ({', '.join(KEY)}) {twice[0]} is there twice")
    return values


def _check_people(runs: Mapping[str, pd.DataFrame]) -> None:
    known: dict[str, tuple[str, str]] = {}
    for name, rows in runs.items():
        for case, patient in sorted(set(zip(rows["case"], rows["patient"], strict=True))):
            other, before = known.setdefault(case, (patient, name))
            if other != patient:
                raise InputError(
                    f"case {case!r} is of patient {other!r} in {before} and of {patient!r} in "
                    f"{name}; only runs on the same cohort can be compared"
                )


def _names(index: pd.Index) -> dict[str, list[str]]:
    """The structures, sets and cases of keys."""
    keys = index.to_frame(index=False)
    return {
        "structures": sorted(keys["structure"].unique()),
        "sets": [set_label(*key) for key in sets_of(keys)],
        "cases": sorted(keys["case"].unique()),
    }


def _sides(values: "pd.Series[float]") -> str:
    names = _names(values.index)
    cases = names["cases"]
    return (
        f"sets {'; '.join(names['sets'])}, structures {', '.join(names['structures'])}, "
        f"{len(cases)} cases ({', '.join(cases[:3])}, ...)"
    )


def _left_out(
    measured: Mapping[str, "pd.Series[float]"], wide: pd.DataFrame, common: pd.DataFrame
) -> tuple[str, ...]:
    notes = []
    every = {name: _names(values.index) for name, values in measured.items()}
    kept = _names(wide.index)
    for several in kept:
        for name, own in every.items():
            gone = [each for each in own[several] if each not in set(kept[several])]
            if gone:
                shown = "; ".join(gone[:5]) + ("; ..." if len(gone) > 5 else "")
                notes.append(
                    f"{name}: {len(gone)} of {len(own[several])} {several} left out, "
                    f"which not all runs have: {shown}"
                )
    undefined = int((wide.notna().any(axis=1) & wide.isna().any(axis=1)).sum())
    if undefined:
        notes.append(
            f"{undefined} of {len(common) + undefined} values left out, which are undefined for "
            "some of the runs only; of a metric of masks the reference alone decides that, so "
            "these runs were judged against different references"
        )
    return tuple(notes)
