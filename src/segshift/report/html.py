"""report.html: everything a run left in its folder on one page that needs no other file."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from segshift.report.figures import (
    colours_of,
    loss_curve,
    reliability_diagram,
    site_strip,
    validation_curve,
)
from segshift.report.lanes import HEIGHT, lanes_of
from segshift.report.measures import (
    are_fractions,
    digits,
    duration,
    main_metrics,
    worst_site,
    written,
)
from segshift.report.network import network_tables
from segshift.report.page import Picture, drawn, picture, rendered
from segshift.report.shifts import shift_section
from segshift.report.slices import (
    SHOWN_FAILURES,
    Shown,
    best_median_worst,
    sets_of,
    slice_folder,
    worst_cases,
)
from segshift.results import (
    FAILURE,
    acquired,
    group_tables,
    is_shifted,
    read_cases,
    read_rows,
    site_table,
)
from segshift.results.curves import read_curves
from segshift.results.names import file_name

GAP = "gap: lost outside"  # a line of the summary
LISTED_FAILURES = 50
COSTS = {"train": "training", "test": "testing", "step": "a training step"}


def write_report(
    folder: Path, *, structures: Sequence[str], metric: str, higher_is_better: bool
) -> Path:
    """Draw the figures of a run into `folder/figures`, write `folder/report.html`, return it.

    Figures, ranks and the worst site are those of `metric`; the tables show every metric. Failures
    are counted where a low value can only mean one: higher is better, and all values lie in 0..1.
    What a run lacks (`metrics.csv`, `cases.csv`, `reliability.csv`, slices) is left out, and the
    page says so.
    """
    rows = acquired(read_rows(folder / "rows.csv"))  # a suite has 50 sets more: they are curves
    chosen: dict[str, Any] = {"metric": metric, "higher_is_better": higher_is_better}
    (folder / "figures").mkdir(exist_ok=True)
    site_strip(rows, structures=structures, metric=metric).savefig(folder / "figures/sites.png")
    worst = worst_cases(rows, folder, count=SHOWN_FAILURES, **chosen)
    sets = {set_: best_median_worst(rows, folder, set_=set_, **chosen) for set_ in sets_of(rows)}
    curves, reliability = _curves(folder, **chosen), _reliability(folder, structures=structures)
    severities = folder / "shifts.csv"
    shifts = (
        shift_section(folder, read_curves(severities), structures=structures, **chosen)
        if severities.exists()
        else None
    )

    def pictures(shown: Sequence[Shown], where: str, *, most_wrong: bool = False) -> list[Picture]:
        return [
            _picture(
                folder,
                one,
                where=where,
                structures=structures,
                metric=metric,
                most_wrong=most_wrong,
            )
            for one in shown
        ]

    content = {
        **_facts(folder, rows, structures=structures, **chosen),
        "worst_cases": pictures(worst, "{site}, {set}", most_wrong=True),
        "examples": {set_: pictures(shown, "{site}") for set_, shown in sets.items() if shown},
        "shifts": shifts,
        "curves": curves,
        "reliability": reliability,
        "absent": _absent(folder, [set_ for set_, shown in sets.items() if not shown]),
    }
    path = folder / "report.html"
    path.write_text(rendered("report.html.jinja", content), encoding="utf-8")
    return path


def _picture(
    folder: Path,
    shown: Shown,
    *,
    where: str,
    structures: Sequence[str],
    metric: str,
    most_wrong: bool,
) -> Picture:
    """Draws `figures/overlays/<set>/<case>.png`, or where most is wrong `figures/failures/...`."""
    return picture(
        shown.path,
        folder
        / "figures"
        / ("failures" if most_wrong else "overlays")
        / file_name(shown.set)
        / f"{file_name(shown.case)}.png",
        head=f"{shown.why} {metric} {written(shown.value, digits(metric))}",
        where=f"{shown.case}, {where.format(site=shown.site, set=shown.set)}",
        structures=structures,
        most_wrong=most_wrong,
    )


def _curves(folder: Path, *, metric: str, higher_is_better: bool) -> list[str]:
    if not (folder / "metrics.csv").exists():
        return []
    log = pd.read_csv(folder / "metrics.csv")
    figures = {
        "loss": loss_curve(log),
        "validation": validation_curve(log, metric=metric, higher_is_better=higher_is_better),
    }
    return [drawn(figure, folder, name=name) for name, figure in figures.items()]


def _reliability(folder: Path, *, structures: Sequence[str]) -> list[str]:
    path = folder / "reliability.csv"
    if not path.exists():
        return []
    names = {"set": "str", "site": "str", "structure": "str"}  # a set called 007 is not 7
    empty = {column: ["", "nan"] for column in ("confidence", "accuracy")}  # of bins without voxels
    bins = pd.read_csv(path, dtype=names, keep_default_na=False, na_values=empty)
    figures = {
        set_: reliability_diagram(bins[bins["set"] == set_], structures=structures, title=set_)
        for set_ in sets_of(bins)
        if not is_shifted(set_)
    }
    return [
        drawn(figure, folder, name=f"reliability-{file_name(set_)}")
        for set_, figure in figures.items()
    ]


def _absent(folder: Path, without_slices: Sequence[str]) -> list[str]:
    """What cannot be shown, and which file it would come from."""
    lacking = {
        "metrics.csv": "learning curves",
        "cases.csv": "tables by guideline and rater",
        "reliability.csv": "reliability",
    }
    absent = [
        f"overlays of {set_}: no slices in {slice_folder(Path(), set_)}" for set_ in without_slices
    ]
    absent += [
        f"{what}: no {name}" for name, what in lacking.items() if not (folder / name).exists()
    ]
    return absent


def _facts(
    folder: Path,
    rows: pd.DataFrame,
    *,
    structures: Sequence[str],
    metric: str,
    higher_is_better: bool,
) -> dict[str, Any]:
    """What the page says in words and tables."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
    network = folder / "network.json"
    metrics = sorted(rows["metric"].unique())
    main = [name for name in main_metrics(metrics, metric=metric) if name in metrics]
    sites = site_table(rows)
    cases = folder / "cases.csv"
    groups = group_tables(rows, read_cases(cases)) if cases.exists() else {}
    of_metric = rows[rows["metric"] == metric]
    failures = of_metric[of_metric["value"] < FAILURE]
    scopes = [(name, f"test/{name}/") for name in sets_of(rows)]
    scopes += [("worst site", "test/worst_site/"), (GAP, "test/gap/")]
    means = [(name, _under(summary, prefix)) for name, prefix in scopes]
    return {
        "title": rows["run"].iloc[0] if len(rows) else folder.name,
        "command": environment.get("command", ""),
        "choices": environment.get("choices", {}),
        "split": {name: len(cases) for name, cases in split.items()},
        "selection": summary.get("selection", ""),
        "tables": [names for names in (main, [m for m in metrics if m not in main]) if names],
        "chosen": metric,
        "gap": GAP,
        "summary": [(name, line) for name, line in means if line],
        "colours": colours_of(structures),
        "lanes": lanes_of(rows, sites, structures=structures, metric=metric),
        "lane_height": HEIGHT,
        "sites": _keyed(sites, "site", structures),
        "groups": {column: _keyed(table, column, structures) for column, table in groups.items()},
        "worst": worst_site(sites, metric=metric, higher_is_better=higher_is_better),
        "has_failures": higher_is_better and are_fractions(of_metric["value"]),
        "failure": FAILURE,
        "failures": failures.sort_values("value").head(LISTED_FAILURES).to_dict("records"),
        "failures_in_all": len(failures),
        "measured": int(of_metric["value"].notna().sum()),
        "network": network_tables(json.loads(network.read_text(encoding="utf-8")))
        if network.exists()
        else None,
        "cost": _cost(summary, environment),
        "files": {
            name: (folder / name).read_text(encoding="utf-8")
            for name in ("config.yaml", "plan.json", "environment.json")
            if (folder / name).exists()
        },
    }


