"""Jobs on a SLURM cluster, one SLURM job each, submitted through submitit.

The id of each is written beside the job's file. A study that was stopped leaves them in the queue;
started again, it waits for them instead of submitting them twice.
"""

import math
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segshift.errors import InputError
from segshift.study.running import Command, check_number, job_command

OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")


class SlurmLauncher:
    """Submits jobs with one set of resources. Raises InputError on a machine without `sbatch`."""

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
            earlier = submitit.SlurmJob(
                folder=folder, job_id=record.read_text(encoding="utf-8").strip()
            )
            if not _is_over(earlier):
                return SlurmProcess(earlier)
        executor = submitit.AutoExecutor(folder=folder, cluster="slurm")
        executor.update_parameters(name=file.stem, **self.parameters)
        log = str(file.with_suffix(".log").resolve())
        job = executor.submit(run_command, list(self.command(file.resolve())), log)
        record.write_text(f"{job.job_id}\n", encoding="utf-8")
        return SlurmProcess(job)


class SlurmProcess:
    """A job in the queue or on a node; it does not end with the study."""

    def __init__(self, job: Any) -> None:  # noqa: ANN401 - submitit is imported where it is used
        self.job = job

    def ended(self) -> str | None:
        """How it ended: that its process failed, or what SLURM did to it."""
        if not _is_over(self.job):
            return None
        if not self.job.paths.result_pickle.exists():
            return f"SLURM job {self.job.job_id} {self.job.state}"
        return f"SLURM job {self.job.job_id} failed" if self.job.exception() else ""

    def terminate(self) -> None:
        """Leave it in the queue."""

    def kill(self) -> None:
        """Leave it in the queue."""


def run_command(command: Sequence[str], log: str) -> int:
    """On the node: the job's process, its output in the job's log; raises if it fails."""
    threads = os.environ.get("SLURM_CPUS_PER_TASK", "1")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": threads}
    with Path(log).open("ab") as output:
        done = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=True
        )
    return done.returncode


def _is_over(job: Any) -> bool:  # noqa: ANN401
    return bool(job.done()) or any(job.state.startswith(state) for state in OVER)
