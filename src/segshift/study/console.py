"""What a study says in a terminal: its jobs, what they will cost, and how each of them ended."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from segshift.progress import is_watched
from segshift.results import main_measure, read_measures
from segshift.study.cost import Cost
from segshift.study.folder import State, job_file, run_folder, set_names
from segshift.study.jobs import Job

SHOWN_SETS = 6


def print_jobs(
    jobs: Sequence[Job], states: Mapping[str, State], *, console: Console | None = None
) -> None:
    """One line per job: what it is, where it stands, and its steps."""
    table = Table(box=SIMPLE_HEAD)
    columns = {
        "part": [job.part for job in jobs],
        "trained at": [_trained(job) for job in jobs],
        "variant": [job.variant for job in jobs],
        "seed": [job.seed for job in jobs],
        "fold": [job.fold for job in jobs],
        "status": [_told(states[job.name]) for job in jobs],
        "steps": [str(job.steps) for job in jobs],
    }
    shown = {name: texts for name, texts in columns.items() if any(texts)}
    for name in shown:
        table.add_column(name, justify="right" if name == "steps" else "left", overflow="fold")
    for line in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, line))
    (console or Console()).print(table)


def cost_line(cost: Cost, *, done: int) -> str:
    """The number of jobs, the steps and, if it is known, the time, in one line."""
    from segshift.report.measures import duration  # with it matplotlib, here as below

    before = f", {done} done" if done else ""
    time = (
        cost.source if cost.seconds is None else f"about {duration(cost.seconds)} ({cost.source})"
    )
    return (
        f"to do:     {cost.jobs} jobs{before}; {cost.steps} steps, {cost.passes} tests of a set; "
        + time
    )


def oracle_line(jobs: Sequence[Job]) -> str:
    """How many patients of each site its own network judges; "" where it is all of them."""
    judged: dict[tuple[object, ...], int] = {}  # over the folds
    for job in jobs:
        key = job.train, job.part, job.variant, job.seed
        judged[key] = judged.get(key, 0) + job.oracle[0]
    single = {job.train: job for job in jobs if job.oracle[1]}
    told = []
    for train, job in single.items():
        fewest = min(count for key, count in judged.items() if key[0] == train and count)
        if fewest < job.oracle[1]:
            told.append(f"{fewest} of {job.oracle[1]} patients at {_trained(job)}")
    if not told:
        return ""
    folds = ",".join(map(str, range(next(iter(single.values())).config["split"]["folds"])))
    return f"oracle:    judges {', '.join(told)}; split.fold={folds} judges all"


def precision_line(folder: Path, done: Sequence[Job]) -> str:
    """Where machines took different precisions for `auto`, of which no job's identity can know."""
    found: Counter[str] = Counter()
    for job in done:
        network = run_folder(job_file(folder, job.name)) / "network.json"
        if job.config["trainer"]["precision"] == "auto" and network.is_file():
            found[json.loads(network.read_text(encoding="utf-8"))["precision"]] += 1
    if len(found) < 2:
        return ""
    told = ", ".join(f"{name} in {times} jobs" for name, times in sorted(found.items()))
    return (
        f"precision: {told}, as the machines of trainer.precision=auto took them; name one to "
        "compare these jobs"
    )


def ended_line(folder: Path, *, seconds: float) -> str:
    """A finished job: the metric that its study is about, on every set as it was acquired."""
    from segshift.report.measures import digits, written

    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    measure = main_measure(read_measures(folder))
    keys = {name: f"test/{name}/{measure.name}" for name in set_names(folder)}
    known = {name: summary[key] for name, key in keys.items() if key in summary}
    means = [f"{name} {written(mean, digits(measure))}" for name, mean in known.items()]
    told = ", ".join(means[:SHOWN_SETS])
    more = f", {len(means) - SHOWN_SETS} more" if len(means) > SHOWN_SETS else ""
    return f"{measure.name} {told}{more}; {seconds:.0f} s"


class Told:
    """Lines above a bar over the jobs that has the time that is left; lines alone in a log file."""

    def __init__(self, progress: Progress | None, *, total: int) -> None:
        self.progress = progress
        self.task = progress.add_task("jobs", total=total, left="") if progress else None

    def line(self, text: str) -> None:
        """Say something that stays."""
        if self.progress:
            self.progress.console.print(escape(text), highlight=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def moved(self, done: int, left_s: float | None) -> None:
        """Move the bar."""
        if self.progress and self.task is not None:
            from segshift.report.measures import duration

            left = "" if left_s is None else f"about {duration(left_s)} left"
            self.progress.update(self.task, completed=done, left=left)


@contextmanager
def telling(*, total: int) -> Iterator[Told]:
    """A `Told`, with its bar if a person may be looking."""
    if not is_watched():
        yield Told(None, total=total)
        return
    left = TextColumn("{task.fields[left]}")
    with Progress("jobs", BarColumn(), MofNCompleteColumn(), left, transient=True) as progress:
        yield Told(progress, total=total)


def _trained(job: Job) -> str:
    """The training sites as people read them."""
    return "+".join(job.train)


def _told(state: State) -> str:
    return state.status if state.seconds is None else f"{state.status}, {state.seconds:.0f} s"
