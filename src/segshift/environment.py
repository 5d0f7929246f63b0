"""The machine: its precision, its rank among processes, and a record of it for the run."""

import ctypes
import hashlib
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from segshift.cohort import Cohort
from segshift.errors import InputError

PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true")
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
RECORDED = ("segshift", "torch", "lightning", "monai", "hydra-core", "numpy", "wandb")


def rank() -> int:
    """This process' number in a distributed run; 0 otherwise."""
    launched = "TORCHELASTIC_RUN_ID" in os.environ  # some clusters set RANK for everybody
    return int(os.environ["RANK"]) if launched else 0


def check_precision(name: str) -> None:
    """Raises InputError that lists the known precisions."""
    if name not in PRECISIONS:
        raise InputError(f"trainer.precision={name}: known are {', '.join(PRECISIONS)}")


def check_accelerator(name: str) -> None:
    """Raises InputError that lists the known accelerators."""
    if name not in ACCELERATORS:
        raise InputError(f"trainer.accelerator={name}: known are {', '.join(ACCELERATORS)}")


def check_compiler() -> None:
    """Raises InputError if torch.compile would not find the compiler that it calls."""
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise InputError(
            f"trainer.compile=true needs the C++ compiler {compiler}, which is not here; install "
            "it, name another one in the environment variable CXX, or set trainer.compile=false"
        )


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
    # Private in torch 2.8 to 2.13, but the only ones who know; without them float32 is right.
    elif torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported():
        chosen, why = "bf16-mixed", "this processor computes in bfloat16"
    else:
        chosen, why = "32-true", "this processor does not compute in bfloat16"
    if rank() == 0:
        layout = "" if chosen == "32-true" else ", channels-last"
        print(f"precision: {chosen}{layout} ({why})")
    return chosen


def peak_memory_gb(device: str) -> dict[str, float]:
    """Peak memory of this process, and of its GPU if `device` is `cuda`."""
    unit = 1e9 if sys.platform == "darwin" else 1e6  # bytes on macOS, kB on Linux
    result = {"memory/peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit}
    if device == "cuda":
        import torch

        result["memory/peak_gpu_gb"] = torch.cuda.max_memory_allocated() / 1e9
    return result


def keep_freed_memory() -> None:
    """Let glibc keep what tensors free instead of giving it back and faulting it in again.

    A CPU training step allocates and frees the same hundreds of megabytes; without this a quarter
    of its time goes into page faults, with it the process keeps its peak (bench/README.md).
    """
    import torch

    if platform.libc_ver()[0] == "glibc" and not torch.cuda.is_available():
        trim_threshold, mmap_max = -1, -4  # names of mallopt(3)
        libc = ctypes.CDLL(None)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)


def record(cohort: Cohort, *, command: str, choices: Mapping[str, str]) -> dict[str, Any]:
    """Versions, hardware, commit, command and a hash of the cohort's description."""
    return {
        "command": command,
        "choices": dict(choices),
        "cohort_sha256": _cohort_hash(cohort),
        "git_commit": _git_commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "gpu": _gpu(),
        "packages": {name: metadata.version(name) for name in RECORDED},
    }


def _cohort_hash(cohort: Cohort) -> str:
    """Of what the manifest says, wherever its folder lies."""
    lines = [
        (case.described(lambda file: file.name), case.patient, case.site, dict(case.tags))
        for case in cohort.cases
    ]
    return hashlib.sha256(repr((cohort.structures, lines)).encode()).hexdigest()


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _git_commit() -> str | None:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True,
            check=True,
            encoding="utf-8",
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
