"""Several processes for one run, one per device."""

import logging
import sys
from pathlib import Path

from segshift.errors import InputError


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
        elastic_launch(launch, sys.executable)("-m", "segshift.worker", str(folder))
    except ChildFailedError as error:
        failed = ", ".join(str(rank) for rank in sorted(error.failures))
        raise InputError(f"process {failed} of {processes} failed; its message is above") from error
    except SignalException:
        sys.exit(1)  # the processes were told, and rank 0 said what it saved
