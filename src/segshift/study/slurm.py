"""Jobs on a SLURM cluster, one SLURM job each, submitted through submitit.

The id of each is written beside the job's file. A study that was stopped leaves them in the queue;
started again, it waits for them instead of submitting them twice.
"""

import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from segshift.errors import InputError
from segshift.study.jobs import Job
from segshift.study.running import Command, check_number, job_command

# States of `man sacct` that no job comes back from; CANCELLED is followed by who did it.
OVER = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "REVOKED",
    "TIMEOUT",
)
# States that submitit asks sacct about again. At any other (SUSPENDED, RESIZING) it takes the job
# for done and stays with what it heard, and PREEMPTED and UNKNOWN may be the last that sacct says.
FOLLOWED = ("PENDING", "RUNNING", "REQUEUED", "COMPLETING")
ASKED_EVERY_S = 60.0  # squeue, of each other job: clusters ask not to be asked more


class SlurmLauncher:
    """Submits jobs with one set of resources. Raises InputError on a machine without `sbatch`."""

    here = False

    def __init__(
        self,
        *,
        at_once: int,
        hours: float,
        cpus: int,
        memory_gb: float,
        gpus: int,
        partition: str | None = None,
        account: str | None = None,
        setup: Sequence[str] = (),
        command: Command = job_command,
        poll_s: float = 10.0,
    ) -> None:
        if shutil.which("sbatch") is None:
            raise InputError(
                "launcher=slurm, but there is no sbatch on this machine: start the study on a "
                "login node of the cluster, or take launcher=local workers=N"
            )
        for name, number, least in (("at_once", at_once, 1), ("cpus", cpus, 1), ("gpus", gpus, 0)):
            check_number(name, number, least=least)
        for name, value in (("hours", hours), ("memory_gb", memory_gb)):
            if type(value) not in (int, float) or not 0 < value < math.inf:
                raise InputError(f"launcher.{name}={value}: a number above 0")
        self.at_once, self.poll_s, self.command = at_once, poll_s, command
        self.gpus = gpus
        self.started: list[SlurmProcess] = []
        self.parameters: dict[str, Any] = {
            "timeout_min": max(round(hours * 60), 1),
            "cpus_per_task": cpus,
            "mem_gb": memory_gb,
            "nodes": 1,
            "tasks_per_node": 1,
            **({"gpus_per_node": gpus} if gpus else {}),
            **({"slurm_partition": partition} if partition else {}),
            **({"slurm_account": account} if account else {}),
            **({"slurm_setup": list(setup)} if setup else {}),
        }

    def start(self, file: Path) -> "SlurmProcess":
        """The job that an earlier study submitted and that is not over; else a new one."""
        import submitit

        folder, record = file.parent / "slurm", file.with_suffix(".slurm")
        if record.is_file():
            number = record.read_text(encoding="utf-8").strip()
            earlier = SlurmProcess(submitit.SlurmJob(folder=folder, job_id=number))
            if not earlier.is_over():
                print(f"waiting for SLURM job {number} ({earlier.job.state}), submitted before")
                self.started.append(earlier)
                return earlier
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        executor.update_parameters(name=file.stem, **self.parameters)
        log = str(file.with_suffix(".log").resolve())
        job = executor.submit(run_command, list(self.command(file.resolve())), log)
        record.write_text(f"{job.job_id}\n", encoding="utf-8")
        self.started.append(SlurmProcess(job))
        return self.started[-1]

    def check_gpus(self, jobs: Iterable[Job]) -> None:
        """Raises InputError for a job that asks for more GPUs than it is submitted with."""
        for job in jobs:
            devices, accelerator = (job.config["trainer"][k] for k in ("devices", "accelerator"))
            wanted = accelerator in ("gpu", "cuda") or (accelerator == "auto" and self.gpus)
            if wanted and devices > self.gpus:
                raise InputError(
                    f"{job.name}: trainer.devices={devices}, but launcher.gpus={self.gpus} asks "
                    f"SLURM for fewer; set launcher.gpus={devices}, or trainer.accelerator=cpu"
                )

    def left(self) -> str:
        """The jobs that had not ended when they were last looked at."""
        numbers = " ".join(str(each.job.job_id) for each in self.started if not each.over)
        return f"SLURM keeps {numbers}; to end them: scancel {numbers}" if numbers else ""


class SlurmProcess:
    """A job in the queue or on a node; it does not end with the study."""

    def __init__(self, job: Any) -> None:  # noqa: ANN401 - submitit is imported where it is used
        self.job = job
        self.over = False
        self.asked_s = -math.inf

    def ended(self) -> str | None:
        """How it ended: that its process failed, or what SLURM did to it."""
        if not self.is_over():
            return None
        name = f"SLURM job {self.job.job_id}"
        if self.job.paths.result_pickle.exists():
            return f"{name} failed" if self.job.exception() else ""
        gone = ", no longer in the queue" if self._is_uncertain() else ""
        return f"{name} {self.job.state}{gone}"

    def is_over(self) -> bool:
        """Whether it has ended, by its result, by `sacct` or, where that cannot tell, `squeue`."""
        self.over = self.over or self._has_ended()
        return self.over

    def _has_ended(self) -> bool:
        if self.job.paths.result_pickle.exists() or self.job.state.startswith(OVER):
            return True
        if not self._is_uncertain() or time.monotonic() - self.asked_s < ASKED_EVERY_S:
            return False
        self.asked_s = time.monotonic()
        return is_gone(self.job.job_id)

    def _is_uncertain(self) -> bool:
        return self.job.state not in FOLLOWED and not self.job.state.startswith(OVER)

    def terminate(self) -> None:
        """Leave it in the queue."""

    def kill(self) -> None:
        """Leave it in the queue."""


def is_gone(number: str) -> bool:
    """Whether `squeue` says that the job is not in the queue; False where it cannot tell."""
    try:
        told = subprocess.run(
            ["squeue", "-h", "-j", number], capture_output=True, encoding="utf-8", check=False
        )
    except OSError:
        return False
    forgotten = "Invalid job id" in told.stderr  # it says so of a job that ended a while ago
    return forgotten or (told.returncode == 0 and not told.stdout.strip())


def run_command(command: Sequence[str], log: str) -> int:
    """On the node: the job's process, its output in the job's log; raises if it fails."""
    threads = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": threads}
    with Path(log).open("ab") as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=True
        )
    return done.returncode
