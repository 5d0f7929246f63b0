"""Trained here, tested there, as the page shows it: heat maps and lanes of every variant."""

from collections.abc import Sequence
from dataclasses import dataclass

from segshift.report.heat import Heat, Scale, heat_of
from segshift.report.lanes import Lanes
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


def more_heats(
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
