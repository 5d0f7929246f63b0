"""The study's folder: what every job is and where it stands; a kill leaves it sound.

A job is done when its run's folder holds `finished.json` with the job's identity. The job's process
writes it last, so nothing that was stopped half-way is ever taken for a result.
"""

import csv
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segshift.errors import InputError
from segshift.results.curves import read_corruptions, write_corruptions
from segshift.results.drafts import drafted, write_whole
from segshift.results.measures import read_measures, write_measures
from segshift.results.rows import COLUMNS
from segshift.results.study import DONE, FAILED, JOB_COLUMNS, trained_at
from segshift.study.identity import code_hash

if TYPE_CHECKING:
    from segshift.study.jobs import Job

WAITING = "waiting"
MARKER = "finished.json"


@dataclass(frozen=True, slots=True)
class State:
    """Where a job stands; `seconds` are those of a finished one.

    One that is done may still be incomplete: its rows are there, its attribution is not.
    """

    status: str
    seconds: float | None = None
    complete: bool = False


def check_folder(folder: Path) -> None:
    """Raises InputError if the folder holds something else than a study."""
    if folder.is_file():
        raise InputError(f"{folder} is a file; set name=... or folder=...")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "study.yaml").is_file():
        raise InputError(f"{folder} holds something else than a study; set name=... or folder=...")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the study; it is free again when this process ends, however it ends.

    Raises InputError if another process holds it.
    """
    (folder / "jobs").mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").touch()
    with (folder / "study.lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise InputError(
                f"{folder} is being worked on by process {lock.read().strip()}; wait for it or "
                "stop it, or take a folder of its own with name=..."
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def job_file(folder: Path, name: str) -> Path:
    """What the job is; beside it its log, its lock and, without the suffix, its run's folder."""
    return folder / "jobs" / f"{name}.json"


def run_folder(file: Path) -> Path:
    """The run's folder of a job's file."""
    return file.with_suffix("")


def write_job(folder: Path, job: "Job", *, attribute: bool) -> None:
    """Freeze the job for its process."""
    content = {
        "identity": job.identity,
        "code": code_hash(),
        "overrides": list(job.overrides),
        "choices": dict(job.choices),
        "attribute": attribute,
        "steps": job.steps,
        "config": job.config,
    }
    write_whole(job_file(folder, job.name), json.dumps(content, indent=1) + "\n")


def finished(file: Path, identity: str) -> dict[str, Any] | None:
    """What the job's process wrote after its run; None if it is not done, or was another job."""
    try:
        marker: dict[str, Any] = json.loads((run_folder(file) / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = marker.get("identity") == identity and (run_folder(file) / "rows.csv").is_file()
    return marker if whole else None


def set_names(run: Path) -> tuple[str, ...]:
    """The evaluation sets of a run's folder, without those that are seen through a shift."""
    sides = json.loads((run / "split.json").read_text(encoding="utf-8"))
    return tuple(name for name in sides if name not in ("train", "val"))


def states(folder: Path, jobs: Iterable["Job"], *, attribute: bool) -> dict[str, State]:
    """Where every job stands, by its name: done by its marker, failed by the last `jobs.csv`.

    With `attribute`, a job is complete only after its attribution.
    """
    try:
        with (folder / "jobs.csv").open(encoding="utf-8", newline="") as file:
            told = {line["job"]: line["status"] for line in csv.DictReader(file)}
    except (OSError, KeyError):
        told = {}
    result = {}
    for job in jobs:
        marker = finished(job_file(folder, job.name), job.identity)
        if marker:
            complete = marker["attributed"] or not attribute
            result[job.name] = State(DONE, float(marker["seconds"]), complete)
        else:
            result[job.name] = State(FAILED if told.get(job.name) == FAILED else WAITING)
    return result


def write_jobs(folder: Path, jobs: Sequence["Job"], states: Mapping[str, State]) -> None:
    """`jobs.csv`: a job's line for every part and variant that it belongs to."""
    lines = []
    for job in jobs:
        state = states[job.name]
        seconds = "" if state.seconds is None else f"{state.seconds:.1f}"
        who = (job.name, job.part, trained_at(job.train), job.variant, job.seed, job.fold)
        lines.append((*who, state.status, seconds, job.steps))
    with drafted(folder / "jobs.csv") as draft, draft.open("w", encoding="utf-8", newline="") as f:
        csv.writer(f, lineterminator="\n").writerows([JOB_COLUMNS, *lines])


def gather_rows(folder: Path, names: Sequence[str]) -> None:
    """`rows.csv`, `metrics.json` and `corruptions.json`: what these jobs measured, and its meaning.

    Rows are copied one job after the other, line by line. Raises InputError where a metric means
    one thing in one job and another in the next.
    """
    runs = [run_folder(job_file(folder, name)) for name in names]
    write_measures(folder, [one for run in runs for one in read_measures(run).values()])
    if corruptions := read_corruptions(runs):
        write_corruptions(folder, corruptions)
    with drafted(folder / "rows.csv") as draft, draft.open("w", encoding="utf-8", newline="") as f:
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, run in zip(names, runs, strict=True):
            with (run / "rows.csv").open(encoding="utf-8", newline="") as file:
                writer.writerows(
                    [name, *(line[column] for column in COLUMNS[1:])]
                    for line in csv.DictReader(file)
                )
