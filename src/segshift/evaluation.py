"""An existing model on other cases, or anyone's masks of them: to rows and a report."""

import time
from collections.abc import Mapping
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from segshift import build, environment
from segshift.errors import InputError
from segshift.metrics import check_metrics
from segshift.postprocessing import read_rules
from segshift.progress import tracked
from segshift.scoring import Pairs, pair_files
from segshift.splits import SetKey
from segshift.units import mixed_told

FILES = ("predictions", "references", "structures", "cases", "metrics")  # options of masks alone
TOLD = 10  # names in a line


def evaluate(config: DictConfig, folder: Path, *, command: str, choices: Mapping[str, str]) -> None:
    """Test `checkpoint` on the cases of a cohort, or score the files in `predictions`."""
    files = config.predictions is not None or config.references is not None
    if files and not OmegaConf.is_missing(config, "checkpoint"):
        raise InputError(
            f"checkpoint={config.checkpoint} and predictions={config.predictions}: a model is "
            "tested on cases, or masks are held against references; give one of the two"
        )
    if files:
        score_files(config, folder, command=command, choices=choices)
    elif OmegaConf.is_missing(config, "checkpoint"):
        raise InputError(
            "checkpoint is required: add checkpoint=... to the command; or, to score masks that "
            "are there already, predictions=FOLDER references=FOLDER"
        )
    else:
        test(config, folder, command=command, choices=choices)


def test(config: DictConfig, folder: Path, *, command: str, choices: Mapping[str, str]) -> None:
    """Test an existing model on the cases of another cohort that it has not seen."""
    config = build.resolved(config)
    environment.check_precision(config.trainer.precision)
    environment.check_accelerator(config.trainer.accelerator)
    if config.postprocess not in ("auto", "none"):
        raise InputError(f"postprocess={config.postprocess}: auto or none")
    if not isinstance(config.checkpoint, str):
        raise InputError(
            f"checkpoint={config.checkpoint}: one run's folder or .ckpt file; for an ensemble use "
            "predict.py and then evaluate.py predictions=FOLDER references=FOLDER"
        )
    checkpoint = build.checkpoint_file(config.checkpoint)
    cohort = build.cohort_of(config)

    from segshift import callbacks
    from segshift.data import CohortDataModule
    from segshift.data.duplicates import refuse_duplicates, refuse_learned
    from segshift.data.store import store_sets
    from segshift.folder import conclude, describe, run_name
    from segshift.inference import changed
    from segshift.trainer import make_trainer

    environment.check_devices(config.trainer.accelerator, 1)
    precision = environment.precision(config.trainer.precision, config.trainer.accelerator)
    run = build.load(checkpoint, precision=precision)
    _check_own_scale(config, run)
    run.module.prediction = changed(run.module.prediction, config.prediction)
    if config.postprocess == "auto":
        run.module.rules = read_rules(checkpoint)
    sets = build.unseen_sets(config, cohort, run)
    tests = store_sets(sets, run.plan, folder=Path(config.store))
    named = {key.set: cases for key, cases in tests.items()}  # the same cases under every shift
    refuse_learned(named, run.images)
    for warning in refuse_duplicates(named):
        print(f"WARNING: {warning}")
    environment.keep_freed_memory()
    about = environment.record(cohort, command=command, choices=choices)
    describe(
        folder, OmegaConf.to_yaml(config), {s.name: s.cases for s in sets}, sets, run.plan, about
    )
    timer = callbacks.Timer()
    writer = callbacks.WriteCases(
        folder, run=run_name(folder), sets=list(tests), task=run.module.task
    )
    trainer = make_trainer(
        OmegaConf.merge(run.config.trainer, config.trainer, {"devices": 1, "strategy": "auto"}),
        folder,
        precision=precision,
        callbacks=[timer, writer],
        loggers=[],
    )
    data = CohortDataModule(
        train=[], val=[], tests=tests, view=run.plan.view, batch=1, steps_per_epoch=1,
        foreground_share=0, workers=0, seed=0,
    )  # fmt: skip
    trainer.test(run.module, datamodule=data, verbose=False)
    memory = environment.peak_memory_gb(trainer.strategy.root_device.type)
    measured = {"selection": run.config.selection, **timer.seconds, **memory}
    conclude(folder, run.module.task, measured)


def _check_own_scale(config: DictConfig, run: build.LoadedRun) -> None:
    """Raises InputError if `data.scale` asks for another scale than that of a run's training."""
    asked, own = OmegaConf.select(config, "data.scale"), run.plan.scale
    if asked is not None and (own is None or asked != own.by):
        raise InputError(
            f"data.scale={asked}, but the checkpoint was trained with {own.by if own else 'null'}, "
            "and is tested as it was trained; leave data.scale out"
        )


