"""Progress bars for people: shown in a terminal, silent in a log file."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")


def is_watched() -> bool:
    """Whether a person may be looking: output goes to a terminal."""
    return Console().is_terminal


def tracked(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """The items, behind a bar that vanishes when it is full."""
    yield from track(items, what, total=total, transient=True, disable=not is_watched())
