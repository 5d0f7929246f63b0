"""report.html: everything a run left in its folder on one page that needs no other file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from segshift.metrics import FalseAlarm, Measure
from segshift.report.false_alarms import false_alarm_lines, false_alarm_sentence
from segshift.report.figures import colours_of, site_strip
from segshift.report.lanes import HEIGHT, lanes_of
from segshift.report.measures import (
    digits,
    is_share,
    main_metrics,
    measured,
    records,
    sizes_told,
    the_worst_site,
    written,
)
from segshift.report.network import network_tables
from segshift.report.page import Picture, picture, rendered
from segshift.report.postprocessing import postprocessing_section
from segshift.report.run_files import absent, cost, curves, read_json, reliability
from segshift.report.run_tables import GAP, WORST, site_lines, summary_lines
from segshift.report.scale import scale_section
from segshift.report.shifts import shift_section
from segshift.report.slices import (
    SHOWN_FAILURES,
    Shown,
    best_median_worst,
    sets_of,
    worst_cases,
)
from segshift.results import (
    FAILURE,
    Measures,
    acquired,
    group_tables,
    of_network,
    of_raters,
    read_cases,
    read_measures,
    read_rows,
    site_table,
    with_raters,
)
from segshift.results.curves import read_curves
from segshift.results.intervals import FEWEST_PATIENTS
from segshift.results.names import file_name

LISTED = 50  # failures, and false alarms
Content = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Subject:
    """What every section of the page is about.

    `rows` are those of the network itself on images as they were acquired, `sites` their table
    beside that of the raters; `every` has also the others.
    """

    folder: Path
    every: pd.DataFrame
    rows: pd.DataFrame
    sites: pd.DataFrame
    summary: Mapping[str, Any]
    measures: Measures
    measure: Measure
    structures: Sequence[str]


def write_report(folder: Path, *, structures: Sequence[str], measure: Measure) -> Path:
    """Draw the figures of a run into `folder/figures`, write `folder/report.html`, return it.

    Figures, ranks and the worst site are those of `measure`; the tables show every metric. Failures
    are counted where a low value can only mean one: of shares of what is right. What a run lacks
    (`metrics.csv`, `cases.csv`, `reliability.csv`, slices) is left out, and the page says so.
    """
    about = _subject(folder, structures=structures, measure=measure)
    (folder / "figures").mkdir(exist_ok=True)
    strip = site_strip(about.rows, about.sites, structures=structures, measure=measure)
    strip.savefig(folder / "figures/sites.png")
    content = {**_head(about), **_tables(about), **_cases(about), **_shown(about), **_end(about)}
    path = folder / "report.html"
    path.write_text(rendered("report.html.jinja", content), encoding="utf-8")
    return path


def _subject(folder: Path, *, structures: Sequence[str], measure: Measure) -> Subject:
    every = read_rows(folder / "rows.csv")
    rows = acquired(of_network(every))  # a suite has 50 sets more: they are curves
    return Subject(
        folder=folder,
        every=every,
        rows=rows,
        sites=with_raters(site_table(rows), acquired(of_raters(every))),
        summary=read_json(folder / "summary.json"),
        measures=read_measures(folder),
        measure=measure,
        structures=structures,
    )


def _head(about: Subject) -> Content:
    environment, split = (read_json(about.folder / f"{n}.json") for n in ("environment", "split"))
    sides = {name: len(cases) for name, cases in split.items()}
    return {
        "title": about.rows["run"].iloc[0] if len(about.rows) else about.folder.name,
        "command": environment.get("command", ""),
        "choices": environment.get("choices", {}),
        "split": sides,
        "validation_cases": sides.get("val"),
        "selection": about.summary.get("selection", ""),
        "cost": cost(about.summary, environment),
    }


def _tables(about: Subject) -> Content:
    shown = measured(about.rows, about.measures)
    main = main_metrics(shown, about.measure)
    every = [*main, *(measure for measure in shown if measure not in main)]
    cases = about.folder / "cases.csv"
    raters = acquired(of_raters(about.every))
    groups = group_tables(about.rows, read_cases(cases), raters=raters) if cases.exists() else {}
    summary = summary_lines(about.summary, about.rows, every)
    worst = the_worst_site(about.rows, about.measure)
    return {
        "tables": [names for names in (main, every[len(main) :]) if names],
        "chosen": about.measure.name,
        "chosen_digits": digits(about.measure),
        "summary": summary,
        "sizes_told": sizes_told(about.rows, about.measures),
        "has_gap": any(line.name == GAP for line in summary),
        "has_worst": any(line.name == WORST for line in summary),
        "has_false_alarms": any(each.name == FalseAlarm.name for each in every),
        "has_failed": "failed_of" in about.sites,
        "has_raters": bool(len(raters)),
        "fewest_patients": FEWEST_PATIENTS,
        "sites": site_lines(about.sites, "site", structures=about.structures, measures=every),
        "groups": {
            column: site_lines(table, column, structures=about.structures, measures=every)
            for column, table in groups.items()
        },
        "worst": (worst.set, worst.site) if worst else None,
    }


def _cases(about: Subject) -> Content:
    """What failed, what was predicted where nothing is, and every case as a dot."""
    measure, rows = about.measure, about.rows
    of_metric = rows[rows["metric"] == measure.name]
    failures = of_metric[of_metric["value"] < FAILURE].sort_values("value")
    alarms = false_alarm_lines(rows)
    worst = worst_cases(rows, about.folder, count=SHOWN_FAILURES, measure=measure)
    return {
        "has_failures": is_share(measure),
        "failure": FAILURE,
        "failures": records(failures.head(LISTED)),
        "failures_in_all": len(failures),
        "measured": int(of_metric["value"].notna().sum()),
        "false_alarms": alarms[:LISTED],
        "false_alarms_in_all": len(alarms),
        "false_alarm_units": sorted({alarm["unit"] for alarm in alarms}),
        "false_alarm_sentence": false_alarm_sentence(rows, structures=about.structures),
        "worst_cases": _pictures(about, worst, "{site}, {set}", most_wrong=True),
        "colours": colours_of(about.structures),
        "lanes": lanes_of(rows, about.sites, structures=about.structures, measure=measure),
        "lane_height": HEIGHT,
    }


def _shown(about: Subject) -> Content:
    """Shifts, post-processing, example cases, and what cannot be shown."""
    folder, measure = about.folder, about.measure
    sets = {
        set_: best_median_worst(about.rows, folder, set_=set_, measure=measure)
        for set_ in sets_of(about.rows)
    }
    severities = folder / "shifts.csv"
    shifts = (
        shift_section(folder, read_curves(severities), structures=about.structures, measure=measure)
        if severities.exists()
        else None
    )
    alarms = [each for name, each in about.measures.items() if name == FalseAlarm.name]
    return {
        "shifts": shifts,
        "postprocessing": postprocessing_section(
            folder, about.every, about.summary, dict.fromkeys([measure, *alarms])
        ),
        "examples": {s: _pictures(about, shown, "{site}") for s, shown in sets.items() if shown},
        "absent": absent(folder, [set_ for set_, shown in sets.items() if not shown]),
    }


def _end(about: Subject) -> Content:
    folder, network = about.folder, about.folder / "network.json"
    files = ("config.yaml", "plan.json", "environment.json")
    return {
        "reliability": reliability(folder, structures=about.structures),
        "curves": curves(folder),
        "scale": scale_section(folder),
        "network": network_tables(read_json(network)) if network.exists() else None,
        "files": {
            name: (folder / name).read_text(encoding="utf-8")
            for name in files
            if (folder / name).exists()
        },
    }


def _pictures(
    about: Subject, shown: Sequence[Shown], where: str, *, most_wrong: bool = False
) -> list[Picture]:
    """Draws `figures/overlays/<set>/<case>.png`, or where most is wrong `figures/failures/...`."""
    kind = about.folder / "figures" / ("failures" if most_wrong else "overlays")
    metric, decimals = about.measure.name, digits(about.measure)
    return [
        picture(
            one.path,
            kind / file_name(one.set) / f"{file_name(one.case)}.png",
            head=f"{one.why} {metric} {written(one.value, decimals)}",
            where=f"{one.case}, {where.format(site=one.site, set=one.set)}",
            structures=about.structures,
            most_wrong=most_wrong,
        )
        for one in shown
    ]
