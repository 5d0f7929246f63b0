"""Files that appear whole or not at all, however the process that writes them ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def drafted(path: Path) -> Iterator[Path]:
    """A place beside the file to write it to; afterwards the file is replaced at once."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    yield draft
    draft.replace(path)


def write_whole(path: Path, text: str) -> None:
    """Replace the file at once."""
    with drafted(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")
