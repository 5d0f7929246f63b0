"""report.html of a study: everything its jobs left, on one page that needs no other file."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segshift.report.figures import colours_of
from segshift.report.lanes import HEIGHT
from segshift.report.page import drawn, rendered
from segshift.report.study_attribution import KINDS, pair_verdicts, read_attributions
from segshift.report.study_curves import area_lines, curves_figure, curves_sentence
from segshift.report.study_figures import gaps_figure, matrix_figure
from segshift.report.study_jobs import peak_memory_gb, selection, structures_of, told
from segshift.report.study_lanes import KEY
from segshift.report.study_matrix import blocks_of, more_heats
from segshift.report.study_page import (
    FILES,
    cost,
    failure_lines,
    gap_lines,
    job_lines,
    variant_lines,
)
from segshift.report.study_words import answers, missing, overview, troubles
from segshift.report.study_worst import worst_pictures
from segshift.results import (
    Study,
    StudyTables,
    distinct,
    main_metric,
    read_study,
    write_study_tables,
)
from segshift.results.drafts import write_whole
from segshift.results.significance import CAN_REACH_5_PERCENT

FIGURES = ("matrix", "gaps", "curves")
Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What every section of the page is about."""

    folder: Path
    study: Study
    tables: StudyTables
    attributions: pd.DataFrame
    metric: str
    sites: tuple[str, ...]


def write_study_report(folder: Path, *, metric: str | None = None) -> Path:
    """Write the tables, figures and report.html of a study into its folder; return the page.

    `metric`, by default Dice or else the first one, is that of figures, answers and ranks; the
    tables have all. What a half-finished study lacks is left out, and the page says so. What an
    earlier report has drawn is removed first.
    """
    study = read_study(folder)
    tables = write_study_tables(folder, study)
    attributions = read_attributions(folder, study.jobs)
    write_whole(folder / "attribution.csv", attributions.to_csv(index=False))
    _remove_figures(folder)
    sites = tuple(sorted(study.rows["site"].unique()))
    chosen = metric or main_metric(study.rows)
    about = Subject(folder, study, tables, attributions, chosen, sites)
    content = {
        **_head(about),
        **_matrix(about),
        **_gaps(about),
        **_curves(about),
        **_cases(about),
        **_jobs(about),
    }
    path = folder / "report.html"
    write_whole(path, rendered("study.html.jinja", content))
    return path


def _remove_figures(folder: Path) -> None:
    """What a report of earlier contents has drawn and this one may not draw again."""
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    for name in FIGURES:
        (figures / f"{name}.png").unlink(missing_ok=True)
    shutil.rmtree(figures / "overlays", ignore_errors=True)


def _head(about: Subject) -> Content:
    gaps = distinct(about.tables.gaps)
    chosen_by, oracle = selection(about.folder, about.study.jobs)
    return {
        "title": about.folder.resolve().name,
        **told(about.folder),
        "chosen": about.metric,
        "chosen_by": chosen_by,
        "oracle_warning": oracle,
        "overview": overview(gaps, metric=about.metric),
        "answers": answers(gaps, metric=about.metric, sites=about.sites),
        "troubles": troubles(about.study.jobs),
    }


def _matrix(about: Subject) -> Content:
    blocks, scale = blocks_of(about.study, about.tables, metric=about.metric, sites=about.sites)
    if blocks:
        first = blocks[0]
        names = (f"{about.folder.name}: {about.metric}", first.variant)
        title = ", ".join(filter(None, names))
        figure = matrix_figure(first.heat, first.lanes, scale=scale, title=title)
        figure.savefig(about.folder / "figures/matrix.png")
    more = more_heats(about.study, about.tables, metric=about.metric, sites=about.sites)
    return {
        "blocks": blocks,
        "scale": scale,
        "more_heats": more,
        "several_variants": about.study.jobs["variant"].nunique() > 1,
        "lane_key": KEY,
        "lane_height": HEIGHT,
    }


def _gaps(about: Subject) -> Content:
    gaps, left_out = distinct(about.tables.gaps), distinct(about.tables.leave_site_out)
    worst_first = gaps.sort_values("gap", ascending=False, kind="stable")
    lines = gap_lines(worst_first, metric=about.metric, sites=about.sites)
    figure = gaps_figure(gaps, metric=about.metric, sites=about.sites) if lines else None
    return {
        "leave_site_out": gap_lines(left_out, metric=about.metric, sites=about.sites),
        "gaps": lines,
        "enough_patients": CAN_REACH_5_PERCENT,
        "gaps_svg": drawn(figure, about.folder, name="gaps") if figure else "",
        "attributions": pair_verdicts(about.attributions, sites=about.sites),
        "kinds": KINDS,
    }


def _curves(about: Subject) -> Content:
    curves, areas = distinct(about.tables.shifts), distinct(about.tables.shift_areas)
    lines = area_lines(areas, metric=about.metric)
    figure = curves_figure(curves, areas, metric=about.metric) if lines else None
    return {
        "curves_text": curves_sentence(areas, metric=about.metric),
        "curves_svg": drawn(figure, about.folder, name="curves") if figure else "",
        "areas": lines,
    }


def _cases(about: Subject) -> Content:
    """Worst cases, failures, variants, and what cannot be told."""
    study, tables, metric = about.study, about.tables, about.metric
    structures = structures_of(about.folder, study)
    worst = worst_pictures(study.rows, about.folder, metric=metric, structures=structures)
    failures, kinds, without = failure_lines(distinct(tables.failures), sites=about.sites)
    attributed = bool(len(about.attributions))
    return {
        "worst_cases": worst,
        "colours": colours_of(structures),
        "failures": failures,
        "failure_kinds": kinds,
        "pairs_measured": len(failures) + without,
        "without_failures": f"{without} pairs without one are not listed." if without else "",
        "variants": variant_lines(distinct(tables.variants), metric=metric, sites=about.sites),
        "absent": missing(
            study, tables, metric=metric, attributed=attributed, pictures=bool(worst)
        ),
    }


def _jobs(about: Subject) -> Content:
    folder, jobs = about.folder, about.study.jobs
    pages = {path.parent.name for path in (folder / "jobs").glob("*/report.html")}
    return {
        "cost": cost(jobs, memory_gb=peak_memory_gb(folder, jobs)),
        "jobs": job_lines(jobs, sites=about.sites, pages=pages),
        "job_count": jobs["job"].nunique(),
        "files": {name: what for name, what in FILES.items() if (folder / name).exists()},
    }
