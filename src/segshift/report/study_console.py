"""The tables of a study in a terminal: trained here, tested there, and what is lost."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.metrics import Measure
from segshift.report.console import empty_table
from segshift.report.false_alarms import false_alarm_answers
from segshift.report.heat import Cell, Heat, Scale, heat_of
from segshift.report.measures import lines_of
from segshift.report.study_jobs import chosen_measure, selection
from segshift.report.study_page import gap_lines
from segshift.report.study_words import answers, overview, troubles
from segshift.results import distinct, line_names, read_jobs, read_means, read_measures
from segshift.results.rows import read_strings
from segshift.results.study import MEASURED, WHERE
from segshift.results.tables import NUMBERS

FITTING_SITES = 6  # beside each other in a terminal; the page has all
PRINTED_PAIRS = 20


def print_study(folder: Path, *, metric: str | None = None, console: Console | None = None) -> None:
    """Print the answer, the matrix and the gaps that `write_study_report` left in the folder.

    Of more sites than fit beside each other only the gaps are printed, the largest ones.
    """
    console = console or Console()
    jobs = read_jobs(folder / "jobs.csv")
    matrix = read_means(folder / "matrix.csv")
    gaps = distinct(read_means(folder / "gaps.csv"))
    measure = chosen_measure(read_measures(folder) if len(matrix) else {}, metric)
    means, raters = lines_of(matrix, measure), lines_of(_raters(folder), measure)
    sites = tuple(sorted(means["site"].unique()))
    scale = Scale.of(means["mean"], measure=measure)
    for variant, own in means.groupby("variant"):
        heat = heat_of(own, names=line_names(jobs), sites=sites, scale=scale, raters=raters)
        if len(heat.columns) <= FITTING_SITES:
            console.print(_matrix(heat, measure, variant=str(variant)))
    pairs = gaps.sort_values("gap", ascending=False, kind="stable")
    lines = gap_lines(pairs, measure=measure, sites=sites)
    if lines:
        left = len(lines) - PRINTED_PAIRS
        console.print(_gaps(lines[:PRINTED_PAIRS], metric=measure.name, left=left))
    said = [overview(gaps, measure=measure), *answers(gaps, measure=measure, sites=sites)]
    said += false_alarm_answers(gaps, sites=sites)
    for sentence in [*filter(None, [*said, *selection(folder, jobs)]), *troubles(jobs)]:
        console.print(Text(sentence))


def short_variants(variants: Iterable[str]) -> tuple[str, Mapping[str, str]]:
    """What the variants vary, and what each of them takes: `model`, and `unet2d` of model=unet2d.

    The whole names, where they do not all vary the same.
    """
    words = {name: [word.partition("=") for word in name.split()] for name in variants}
    varied = {tuple(key + sign for key, sign, _ in own) for own in words.values()}
    if len(varied) > 1 or not all(key.endswith("=") for keys in varied for key in keys):
        return "variant", {name: name for name in words}
    heading = " ".join(key.rstrip("=") for keys in varied for key in keys)
    return heading, {name: " ".join(text for _, _, text in own) for name, own in words.items()}


def _raters(folder: Path) -> pd.DataFrame:
    """raters.csv, which has no line where nobody has drawn a case again."""
    columns = [*WHERE, *MEASURED, *NUMBERS]
    table = read_strings(folder / "raters.csv", columns=columns, what="raters")
    return table.assign(**{name: pd.to_numeric(table[name]) for name in NUMBERS})


def _matrix(heat: Heat, measure: Measure, *, variant: str) -> Table:
    failed = any(cell and cell.failed for line in heat.lines for cell in line.cells)
    about = "patients that failed, bounds of their share" if failed else ""
    told = [f"mean {measure.name}, 95 % interval", about, variant]
    title = f"{', '.join(filter(None, told))}; * trained at this site"
    table = empty_table(title, ["trained at"])
    for column in heat.columns:
        table.add_column(Text(column), justify="right", overflow="fold")
    for line in heat.lines:
        table.add_row(Text(line.name), *(Text(_told(cell)) for cell in line.cells))
    return table


def _told(cell: Cell | None) -> str:
    if cell is None:
        return "-"
    lines = (f"{cell.text}{'*' if cell.own else ' '}", cell.interval, cell.failed, cell.share)
    return "\n".join(filter(None, lines))


def _gaps(lines: Sequence[Mapping[str, Any]], *, metric: str, left: int) -> Table:
    more = f"; {left} smaller ones are in gaps.csv" if left > 0 else ""
    varied, variants = short_variants({line["variant"] for line in lines})
    # One column of names, because three would be cut in pieces in a terminal of 80 letters.
    heading = f"trained at -> tested at\n{varied}".strip()
    table = empty_table(f"worse in {metric} than at home, positive is worse{more}", [heading])
    for name in ("gap", "harder", "shift", "Holm p", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        _, _, gap, harder, shift = line["cells"]
        numbers = (
            f"{gap.text}\n{gap.beside}",
            harder.text,
            f"{shift.text}\n{shift.beside}",
            line["holm"],
            line["patients"],
        )
        who = f"{line['trained']} -> {line['test']}\n{variants[line['variant']]}".strip()
        table.add_row(*map(Text, (who, *numbers)))
    return table
