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
from segshift.results import IN_DOMAIN, MEAN, read_rows, site_table

FAILURE = 0.1  # a Dice below is a total failure: the structure was not found
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


def write_report(folder: Path, *, structures: Sequence[str]) -> Path:
    """Draw the figures of a run into `folder/figures`, write `folder/report.html`, return it.

    What an interrupted run lacks (`metrics.csv`, slices) is left out, and the page says so.
    """
    rows = read_rows(folder / "rows.csv")
    (folder / "figures").mkdir(exist_ok=True)
    pictures, absent = _draw(folder, rows, structures)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    page = environment.get_template("report.html.jinja").render(
        **_facts(folder, rows), pictures=pictures, absent=absent
    )
    path = folder / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _draw(
    folder: Path, rows: pd.DataFrame, structures: Sequence[str]
) -> tuple[list[Picture], list[str]]:
    figures = folder / "figures"
    strip = _saved(site_strip(rows, structures=structures), figures / "sites.png")
    pictures = [
        Picture(strip, "Every case of every site. Between a dotted line and a bar: the gap.")
    ]
    absent = []
    for set_ in _sets(rows):
        chosen = _best_median_worst(rows, set_=set_, folder=figures / "slices" / set_)
        if chosen:
            path = _saved(overlays(chosen, structures=structures), figures / f"overlays-{set_}.png")
            titles = "; ".join(one.title.replace("\n", ", ") for one in chosen)
            pictures.append(Picture(path, f"{set_}: {titles}."))
        else:
            absent.append(f"overlays of {set_}: no slices in figures/slices/{set_}")
    if (folder / "metrics.csv").exists():
        figure = learning_curves(pd.read_csv(folder / "metrics.csv"))
        curves = _saved(figure, figures / "curves.png")
        pictures.append(Picture(curves, "Training loss (thin: as logged) and validation Dice."))
    else:
        absent.append("learning curves: no metrics.csv")
    return pictures, absent


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path)
    return path


def _sets(rows: pd.DataFrame) -> list[str]:
    return sorted(rows["set"].unique(), key=lambda name: (name != IN_DOMAIN, name))


def _best_median_worst(rows: pd.DataFrame, *, set_: str, folder: Path) -> list[Slice]:
    """Slices of up to three cases, ranked by the mean Dice over structures."""
    paths = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            paths[str(arrays["case"])] = path  # a file name may not hold every character of an id
    dice = rows[(rows["set"] == set_) & (rows["metric"] == "dice") & rows["case"].isin(list(paths))]
    ranked = dice.groupby(["case", "site"])["value"].mean().dropna().reset_index()
    ranked = ranked.sort_values(["value", "case"], ascending=[False, True]).reset_index(drop=True)
    last = len(ranked) - 1
    # A later entry overrides: of two cases there is no median, of one no worst.
    places = {last // 2: "median", last: "worst", 0: "best"}
    slices = []
    for place, line in enumerate(ranked.to_dict("records")):
        if place in places:
            title = f"{places[place]}: {line['case']}\n{line['site']}, Dice {line['value']:.3f}"
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


def _facts(folder: Path, rows: pd.DataFrame) -> dict[str, Any]:
    """What the page says in words and tables."""
    summary = json.loads((folder / "summary.json").read_text())
    environment = json.loads((folder / "environment.json").read_text())
    split = json.loads((folder / "split.json").read_text())
    metrics = sorted(rows["metric"].unique())
    sites = site_table(rows)
    means = sites[(sites["structure"] == MEAN) & sites["dice"].notna()]
    worst = [(line["set"], line["site"]) for line in means.sort_values("dice").to_dict("records")]
    failures = rows[(rows["metric"] == "dice") & (rows["value"] < FAILURE)]
    scopes = [(name, f"test/{name}/") for name in _sets(rows)]
    scopes += [("worst site", "test/worst_site/"), ("gap: lost outside", "test/gap/")]
    return {
        "title": rows["run"].iloc[0] if len(rows) else folder.name,
        "command": environment.get("command", ""),
        "choices": environment.get("choices", {}),
        "split": {name: len(cases) for name, cases in split.items()},
        "metrics": metrics,
        "summary": [
            (name, [summary.get(prefix + metric) for metric in metrics])
            for name, prefix in scopes
            if any(prefix + metric in summary for metric in metrics)
        ],
        "sites": [
            {**line, "key": (line["set"], line["site"])} for line in sites.to_dict("records")
        ],
        "worst": worst[0] if len(worst) > 1 else None,
        "failure": FAILURE,
        "failures": failures.sort_values("value").head(LISTED_FAILURES).to_dict("records"),
        "failures_in_all": len(failures),
        "measured": int(rows.loc[rows["metric"] == "dice", "value"].notna().sum()),
        "cost": {k: v for k, v in summary.items() if k.startswith(("time/", "memory/"))},
        "files": {
            name: (folder / name).read_text()
            for name in ("config.yaml", "plan.json", "environment.json")
            if (folder / name).exists()
        },
    }


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None or pd.isna(value) else f"{value:.{digits}f}"
