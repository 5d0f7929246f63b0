"""report.html of a study: everything its jobs left, on one page that needs no other file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from segshift.report.figures import colours_of
from segshift.report.heat import Heat, Scale, heat_of
from segshift.report.lanes import HEIGHT, Lanes
from segshift.report.page import drawn, rendered
from segshift.report.study_attribution import KINDS, pair_verdicts, read_attributions
from segshift.report.study_curves import curves_figure, curves_sentence
from segshift.report.study_figures import gaps_figure, matrix_figure
from segshift.report.study_lanes import KEY, study_lanes
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
    MEAN,
    Study,
    StudyTables,
    acquired,
    case_means,
    line_names,
    main_metric,
    read_study,
    write_study_tables,
)

QUESTION = "How well will it do at the next hospital?"


@dataclass(frozen=True, slots=True)
class Block:
    """One variant: its heat map and its lanes."""

    variant: str
    heat: Heat
    lanes: Lanes


@dataclass(frozen=True, slots=True)
class MoreHeat:
    """A heat map of a structure or of another metric."""

    name: str
    scale: Scale
    heat: Heat


def write_study_report(folder: Path, *, metric: str | None = None) -> Path:
    """Write the tables, figures and report.html of a study into its folder; return the page.

    `metric`, by default Dice or else the first one, is that of figures, answers and ranks; the
    tables have all. What a half-finished study lacks is left out, and the page says so.
    """
    study = read_study(folder)
    tables = write_study_tables(folder, study)
    chosen = metric or main_metric(study.rows)
    sites = tuple(sorted(study.rows["site"].unique()))
    attributions = read_attributions(folder, study.jobs)
    if len(attributions):
        attributions.to_csv(folder / "attribution.csv", index=False)
    (folder / "figures").mkdir(exist_ok=True)
    structures = _structures(folder, study)
    blocks, scale = _blocks(study, tables, metric=chosen, sites=sites)
    if blocks:
        first = blocks[0]
        title = f"{folder.name}: {chosen}" + (f", {first.variant}" if first.variant else "")
        figure = matrix_figure(first.heat, first.lanes, scale=scale, title=title)
        figure.savefig(folder / "figures/matrix.png")
    gaps = gap_lines(tables.gaps, metric=chosen, sites=sites)
    of_gaps = gaps_figure(tables.gaps, metric=chosen, sites=sites) if gaps else None
    of_curves = curves_figure(tables.shifts, metric=chosen) if len(tables.shifts) else None
    failures, failure_kinds, without = failure_lines(tables.failures, sites=sites)
    worst = worst_pictures(study.rows, folder, metric=chosen, structures=structures)
    told = _told(folder)
    pages = {path.parent.name for path in (folder / "jobs").glob("*/report.html")}
    content = {
        "title": folder.resolve().name,
        "question": told.get("question", QUESTION),
        "command": told.get("command", ""),
        "study_yaml": told.get("text", ""),
        "chosen": chosen,
        "overview": overview(tables.gaps, metric=chosen),
        "answers": answers(tables.gaps, metric=chosen, sites=sites),
        "troubles": troubles(study.jobs),
        "blocks": blocks,
        "scale": scale,
        "more_heats": _more_heats(study, tables, metric=chosen, sites=sites),
        "several_variants": study.jobs["variant"].nunique() > 1,
        "leave_site_out": gap_lines(tables.leave_site_out, metric=chosen, sites=sites),
        "gaps": gaps,
        "gaps_svg": drawn(of_gaps, folder, name="gaps") if of_gaps else "",
        "attributions": pair_verdicts(attributions, sites=sites),
        "kinds": KINDS,
        "curves_text": curves_sentence(tables.shifts, metric=chosen),
        "curves_svg": drawn(of_curves, folder, name="curves") if of_curves else "",
        "lane_key": KEY,
        "lane_height": HEIGHT,
        "worst_cases": worst,
        "colours": colours_of(structures),
        "failures": failures,
        "failure_kinds": failure_kinds,
        "pairs_measured": len(failures) + without,
        "without_failures": f"{without} pairs without one are not listed." if without else "",
        "variants": variant_lines(tables.variants, metric=chosen, sites=sites),
        "absent": missing(
            study, tables, metric=chosen, attributed=bool(len(attributions)), pictures=bool(worst)
        ),
        "cost": cost(study.jobs, memory_gb=_peak_memory_gb(folder)),
        "jobs": job_lines(study.jobs, sites=sites, pages=pages),
        "files": {name: what for name, what in FILES.items() if (folder / name).exists()},
    }
    path = folder / "report.html"
    path.write_text(rendered("study.html.jinja", content), encoding="utf-8")
    return path


def _blocks(
    study: Study, tables: StudyTables, *, metric: str, sites: Sequence[str]
) -> tuple[list[Block], Scale]:
    """A heat map and lanes per variant, on one scale."""
    matrix = tables.matrix[tables.matrix["metric"] == metric]
    means = matrix[matrix["structure"] == MEAN]
    scale = Scale.of(means["mean"], metric=metric)
    names = line_names(study.jobs)
    cases = case_means(acquired(study.rows))
    blocks = [
        Block(
            variant=str(variant),
            heat=heat_of(own, names=names, sites=sites, scale=scale),
            lanes=study_lanes(
                cases[cases["variant"] == variant], own, metric=metric, names=names, sites=sites
            ),
        )
        for variant, own in means.groupby("variant")
    ]
    return blocks, scale


def _more_heats(
    study: Study, tables: StudyTables, *, metric: str, sites: Sequence[str]
) -> list[MoreHeat]:
    """By structure for the chosen metric, then the mean over structures for the others."""
    names = line_names(study.jobs)
    matrix = tables.matrix
    more = []
    of_chosen = (matrix["metric"] == metric) & (matrix["structure"] != MEAN)
    others = (matrix["metric"] != metric) & (matrix["structure"] == MEAN)
    for lines in (matrix[of_chosen], matrix[others]):
        for (one, structure), every in lines.groupby(["metric", "structure"]):
            scale = Scale.of(every["mean"], metric=str(one))
            for variant, own in every.groupby("variant"):
                said = [str(one), "" if structure == MEAN else str(structure), str(variant)]
                heat = heat_of(own, names=names, sites=sites, scale=scale)
                more.append(MoreHeat(", ".join(filter(None, said)), scale, heat))
    return more


def _structures(folder: Path, study: Study) -> list[str]:
    """In the order of the stored masks, as the jobs say it; those of the rows otherwise."""
    known = sorted(study.rows["structure"].unique())
    for job in study.rows["run"].unique():
        path = folder / "jobs" / f"{job}.json"
        config = json.loads(path.read_text()).get("config", {}) if path.exists() else {}
        regions = list(config.get("task", {}).get("regions", {}))
        plan = folder / "jobs" / job / "plan.json"
        planned = json.loads(plan.read_text()).get("structures", []) if plan.exists() else []
        for ordered in (regions, planned):
            if sorted(ordered) == known:
                return list(ordered)
    return known


def _told(folder: Path) -> Mapping[str, Any]:
    """The question and the command of study.yaml, and its text."""
    path = folder / "study.yaml"
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    told = {"text": text, **{k: content[k] for k in ("command",) if content.get(k)}}
    question = (content.get("study") or {}).get("question")
    return {**told, "question": question} if question else told


def _peak_memory_gb(folder: Path) -> float | None:
    """The largest of all jobs, None where none tells."""
    summaries = [json.loads(p.read_text()) for p in (folder / "jobs").glob("*/summary.json")]
    peaks = [value for each in summaries for k, value in each.items() if k.startswith("memory/")]
    return max(peaks, default=None)