def _under(summary: dict[str, Any], prefix: str) -> dict[str, Any]:
    """What stands directly below `prefix`, without it: metrics and the ends of their intervals."""
    below = {k.removeprefix(prefix): v for k, v in summary.items() if k.startswith(prefix)}
    return {name: value for name, value in below.items() if "/" not in name}


def _cost(summary: dict[str, Any], environment: dict[str, Any]) -> dict[str, str]:
    """Time, memory and machine in words."""
    cost = {}
    for key, value in summary.items():
        kind, _, name = key.partition("/")
        if kind == "time":
            name = name.removesuffix("_s")
            cost[COSTS.get(name, name.replace("_", " "))] = duration(value)
        if kind == "memory":
            cost[f"memory, {name.removesuffix('_gb').replace('_', ' ')}"] = f"{value:.3g} GB"
    machine = environment.get("gpu") or environment.get("processor")
    return cost | ({"machine": f"{machine}, {environment['cpus']} CPU cores"} if machine else {})


def _keyed(table: pd.DataFrame, by: str, structures: Sequence[str]) -> list[dict[str, Any]]:
    """The lines of a table, structures in the task's order, the mean last."""
    lines = [{str(name): value for name, value in x.items()} for x in table.to_dict("records")]
    order = {structure: place for place, structure in enumerate(structures)}
    lines.sort(key=lambda line: order.get(line["structure"], len(order)))
    return [{**line, "key": (line["set"], line[by])} for line in lines]
