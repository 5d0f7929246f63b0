"""Where a run is logged: learning curves on disk, and Weights & Biases, online or offline."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from segshift.metrics import Measure
from segshift.report.slices import (
    SHOWN_FAILURES,
    Shown,
    best_median_worst,
    read_slice,
    sets_of,
    worst_cases,
)
from segshift.results import acquired, of_network, of_raters, read_rows, site_table, with_raters

NAMES = dict.fromkeys(
    ("job", "part", "train", "variant", "baseline", "seed", "fold", "set", "site", "corruption",
     "structure", "metric"), "str",
)  # fmt: skip
ONLINE_WITHIN_S = 30.0  # then a run does not wait for the network any longer


def loggers(
    folder: Path,
    *,
    run: str,
    project: str,
    group: str | None,
    wandb: bool,
    config: Mapping[str, Any],
) -> list[Logger]:
    """Learning curves as `metrics.csv`, and Weights & Biases if wanted, in a `group` of runs."""
    curves = CSVLogger(folder, name="", version="", flush_logs_every_n_steps=50)
    return [curves, _wandb(folder, run, project, group, config)] if wandb else [curves]


def upload(
    loggers: Sequence[Logger],
    folder: Path,
    *,
    structures: Sequence[str],
    measure: Measure,
) -> None:
    """Log what the report shows to Weights & Biases, end its run and say where it is."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            run = logger.experiment
            log_results(run, folder, structures=structures, measure=measure)
            _finish(run)


def log_study(folder: Path, *, project: str, group: str) -> None:
    """A summary run of a study in the `group` of its jobs: its tables, figures, page and numbers.

    `folder` is that of the study, with what `write_study_report` left there.
    """
    run = _wandb(folder, folder.resolve().name, project, group, {}).experiment
    log_study_results(run, folder)
    _finish(run)


def log_results(
    run: Any,  # noqa: ANN401 - wandb is imported only if it is used
    folder: Path,
    *,
    structures: Sequence[str],
    measure: Measure,
) -> None:
    """Tables of rows and sites, the figures, and cases as images with masks that can be toggled.

    Under `overlays/<set>` are its best, median and worst case, under `failures` the worst of all.
    """
    import wandb

    every = read_rows(folder / "rows.csv")
    rows = acquired(of_network(every))  # the others are in the figure of the shifts
    tables = {
        "rows": every,
        "site_table": with_raters(site_table(rows), of_raters(acquired(every))),
    }
    run.log({name: wandb.Table(dataframe=table) for name, table in tables.items()})
    run.log({p.stem: wandb.Image(str(p)) for p in sorted((folder / "figures").glob("*.png"))})
    shown = {
        f"overlays/{set_}": best_median_worst(rows, folder, set_=set_, measure=measure)
        for set_ in sets_of(rows)
    }
    shown["failures"] = worst_cases(rows, folder, count=SHOWN_FAILURES, measure=measure)
    labels = {k + 1: name for k, name in enumerate(structures)}
    run.log(
        {
            name: [
                _image(one, labels, measure.name, most_wrong=name == "failures") for one in cases
            ]
            for name, cases in shown.items()
        }
    )
    run.summary.update(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def log_study_results(run: Any, folder: Path) -> None:  # noqa: ANN401
    """Every table of a study that has a line, every figure, the page; summary.json as summary."""
    import wandb

    for path in sorted(folder.glob("*.csv")):
        if path.stem != "rows":  # those are in the runs of the jobs
            # A site called 007 is not 7.
            table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype=NAMES)
            if len(table):
                run.log({path.stem: wandb.Table(dataframe=table)})
    run.log({p.stem: wandb.Image(str(p)) for p in sorted((folder / "figures").glob("*.png"))})
    run.log({"report": wandb.Html((folder / "report.html").read_text(encoding="utf-8"))})
    run.summary.update(json.loads((folder / "summary.json").read_text(encoding="utf-8")))


def _finish(run: Any) -> None:  # noqa: ANN401
    place = Path(run.dir).parent
    run.finish()
    hint = "" if os.environ.get("WANDB_API_KEY") else "set WANDB_API_KEY to log online; "
    sync = f"offline; {hint}upload with: wandb sync {place}"
    print(f"W&B:         {sync if run.offline else run.url}")


def _image(shown: Shown, labels: Mapping[int, str], metric: str, *, most_wrong: bool) -> Any:  # noqa: ANN401
    import wandb

    one = read_slice(shown.path, most_wrong=most_wrong)
    masks = {"prediction": one.prediction, "reference": one.reference}
    return wandb.Image(
        one.grey(),
        caption=f"{shown.case}, {shown.site}: {shown.why} {metric} {shown.value:.3g}",
        masks={
            name: {"mask_data": one.classes(mask), "class_labels": dict(labels)}
            for name, mask in masks.items()
        },
    )


def _wandb(
    folder: Path, run: str, project: str, group: str | None, config: Mapping[str, Any]
) -> WandbLogger:
    import wandb  # half a second, so only if it is used

    def started(mode: Literal["online", "offline"]) -> WandbLogger:
        # Not through WandbLogger, whose arguments make wandb warn at every start.
        experiment = wandb.init(
            project=project,
            group=group,
            name=run,
            dir=folder,
            config=dict(config),
            mode=mode,
            settings=wandb.Settings(silent=True, console="off", init_timeout=ONLINE_WITHIN_S),
        )
        return WandbLogger(experiment=experiment)

    if not os.environ.get("WANDB_API_KEY"):
        return started("offline")
    try:
        return started("online")
    except wandb.Error as error:
        reason = str(error).splitlines()[0]
        print(f"W&B:       no connection or login ({reason}), so this run is logged offline")
        return started("offline")
