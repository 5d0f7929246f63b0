"""The worst cases of every site side by side, from the slices that the jobs have stored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segshift.metrics import Measure
from segshift.report.measures import digits, records, written
from segshift.report.page import Picture, picture
from segshift.report.slices import slice_paths
from segshift.report.study_words import train_label
from segshift.results import IN_DOMAIN, acquired, sites_of
from segshift.results.names import file_name, slice_folder

SHOWN_SITES = 12
CASES = 2  # of each site; beside each what the site's own network made of it


def worst_pictures(
    rows: pd.DataFrame, folder: Path, *, measure: Measure, structures: Sequence[str]
) -> dict[str, list[Picture]]:
    """By site, the worst first, its `CASES` worst cases outside the training sites.

    Cases are ranked by the mean over structures. Each is shown as the training that does worst on
    it sees it, then by the site's own network of the same variant and seed if that has measured it.
    Cases without a stored slice are passed over.
    """
    of_metric = acquired(rows)
    of_metric = of_metric[of_metric["metric"] == measure.name]
    keys = ["part", "variant", "train", "seed", "run", "set", "site", "case"]
    values = of_metric.groupby(keys)["value"].mean().dropna().reset_index()
    values = values.assign(bad=measure.badness(values["value"])).sort_values(
        ["bad", "site", "case", "run"], ascending=[False, True, True, True]
    )
    sites = tuple(sorted(rows["site"].unique()))
    outside = values[values["set"] != IN_DOMAIN].drop_duplicates(["site", "case"])
    inside = values[values["set"] == IN_DOMAIN]
    alone = inside["train"].map(lambda train: len(sites_of(train)) == 1).astype(bool)
    same = ["variant", "seed", "case"]  # of another one it would not show what the shift costs
    own = {tuple(x[key] for key in same): x for x in records(inside[alone].drop_duplicates(same))}
    several = values["variant"].nunique() > 1

    def drawn(line: Mapping[str, Any]) -> list[Picture]:
        job = folder / "jobs" / line["run"]
        path = slice_paths(slice_folder(job, line["set"])).get(line["case"])
        if path is None:
            return []
        said = [line["case"], f"trained at {train_label(line['train'], sites)}"]
        png = folder / "figures/overlays" / file_name(line["run"]) / file_name(line["set"])
        return [
            picture(
                path,
                png / f"{file_name(line['case'])}.png",
                head=f"{measure.name} {written(line['value'], digits(measure))}",
                where=", ".join([*said, *([line["variant"]] if several else [])]),
                structures=structures,
            )
        ]

    shown: dict[str, list[Picture]] = {}
    for site in list(dict.fromkeys(outside["site"]))[:SHOWN_SITES]:
        for worst in records(outside[outside["site"] == site].head(CASES)):
            pictures = drawn(worst)
            key = tuple(worst[name] for name in same)
            if pictures and key in own:
                pictures += drawn(own[key])
            shown.setdefault(str(site), []).extend(pictures)
    return {site: pictures for site, pictures in shown.items() if pictures}
