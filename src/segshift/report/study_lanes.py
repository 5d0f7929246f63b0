"""Every case of a study as a dot: a group of lanes per test site, a lane per training."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from segshift.metrics import Measure
from segshift.report.cells import as_site_line
from segshift.report.figures import OKABE_ITO
from segshift.report.lanes import Axis, Lane, Lanes, lane_of
from segshift.report.measures import lines_of, records
from segshift.report.study_words import short_name
from segshift.results import IN_DOMAIN, place_name, sites_of

LANES = 8  # per site; more are not compared by eye, the tables have all
HERE, ELSEWHERE, SEVERAL = OKABE_ITO[5], OKABE_ITO[0], OKABE_ITO[2]
KEY = {"trained at this site": HERE, "at another": ELSEWHERE, "at several": SEVERAL}


def study_lanes(
    means: pd.DataFrame,
    matrix: pd.DataFrame,
    *,
    measure: Measure,
    names: Mapping[tuple[str, str], str],
    sites: Sequence[str],
) -> Lanes:
    """Lanes of `measure` of one variant: `means` of cases, and its lines of the matrix.

    A dot is the mean over the structures of a case. The network of the site itself comes first,
    then those that do not know the site, the best first, `LANES` in all. `inside` is the mean of
    the site's own network.
    """
    of_metric = means[means["metric"] == measure.name]
    keys = ["part", "train", "set", "site", "case"]
    cases = of_metric.groupby(keys)["value"].mean().reset_index()
    axis = Axis.of(cases["value"])
    lines = lines_of(matrix, measure)
    lines = lines.assign(
        test=[place_name(s, site) for s, site in zip(lines["set"], lines["site"], strict=True)]
    )
    groups: dict[tuple[str, str], list[Lane]] = {}
    for test, at_site in lines.groupby("test"):
        ordered = sorted(records(at_site), key=lambda x: _rank(x, measure))
        own = next((x["mean"] for x in ordered if _is_own(x)), None)
        groups["", str(test)] = [
            _lane(line, cases, axis, measure=measure, own=own, names=names, sites=sites)
            for line in ordered[:LANES]
        ]
    return Lanes(groups, axis.ticks)


def _lane(
    line: Mapping[str, Any],
    cases: pd.DataFrame,
    axis: Axis,
    *,
    measure: Measure,
    own: float | None,
    names: Mapping[tuple[str, str], str],
    sites: Sequence[str],
) -> Lane:
    where = ["part", "train", "set", "site"]
    here = cases[(cases[where] == [line[key] for key in where]).all(axis=1)]
    here_own = _is_own(line)
    several = len(sites_of(line["train"])) > 1
    return lane_of(
        here,
        as_site_line(line, measure),
        axis,
        name=short_name(names[line["part"], line["train"]], line["train"], sites),
        colour=HERE if here_own else SEVERAL if several else ELSEWHERE,
        measure=measure,
        inside=None if here_own else own,
    )


def _is_own(line: Mapping[str, Any]) -> bool:
    return line["set"] == IN_DOMAIN and sites_of(line["train"]) == (line["site"],)


def _rank(line: Mapping[str, Any], measure: Measure) -> tuple[Any, ...]:
    """The site's own network, those that do not know the site, those of several sites that do."""
    several = len(sites_of(line["train"])) > 1
    knows = line["set"] == IN_DOMAIN
    bad = measure.badness(line["mean"])
    return not _is_own(line), knows, not several, bad, line["train"], line["part"]
