"""Trained here, tested there, as the page shows it: heat maps and lanes of every variant."""

from collections.abc import Sequence
from dataclasses import dataclass

from segshift.metrics import Measure
from segshift.report.heat import Heat, Scale, heat_of
from segshift.report.lanes import Lanes
from segshift.report.measures import heading, lines_of
from segshift.report.study_lanes import study_lanes
from segshift.results import MEAN, Study, StudyTables, acquired, case_means, line_names


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


def blocks_of(
    study: Study, tables: StudyTables, *, measure: Measure, sites: Sequence[str]
) -> tuple[list[Block], Scale]:
    """A heat map and lanes per variant, on one scale."""
    means, raters = (lines_of(table, measure) for table in (tables.matrix, tables.raters))
    scale = Scale.of(means["mean"], measure=measure)
    names = line_names(study.jobs)
    cases = case_means(acquired(study.rows))
    blocks = [
        Block(
            variant=str(variant),
            heat=heat_of(own, names=names, sites=sites, scale=scale, raters=raters),
            lanes=study_lanes(
                cases[cases["variant"] == variant], own, measure=measure, names=names, sites=sites
            ),
        )
        for variant, own in means.groupby("variant")
    ]
    return blocks, scale


def more_heats(
    study: Study, tables: StudyTables, *, measure: Measure, sites: Sequence[str]
) -> list[MoreHeat]:
    """By structure for the chosen metric, then the mean over structures for the others."""
    names = line_names(study.jobs)
    matrix = tables.matrix.dropna(subset=["mean"])  # false alarms need a case to be false in
    structures = sorted(set(matrix.loc[matrix["metric"] == measure.name, "structure"]) - {MEAN})
    shown = [(measure, structure) for structure in structures]
    shown += [(other, MEAN) for other in study.measures.values() if other != measure]
    more = []
    for one, structure in shown:
        every = lines_of(matrix, one, structure)
        raters = lines_of(tables.raters, one, structure)
        scale = Scale.of(every["mean"], measure=one)
        for variant, own in every.groupby("variant"):
            said = [heading(one), "" if structure == MEAN else structure, str(variant)]
            heat = heat_of(own, names=names, sites=sites, scale=scale, raters=raters)
            more.append(MoreHeat(", ".join(filter(None, said)), scale, heat))
    return more
