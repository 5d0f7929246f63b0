"""`python study.py`: expand, check, show, run what is not done, gather, report."""

import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from segshift import build
from segshift.errors import InputError
from segshift.results import DONE, FAILED
from segshift.results.drafts import write_whole
from segshift.study.cost import known_cost, measured_cost, unmeasured_cost
from segshift.study.expansion import checked_study, parts_of
from segshift.study.folder import (
    WAITING,
    State,
    check_folder,
    gather_rows,
    job_file,
    locked,
    run_folder,
    states,
    write_job,
    write_jobs,
)
from segshift.study.jobs import Job, distinct, jobs_of, split_options
from segshift.study.running import Launcher, last_lines, run_all, termination_as_interrupt
from segshift.study.words import divided


@dataclass(frozen=True, slots=True)
class Study:
    """What a command line means, checked; nothing was written yet."""

    folder: Path
    jobs: tuple[Job, ...]
    launcher: Launcher
    attribute: bool
    dry_run: bool
    postprocessed: bool  # judge the masks as post-processing left them
    command: str
    settings: Mapping[str, Any]  # of conf/study.yaml, resolved, and the words of the jobs


def study(words: Sequence[str]) -> None:
    """Do what the command line says. Raises InputError; exits with 1 if a job failed."""
    planned = planned_study(words)
    show(planned)
    if not planned.dry_run:
        carry_out(planned, report=write_report)


def carry_out(planned: Study, *, report: Callable[[Study], None]) -> None:
    """Run what is not done, then gather the rows and call `report`, also if there is no row.

    Exits with 1 if a job failed, was stopped by Ctrl-C or SIGTERM; what to do is then said.
    """
    from segshift.study.console import precision_line

    again = f"the same command goes on: {planned.command}"
    try:
        with termination_as_interrupt(), locked(planned.folder):
            failed = run_study(planned)
            now = states(planned.folder, planned.jobs, attribute=planned.attribute)
            done = [j for j in distinct(planned.jobs) if now[j.name].status == DONE]
            gather_rows(planned.folder, [job.name for job in done])
            report(planned)
            if precision := precision_line(planned.folder, done):
                print(precision)
    except KeyboardInterrupt:
        left = planned.launcher.left()
        sys.exit(f"stopped; what is done is kept; {again}" + (f"\n{left}" if left else ""))
    if failed:
        total = len(distinct(planned.jobs))
        sys.exit("\n  ".join([f"{len(failed)} of {total} jobs failed:", *failed]) + f"\n{again}")


def write_report(planned: Study) -> None:
    """The tables, the page, what a terminal shows of them, and a summary where the jobs log to."""
    from segshift.report.study import write_study_report
    from segshift.report.study_console import print_study

    write_study_report(planned.folder, postprocessed=planned.postprocessed)
    print_study(planned.folder)
    for name in ("report.html", "figures"):
        print(f"{name:<12} {planned.folder / name}")
    loggers = [job.config["logger"] for job in planned.jobs]
    logger = next((each for each in loggers if each["wandb"]), None)
    if logger:
        from segshift.tracking import log_study

        log_study(planned.folder, project=logger["project"], group=logger["group"])


def planned_study(words: Sequence[str]) -> Study:
    """Compose and check the study and every job. Raises InputError; imports no torch."""
    own, job_words = divided(words)
    with initialize_config_dir(str(build.conf_folder()), version_base="1.3"):
        composed = compose("study", overrides=list(own), return_hydra_config=True)
        choice = composed.hydra.runtime.choices["study"]
        with open_dict(composed):
            del composed["hydra"]
            composed.name = composed.name or f"study_{choice}"
        config = build.resolved(composed)
        if type(config.workers) is not int or config.workers < 1:
            raise InputError(f"workers={config.workers}: a whole number from 1")
        for switch in ("dry_run", "postprocessed"):
            if type(config[switch]) is not bool:
                raise InputError(f"{switch}={config[switch]}: true or false")
        launcher: Launcher = build.instantiate(config.launcher)
        content = OmegaConf.to_container(config)
        assert isinstance(content, dict)
        asked = checked_study(content["study"])
        parts = parts_of(asked, job_words, split_options=split_options)
        jobs = jobs_of(parts, group=str(config.name))
        launcher.check_gpus(jobs)
    command = shlex.join(["python", "study.py", *words])
    of_jobs = [text for word in job_words for text in word.texts]
    settings = {"command": command, **content, "overrides": of_jobs}
    check_folder(Path(config.folder))
    return Study(
        folder=Path(config.folder),
        jobs=jobs,
        launcher=launcher,
        attribute=asked.get("attribute", False),
        dry_run=config.dry_run,
        postprocessed=config.postprocessed,
        command=command,
        settings={str(key): value for key, value in settings.items()},
    )


