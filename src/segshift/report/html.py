"""report.html: everything a run left in its folder on one page that needs no other file."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from segshift.report.figures import Slice, learning_curves, overlays, site_strip
from segshift.report.measures import are_fractions, digits, worst_site, written
from segshift.report.network import network_tables
from segshift.results import IN_DOMAIN, group_tables, read_cases, read_rows, site_table
from segshift.results.names import file_name

FAILURE = 0.1  # an overlap below is a total failure: the structure was not found
LISTED_FAILURES = 50


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure on the page."""

    path: Path
    caption: str

    @property
    def base64(self) -> str:
        """The PNG, for a data URL."""
        return base64.b64encode(self.path.read_bytes()).decode()


def write_report(
    folder: Path, *, structures: Sequence[str], metric: str, higher_is_better: bool
) -> Path:
    """Draw the figures of a run into `folder/figures`, write `folder/report.html`, return it.

    Figures, ranks and the worst site are those of `metric`; the tables show every metric. Failures
    are listed where a low value can only mean one: higher is better, and all values lie in 0..1.
    What a run lacks (`metrics.csv`, `cases.csv`, slices) is left out, and the page says so.
    """
    rows = read_rows(folder / "rows.csv")
    (folder / "figures").mkdir(exist_ok=True)
    pictures, absent = _draw(
        folder, rows, structures=structures, metric=metric, higher_is_better=higher_is_better
    )
    facts = _facts(folder, rows, metric=metric, higher_is_better=higher_is_better)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"written": written, "digits": digits}
    page = environment.get_template("report.html.jinja").render(
        **facts, pictures=pictures, absent=absent
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _draw(
    folder: Path,
    rows: pd.DataFrame,
    *,
    structures: Sequence[str],
    metric: str,
    higher_is_better: bool,
) -> tuple[list[Picture], list[str]]:
    figures = folder / "figures"
    strip = site_strip(rows, structures=structures, metric=metric)
    pictures = [
        Picture(
            _saved(strip, figures / "sites.png"),
            "Every case of every site. Between a dotted line and a bar: the gap.",
        )
    ]
    absent = []
    for set_ in _sets(rows):
        name = file_name(set_)
        chosen = _best_median_worst(
            rows[(rows["set"] == set_) & (rows["metric"] == metric)],
            metric=metric,
            higher_is_better=higher_is_better,
            folder=figures / "slices" / name,
        )
        if chosen:
            path = _saved(overlays(chosen, structures=structures), figures / f"overlays-{name}.png")
            titles = "; ".join(one.title.replace("\n", ", ") for one in chosen)
            pictures.append(Picture(path, f"{set_}: {titles}."))
        else:
            absent.append(f"overlays of {set_}: no slices in figures/slices/{name}")
    if (folder / "metrics.csv").exists():
        log = pd.read_csv(folder / "metrics.csv")
        figure = learning_curves(log, metric=metric, higher_is_better=higher_is_better)
        curves = _saved(figure, figures / "curves.png")
        caption = f"Training loss (thin: as logged) and validation {metric}."
        pictures.append(Picture(curves, caption))
    else:
        absent.append("learning curves: no metrics.csv")
    if not (folder / "cases.csv").exists():
        absent.append("tables by guideline and rater: no cases.csv")
    return pictures, absent


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path


def _sets(rows: pd.DataFrame) -> list[str]:
    return sorted(rows["set"].unique(), key=lambda name: (name != IN_DOMAIN, name))


def _best_median_worst(
    rows: pd.DataFrame, *, metric: str, higher_is_better: bool, folder: Path
) -> list[Slice]:
    """Slices of up to three cases, ranked by the mean over structures of the rows' one metric."""
    paths = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            paths[str(arrays["case"])] = path  # a file name may not hold every character of an id
    shown = rows[rows["case"].isin(list(paths))]
    ranked = shown.groupby(["case", "site"])["value"].mean().dropna().reset_index()
    ranked = ranked.sort_values(["value", "case"], ascending=[not higher_is_better, True])
    ranked = ranked.reset_index(drop=True)
    last = len(ranked) - 1
    # A later entry overrides: of two cases there is no median, of one no worst.
    places = {last // 2: "median", last: "worst", 0: "best"}
    slices = []
    for place, line in enumerate(ranked.to_dict("records")):
        if place in places:
            value = written(line["value"], digits(metric))
            title = f"{places[place]}: {line['case']}\n{line['site']}, {metric} {value}"
            slices.append(_read_slice(paths[line["case"]], title=title))
    return slices


def _read_slice(path: Path, *, title: str) -> Slice:
    with np.load(path) as arrays:
        y, x = arrays["spacing_mm"]
        return Slice(
            title=title,
            image=arrays["image"],
            reference=arrays["reference"],
            prediction=arrays["prediction"],
            spacing_mm=(float(y), float(x)),
        )


def _facts(
    folder: Path, rows: pd.DataFrame, *, metric: str, higher_is_better: bool
) -> dict[str, Any]:
    """What the page says in words and tables."""
    summary = json.loads((folder / "summary.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    split = json.loads((folder / "split.json").read_text())
    network = folder / "network.json"
    metrics = sorted(rows["metric"].unique())
    sites = site_table(rows)
    cases = folder / "cases.csv"
    groups = group_tables(rows, read_cases(cases)) if cases.exists() else {}
    of_metric = rows[rows["metric"] == metric]
    failures = of_metric[of_metric["value"] < FAILURE]
    scopes = [(name, f"test/{name}/") for name in _sets(rows)]
    scopes += [("worst site", "test/worst_site/"), ("gap: lost outside", "test/gap/")]
    return {
        "title": rows["run"].iloc[0] if len(rows) else folder.name,
        "command": environment.get("command", ""),
        "choices": environment.get("choices", {}),
        "split": {name: len(cases) for name, cases in split.items()},
        "metrics": metrics,
        "chosen": metric,
        "summary": [
            (name, [summary.get(prefix + each) for each in metrics])
            for name, prefix in scopes
            if any(prefix + each in summary for each in metrics)
        ],
        "sites": _keyed(sites, "site"),
        "groups": {column: _keyed(table, column) for column, table in groups.items()},
        "worst": worst_site(sites, metric=metric, higher_is_better=higher_is_better),
        "has_failures": higher_is_better and are_fractions(of_metric["value"]),
        "failure": FAILURE,
        "failures": failures.sort_values("value").head(LISTED_FAILURES).to_dict("records"),
        "failures_in_all": len(failures),
        "measured": int(of_metric["value"].notna().sum()),
        "network": network_tables(json.loads(network.read_text())) if network.exists() else None,
        "cost": {k: v for k, v in summary.items() if k.startswith(("time/", "memory/"))},
        "files": {
            name: (folder / name).read_text()
            for name in ("config.yaml", "plan.json", "environment.json")
            if (folder / name).exists()
        },
    }


def _keyed(table: pd.DataFrame, by: str) -> list[dict[str, Any]]:
    lines = [{str(name): value for name, value in x.items()} for x in table.to_dict("records")]
    return [{**line, "key": (line["set"], line[by])} for line in lines]
