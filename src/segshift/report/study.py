"""report.html of a study: everything its jobs left, on one page that needs no other file."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segshift.metrics import Dice, FalseAlarm, Measure
from segshift.report.false_alarms import false_alarm_answers
from segshift.report.figures import colours_of
from segshift.report.lanes import HEIGHT
from segshift.report.measures import sizes_told
from segshift.report.page import drawn, rendered
from segshift.report.shifts import UNRANKED
from segshift.report.study_attribution import KINDS, pair_verdicts, read_attributions
from segshift.report.study_curves import area_lines, curves_figure, curves_sentence
from segshift.report.study_figures import gaps_figure, matrix_figure
from segshift.report.study_jobs import (
    chosen_measure,
    peak_memory_gb,
    selection,
    structures_of,
    told,
)
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
    FAILURE,
    Study,
    StudyTables,
    distinct,
    read_study,
    write_study_tables,
)
from segshift.results.drafts import write_whole
from segshift.results.intervals import FEWEST_PATIENTS

FIGURES = ("matrix", "gaps", "curves")
Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What every section of the page is about."""

    folder: Path
    study: Study
    tables: StudyTables
    attributions: pd.DataFrame
    measure: Measure
    sites: tuple[str, ...]
    postprocessed: bool


def write_study_report(
    folder: Path, *, metric: str | None = None, postprocessed: bool = False
) -> Path:
    """Write the tables, figures and report.html of a study into its folder; return the page.

    `metric`, by default Dice or else the first one, is that of figures, answers and ranks; the
    tables have all. With `postprocessed` the masks are judged as post-processing left them. What a
    half-finished study lacks is left out, and the page says so. What an earlier report has drawn is
    removed first.
    """
    study = read_study(folder, postprocessed=postprocessed)
    tables = write_study_tables(folder, study)
    attributions = read_attributions(folder, study.jobs)
    write_whole(folder / "attribution.csv", attributions.to_csv(index=False))
    _remove_figures(folder)
    sites = tuple(sorted(study.rows["site"].unique()))
    measure = chosen_measure(study.measures, metric)
    about = Subject(folder, study, tables, attributions, measure, sites, postprocessed)
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
        "chosen": about.measure.name,
        "chosen_by": chosen_by,
        "postprocessed": about.postprocessed,
        "sizes_told": sizes_told(about.study.rows, about.study.measures),
        "oracle_warning": oracle,
        "overview": overview(gaps, measure=about.measure),
        "answers": answers(gaps, measure=about.measure, sites=about.sites),
        "false_alarm_answers": false_alarm_answers(gaps, sites=about.sites),
        "troubles": troubles(about.study.jobs),
    }


def _matrix(about: Subject) -> Content:
    blocks, scale = blocks_of(about.study, about.tables, measure=about.measure, sites=about.sites)
    if blocks:
        first = blocks[0]
        names = (f"{about.folder.name}: {about.measure.name}", first.variant)
        title = ", ".join(filter(None, names))
        figure = matrix_figure(first.heat, first.lanes, scale=scale, title=title)
        figure.savefig(about.folder / "figures/matrix.png")
    more = more_heats(about.study, about.tables, measure=about.measure, sites=about.sites)
    return {
        "blocks": blocks,
        "scale": scale,
        "more_heats": more,
        "has_raters": bool(len(about.tables.raters)),
        "fewest_patients": FEWEST_PATIENTS,
        "several_variants": about.study.jobs["variant"].nunique() > 1,
        "lane_key": KEY,
        "lane_height": HEIGHT,
    }


def _gaps(about: Subject) -> Content:
    gaps, left_out = distinct(about.tables.gaps), distinct(about.tables.leave_site_out)
    worst_first = gaps.sort_values("gap", ascending=False, kind="stable")
    measure = about.measure
    lines = gap_lines(worst_first, measure=measure, sites=about.sites)
    figure = gaps_figure(gaps, measure=measure, sites=about.sites) if lines else None
    alarm = about.study.measures.get(FalseAlarm.name, measure)
    alarms = gap_lines(worst_first, measure=alarm, sites=about.sites) if alarm != measure else []
    return {
        "leave_site_out": gap_lines(left_out, measure=measure, sites=about.sites),
        "gaps": lines,
        "has_failures": measure.name == Dice.name,
        "failure": FAILURE,
        "false_alarm_gaps": alarms,
        "gaps_svg": drawn(figure, about.folder, name="gaps") if figure else "",
        "attributions": pair_verdicts(about.attributions, sites=about.sites),
        "kinds": KINDS,
    }


def _curves(about: Subject) -> Content:
    curves, areas = distinct(about.tables.shifts), distinct(about.tables.shift_areas)
    lines = area_lines(areas, measure=about.measure)
    unranked = area_lines(areas, measure=about.measure, calibrated=False)
    drawable = lines or unranked
    figure = curves_figure(curves, areas, measure=about.measure) if drawable else None
    return {
        "curves_text": curves_sentence(areas, measure=about.measure),
        "curves_svg": drawn(figure, about.folder, name="curves") if figure else "",
        "areas": lines,
        "unranked": unranked,
        "why_unranked": UNRANKED,
    }


def _cases(about: Subject) -> Content:
    """Worst cases, failures, variants, and what cannot be told."""
    study, tables, measure = about.study, about.tables, about.measure
    structures = structures_of(about.folder, study)
    worst = worst_pictures(study.rows, about.folder, measure=measure, structures=structures)
    failures, kinds, without = failure_lines(distinct(tables.failures), sites=about.sites)
    attributed = bool(len(about.attributions))
    return {
        "worst_cases": worst,
        "colours": colours_of(structures),
        "failures": failures,
        "failure_kinds": kinds,
        "pairs_measured": len(failures) + without,
        "without_failures": f"{without} pairs without one are not listed." if without else "",
        "variants": variant_lines(distinct(tables.variants), measure=measure, sites=about.sites),
        "absent": missing(
            study, tables, measure=measure, attributed=attributed, pictures=bool(worst)
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