def show(planned: Study) -> None:
    """Print the jobs, where they stand, and what the rest will cost.

    A study that goes on names the precisions when it has ended, those of all jobs.
    """
    from segshift.study.console import cost_line, oracle_line, precision_line, print_jobs

    now = states(planned.folder, planned.jobs, attribute=planned.attribute)
    print_jobs(planned.jobs, now)
    jobs = distinct(planned.jobs)
    left = [job for job in jobs if now[job.name].status != DONE]
    done = [job for job in jobs if now[job.name].status == DONE]
    if left:
        launcher = planned.launcher
        known = known_cost(left, jobs, now, at_once=launcher.at_once)
        # A login node of a cluster is another machine than those that will train.
        cost = known or (measured_cost(left) if launcher.here else unmeasured_cost(left))
        print(cost_line(cost, done=len(done)))
    if planned.dry_run and (precision := precision_line(planned.folder, done)):
        print(precision)
    if oracle := oracle_line(planned.jobs):
        print(oracle)
    print(f"study:     {planned.folder}")


def run_study(planned: Study) -> list[str]:
    """Run every job that is not complete, as processes; the names of those that failed.

    After every job, `jobs.csv` says where all of them stand.
    """
    from segshift.study.console import ended_line, telling

    folder, jobs = planned.folder, distinct(planned.jobs)
    write_whole(folder / "study.yaml", OmegaConf.to_yaml(dict(planned.settings)))
    now = states(folder, jobs, attribute=planned.attribute)
    waiting, failed = {}, []
    for job in jobs:
        if now[job.name].status != DONE:
            now[job.name] = State(WAITING)
        if not now[job.name].complete:
            write_job(folder, job, attribute=planned.attribute)
            waiting[job_file(folder, job.name)] = job
    write_jobs(folder, planned.jobs, now)
    # Closed here, not when it is collected: what still runs is ended before the study says so.
    with telling(total=len(jobs)) as told, closing(run_all(waiting, planned.launcher)) as ends:
        done = len(jobs) - len(waiting)
        told.moved(done, None)
        for ended in ends:
            job, done = ended.job, done + 1
            file = job_file(folder, job.name)
            one = states(folder, [job], attribute=planned.attribute)[job.name]
            place = f"{done}/{len(jobs)}  {job.name}"
            if one.status == DONE:
                told.line(f"{place}: {ended_line(run_folder(file), seconds=one.seconds or 0)}")
            if not one.complete:
                failed.append(job.name)
                log = file.with_suffix(".log")
                how = ended.how or "it ended without a result"
                told.line(f"{place}: failed, {how}; {log} ends with\n{last_lines(log)}")
            now[job.name] = one if one.status == DONE else State(FAILED)
            write_jobs(folder, planned.jobs, now)
            left = [job for job in jobs if now[job.name].status == WAITING]
            cost = known_cost(left, jobs, now, at_once=planned.launcher.at_once)
            told.moved(done, cost.seconds if cost else None)
    return failed


def help_text() -> str:
    """What `python study.py --help` says."""
    conf = build.conf_folder()
    files = {path.stem: path for path in sorted(Path("study").glob("*.yaml"))}
    files |= {path.stem: path for path in sorted((conf / "study").glob("*.yaml"))}
    studies = "\n".join(f"  study={name:<16} {_about(files[name])}" for name in sorted(files))
    own = re.sub(
        r"(?ms)^(defaults|hydra):.*?(?=^\S|\Z)",
        "",
        (conf / "study.yaml").read_text(encoding="utf-8"),
    )
    return (
        "python study.py study=cross_site data=manifest data.manifest=PATH loss=dice_ce,focal\n\n"
        f"Studies, and those in ./study of the folder you are in:\n{studies}\n\n"
        f"Options of the study:\n{own}\n"
        "All other words are those of train.py (python train.py --help) and are given to every "
        "job; one with\nseveral values, as model=unet2d,unet3d, or with the value each_site "
        "makes a job of each."
    )


def _about(path: Path) -> str:
    return next(iter(path.read_text(encoding="utf-8").splitlines()), "").removeprefix("# ")
