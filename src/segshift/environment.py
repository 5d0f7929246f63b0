"""The machine: its precision, its rank among processes, and a record of it for the run."""

import ctypes
import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from typing import Any

from segshift.cohort import Cohort
from segshift.errors import InputError

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true")
RECORDED = ("segshift", "torch", "lightning", "monai", "hydra-core", "numpy", "wandb")


def rank() -> int:
    """This process' number in a distributed run; 0 otherwise."""
    return int(os.environ.get("RANK", "0"))


def check_precision(name: str) -> None:
    """Raises InputError that lists the known precisions."""
    if name not in PRECISIONS:
        raise InputError(f"trainer.precision={name}: known are {', '.join(PRECISIONS)}")


def check_devices(accelerator: str, devices: int) -> None:
    """Raises InputError if the GPUs that are asked for are not here."""
    import torch

    here = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") and not here:
        raise InputError(
            f"trainer.accelerator={accelerator}, but no GPU is here; take trainer=default"
        )
    if accelerator in ("auto", "gpu", "cuda") and here and devices > here:
        raise InputError(
            f"trainer.devices={devices}, but {here} GPU(s) are here; ask for fewer, or set "
            "trainer.accelerator=cpu"
        )


def precision(name: str, accelerator: str) -> str:
    """Lightning's name of the precision; `auto` takes bfloat16 where the hardware has it."""
    import torch

    cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if name != "auto":
        chosen, why = name, "as configured"
    elif cuda:
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
        chosen, why = ("bf16-mixed" if fast else "16-mixed"), torch.cuda.get_device_name()
    elif torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        chosen, why = "bf16-mixed", "this processor computes in bfloat16"
    else:
        chosen, why = "32-true", "this processor does not compute in bfloat16"
    if rank() == 0:
        layout = "" if chosen == "32-true" else ", channels-last"
        print(f"precision: {chosen}{layout} ({why})")
    return chosen


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free instead of giving it back and faulting it in again.

    A CPU training step allocates and frees the same hundreds of megabytes; without this a quarter
    of its time goes into page faults (bench/README.md). It costs no more than the step's own peak.
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_max = -1, -4  # names of mallopt(3)
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)


def record(cohort: Cohort, *, command: str, choices: Mapping[str, str]) -> dict[str, Any]:
    """Versions, hardware, commit, command and a hash of the cohort's description."""
    return {
        "command": command,
        "choices": dict(choices),
        "cohort_sha256": hashlib.sha256(repr(asdict(cohort)).encode()).hexdigest(),
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "packages": {name: metadata.version(name) for name in RECORDED},
    }


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
