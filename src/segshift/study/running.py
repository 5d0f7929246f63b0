"""Jobs as processes of their own, some at a time; one that fails does not stop the others."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segshift.errors import InputError
from segshift.study.jobs import Job

VISIBLE = "CUDA_VISIBLE_DEVICES"
GRACE_S = 15.0  # for a process that was asked to end
LISTED_S = 20.0  # nvidia-smi takes seconds where the driver is loaded first
TOLD_LINES = 8  # of the log of a job that failed
TOLD_BYTES = 16_384
Command = Callable[[Path], Sequence[str]]


class Process(Protocol):
    """A job that was started."""

    def ended(self) -> str | None:
        """None while it runs; then how it ended, "" if well."""

    def terminate(self) -> None:
        """Ask it to end, where it ends with the study."""

    def kill(self) -> None:
        """Wait a little for a process that was asked to end, then end it."""


class Launcher(Protocol):
    """Starts jobs; `at_once` of them run at a time, looked at every `poll_s`.

    `here`: on this machine, so that it can be asked what they will take.
    """

    at_once: int
    poll_s: float
    here: bool

    def start(self, file: Path) -> Process:
        """Start the job that `file` describes."""

    def check_gpus(self, jobs: Iterable[Job]) -> None:
        """Raises InputError for a job that asks for more GPUs than it will see."""

    def left(self) -> str:
        """What goes on after the study was stopped, in words; "" if nothing does."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job whose process is no more; `how` it ended is "" if that was well."""

    job: Job
    how: str


def check_number(option: str, value: object, *, least: int) -> None:
    """Raises InputError for an option of the launcher that is no whole number from `least` on."""
    if type(value) is not int or value < least:
        raise InputError(f"launcher.{option}={value}: a whole number from {least}")


def job_command(file: Path) -> list[str]:
    """The command line of one job's process."""
    return [sys.executable, "-m", "segshift.study.job", str(file)]


class LocalLauncher:
    """Processes on this machine, which share its processors and its GPUs evenly."""

    here = True

    def __init__(
        self, *, workers: int, command: Command = job_command, poll_s: float = 0.2
    ) -> None:
        check_number("workers", workers, least=1)
        self.at_once, self.poll_s, self.command = workers, poll_s, command
        self.environment = {**os.environ, "PYTHONUNBUFFERED": "1", **_threads(workers)}
        self.gpus = visible_gpus() if workers > 1 else ()  # one worker has whatever there is
        self.shares = gpu_shares(self.gpus, workers=workers)
        self.places: list[LocalProcess | None] = [None] * workers

    def start(self, file: Path) -> "LocalProcess":
        """Start it with its output in the log beside the file, behind what an earlier one said."""
        ended = (p is None or p.ended() is not None for p in self.places)
        place = list(ended).index(True)
        with file.with_suffix(".log").open("ab") as log:
            process = LocalProcess(
                subprocess.Popen(
                    self.command(file),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**self.environment, **self.shares[place]},
                    start_new_session=True,  # a terminal's Ctrl-C reaches the study alone
                )
            )
        self.places[place] = process
        return process

    def check_gpus(self, jobs: Iterable[Job]) -> None:
        """Raises InputError for a job that asks for more GPUs than a worker's share."""
        here, each = len(self.gpus), share_size(self.gpus, workers=self.at_once)
        for job in jobs if here else ():
            trainer = job.config["trainer"]
            devices = trainer["devices"]
            if trainer["accelerator"] in ("auto", "gpu", "cuda") and devices > each:
                fewer = f"workers={here // devices} or " if devices <= here else ""
                raise InputError(
                    f"{job.name}: trainer.devices={devices}, but {here} GPU(s) are here, of which "
                    f"each of workers={self.at_once} sees {each}; set {fewer}"
                    f"trainer.devices={each}, or trainer.accelerator=cpu"
                )

    def left(self) -> str:
        """Nothing: they are ended with the study."""
        return ""


class LocalProcess:
    """A process and whatever it started itself."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process

    def ended(self) -> str | None:
        """How it ended, in words."""
        status = self.process.poll()
        if status is None or status == 0:
            return None if status is None else ""
        if status > 0:
            return f"exit status {status}"
        name = signal.Signals(-status).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def terminate(self) -> None:
        """SIGTERM for its whole session."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL for what is left of its session after `GRACE_S`."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(GRACE_S)
        self._signal(signal.SIGKILL)
        self.process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def run_all(jobs: Mapping[Path, Job], launcher: Launcher) -> Generator[Ended]:
    """Run the jobs, by their files, in order; each is yielded as soon as it has ended.

    On any exception (Ctrl-C, a closed generator) those that run are ended with the study.
    """
    waiting = list(jobs)[::-1]
    running: dict[Path, Process] = {}
    try:
        while waiting or running:
            while waiting and len(running) < launcher.at_once:
                file = waiting.pop()
                try:
                    running[file] = launcher.start(file)
                except Exception as error:  # such as a cluster that refuses it: others may go
                    yield Ended(jobs[file], f"it was not started: {error}")
            for file, process in list(running.items()):
                how = process.ended()
                if how is not None:
                    del running[file]
                    yield Ended(jobs[file], how)
                    break  # its place is free
            else:
                time.sleep(launcher.poll_s if running else 0)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.kill()


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM ends this process as Ctrl-C does: in order, with its children."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def last_lines(log: Path) -> str:
    """The end of a log, however long it is."""
    try:
        with log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TOLD_BYTES, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-TOLD_LINES:])


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that CUDA would show to a process, as its variable names them; asks no torch."""
    if VISIBLE in os.environ:
        return tuple(name for name in os.environ[VISIBLE].split(",") if name)
    lines = [line for line in _listed().splitlines() if line.startswith("GPU ")]
    return tuple(map(str, range(len(lines))))


def share_size(gpus: Sequence[str], *, workers: int) -> int:
    """How many of the GPUs each worker sees: as many as there are for all, at least one."""
    return max(len(gpus) // workers, min(len(gpus), 1))


def gpu_shares(gpus: Sequence[str], *, workers: int) -> tuple[Mapping[str, str], ...]:
    """What each of the workers has to add to its environment, to see its share of the GPUs alone.

    Of fewer GPUs than workers some share one.
    """
    if workers == 1 or not gpus:
        return ({},) * workers
    each = share_size(gpus, workers=workers)
    starts = (place * each % len(gpus) for place in range(workers))
    return tuple({VISIBLE: ",".join(gpus[start : start + each])} for start in starts)


def _listed() -> str:
    """What nvidia-smi lists; "" without a driver, or with one that fails or does not answer."""
    command = ["nvidia-smi", "--list-gpus"]
    try:
        asked = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
        )
    except OSError:
        return ""
    try:
        told, _ = asked.communicate(timeout=LISTED_S)
    except subprocess.TimeoutExpired:
        asked.kill()  # subprocess.run would then wait for it, and one in a wedged driver stays
        return ""
    return told if asked.returncode == 0 else ""


def _threads(workers: int) -> dict[str, str]:
    """So many threads for each of several processes that their sum is the processors."""
    if workers == 1:
        return {}
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = str(max((own or 1) // workers, 1))
    return {"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share}
