"""Several processes for one run, one per device."""

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from segshift.errors import InputError

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends


def launch(folder: Path, *, processes: int) -> None:
    """Start one process per device, by torchrun's own launcher, on the frozen config of `folder`.

    Lightning's launcher would run the script again, and Hydra with it: other folders, and in a
    sweep a hang (Lightning #11300). So a job is always its own processes, a sweep included.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # What went wrong is said below, and by the process itself; each child logger has a level.
    for name in [n for n in logging.root.manager.loggerDict if n.startswith("torch.distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=folder.name,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        command = "-m", "segshift.worker", str(folder), str(os.getpid())
        elastic_launch(launch, sys.executable)(*command)
    except ChildFailedError as error:
        failed = ", ".join(str(rank) for rank in sorted(error.failures))
        raise InputError(f"process {failed} of {processes} failed; its message is above") from error
    except SignalException:
        sys.exit(1)  # the processes were told, and rank 0 said what it saved


def end_with(parent: int) -> None:
    """On Linux, end this process as soon as the one that started it is no more, even by kill -9.

    It would go on writing into a folder in which another process may have begun anew.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that
            sys.exit(1)
