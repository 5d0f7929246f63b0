"""Maps of a case while they are being made: arrays on disk, since all of them fill no memory."""

import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory

import numpy as np

PREFIX = ".drafts-"


class Drafts:
    """Arrays float16 (count, D, H, W) by kind, of those kinds alone that are `open`."""

    def __init__(self, shape: tuple[int, ...], arrays: Mapping[str, np.ndarray]) -> None:
        self.shape, self.open = shape, dict(arrays)

    def put(self, kind: str, place: slice, values: np.ndarray) -> None:
        """Write the slices `place` of a kind (count, d, H, W), if it is open."""
        if kind in self.open:
            self.open[kind][:, place] = values


@contextmanager
def drafts(folder: Path, shape: tuple[int, ...], kinds: Mapping[str, int]) -> Iterator[Drafts]:
    """Open arrays for `kinds` (name to count) of a case (D, H, W); they vanish at the end.

    Below `folder`, which has room for the results, where a temporary folder may be in memory.
    """
    if not kinds:
        yield Drafts(shape, {})
        return
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f"{PREFIX}{_host()}-{os.getpid()}-", dir=folder) as place:
        yield Drafts(shape, dict(_arrays(Path(place), shape, kinds)))


def remove_orphans(folder: Path) -> None:
    """Remove drafts that killed processes of this machine left; call it before any are opened."""
    for place in folder.glob(f"{PREFIX}{_host()}-*"):
        pid = place.name.removeprefix(f"{PREFIX}{_host()}-").split("-")[0]
        if pid.isdigit() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            rmtree(place, ignore_errors=True)


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", socket.gethostname())


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        return True
    return True


def _arrays(
    folder: Path, shape: tuple[int, ...], kinds: Mapping[str, int]
) -> Iterable[tuple[str, np.ndarray]]:
    for kind, count in kinds.items():
        yield (
            kind,
            np.lib.format.open_memmap(
                folder / f"{kind}.npy", mode="w+", dtype=np.float16, shape=(count, *shape)
            ),
        )
