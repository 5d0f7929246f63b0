"""Long work: threads for reading files, and bars, shown in a terminal, silent in a log file."""

import os
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def is_watched() -> bool:
    """Whether a person may be looking: output goes to a terminal."""
    return Console().is_terminal


def threads() -> int:
    """How many threads read files, each a volume: this process' processors, at most 8."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(own or 1, 8)


def tracked(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """The items, behind a bar that vanishes when it is full."""
    yield from track(items, what, total=total, transient=True, disable=not is_watched())