def score_files(
    config: DictConfig, folder: Path, *, command: str, choices: Mapping[str, str]
) -> None:
    """Score masks that any software made against references, and write what a run writes.

    A case that cannot be compared is told and left out. Raises InputError for wrong options, and at
    the end if there was such a case, with a list.
    """
    start = time.monotonic()
    given = {name: OmegaConf.select(config, name) for name in FILES}
    for name in ("predictions", "references"):
        if given[name] is None:
            raise InputError(f"{name} is required: add {name}=... to the command")
    options = OmegaConf.to_container(OmegaConf.create(given))
    assert isinstance(options, dict)
    metrics = [build.instantiate(metric) for metric in config.metrics]
    check_metrics(metrics)
    pairs = pair_files(
        Path(str(options["predictions"])),
        references=Path(str(options["references"])),
        structures=options["structures"],
        sites=OmegaConf.select(config, "data.sites"),
        rater=OmegaConf.select(config, "data.rater", default=1),
        cases=None if options["cases"] is None else Path(str(options["cases"])),
    )
    broken = dict(pairs.broken)
    _tell(pairs, Path(str(options["predictions"])))
    if not pairs.sets:
        raise _not_scored(broken)
    if options["cases"] is None and Path(str(options["references"])).is_dir():
        print("patients:  each file counts as a patient; cases=RUN/cases.csv tells patients")

    from segshift.folder import conclude, run_name, write_json
    from segshift.results import Row, append_rows, rows_of, write_cases, write_rows
    from segshift.scoring.scores import raters_of_pair, score_pair
    from segshift.tasks import Semantic

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / "config.yaml").open("x", encoding="utf-8") as file:
            file.write(OmegaConf.to_yaml({**options, "command": command}))
    except FileExistsError as error:
        raise InputError(f"{folder} holds another run; set name=...") from error
    cases = {name: [pair.case for pair in members] for name, members in pairs.sets.items()}
    write_json(folder / "split.json", {n: [case.id for case in c] for n, c in cases.items()})
    write_cases(folder / "cases.csv", cases)
    about = environment.record(pairs.cohort, command=command, choices=choices)
    write_json(folder / "environment.json", about)
    task = Semantic(structures=pairs.cohort.structures, metrics=metrics)
    rows: list[Row] = []
    todo = [(name, pair) for name, members in pairs.sets.items() for pair in members]
    for set_, pair in tracked(todo, "scoring", total=len(todo)):
        if pair.case.id in broken:  # in another set
            continue
        names = {"case": pair.case.id, "patient": pair.case.patient, "site": pair.case.site}
        who = {"run": run_name(folder), **SetKey(set_)._asdict(), **names}
        try:
            new = rows_of(who, score_pair(pair, task=task))
        except InputError as error:
            broken[pair.case.id] = str(error)
            print(f"failed:    {error}")
            continue
        try:
            for rater, scores in raters_of_pair(pair, task=task).items():
                new += rows_of(who, scores, rater=rater)
        except InputError as error:  # which takes the yardstick away, not the case
            print(f"raters:    {error}")
        append_rows(folder / "rows.csv", new)  # which an interrupted run keeps
        rows += new
    if not rows:
        raise _not_scored(broken)
    write_rows(folder / "rows.csv", rows)
    counts = {"missing": len(pairs.missing), "extra": len(pairs.extra), "broken": len(broken)}
    told = {f"predictions/{name}": count for name, count in counts.items()}
    conclude(folder, task, {"time/score_s": time.monotonic() - start, **told})
    if broken:
        raise _not_scored(broken)


def _not_scored(broken: Mapping[str, str]) -> InputError:
    told = "\n".join(f"  {message}" for message in broken.values())
    return InputError(f"{len(broken)} case(s) were not scored and are in no mean:\n{told}")


def _tell(pairs: Pairs, predictions: Path) -> None:
    """Say what was found, and loudly what was not."""
    sizes = ", ".join(f"{name} {len(members)}" for name, members in pairs.sets.items())
    print(f"cases:     {sizes}; structures {', '.join(pairs.cohort.structures)}")
    known = {n: [pair.spacing_mm is not None for pair in own] for n, own in pairs.sets.items()}
    if told := mixed_told(known):
        print(f"sizes:     {told}")
    if pairs.extra:
        names = ", ".join(str(path.relative_to(predictions)) for path in pairs.extra[:TOLD])
        print(f"left out:  {len(pairs.extra)} predictions without a reference: {names}")
    if pairs.missing:
        print(
            f"WARNING: {len(pairs.missing)} cases have no prediction and are scored as misses: "
            f"{', '.join(pairs.missing[:TOLD])}"
        )
    for message in pairs.broken.values():
        print(f"failed:    {message}")
