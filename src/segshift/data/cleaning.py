"""The store's size, and how it becomes smaller. Needs no torch.

Only what has the name and the files of an entry, a draft or a hash record is touched: a wrong
folder loses nothing.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segshift.data.content import HASHES
from segshift.errors import InputError

ENTRY = re.compile(r"[0-9a-f]{32}")
DRAFT = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{1,8}\.draft")  # a process number in older stores
RECORD = re.compile(r"[0-9a-f]{32}(\.json|\.[0-9a-f]{8}\.draft)")
CONTENT = {"image.npy", "label.npy", "reference.npy", "landmarks.npy", "meta.json"}
OF_SOME = {"raters.npy", "raw.npy", "maps.npy"}  # of cases with several raters, and under shifts
LIVE_HOURS = 1.0  # a younger draft may be another run's, at work on it


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of a store: entries are whole cases, drafts what a killed run left."""

    entries: int
    drafts: int
    bytes: int

    def __str__(self) -> str:
        """In words, for people."""
        drafts = f" and {self.drafts} draft(s)" if self.drafts else ""
        return f"{self.entries} case(s){drafts}, {_in_words(self.bytes)}"


def _in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def store_size(folder: Path) -> Sizes:
    """What a store holds; nothing where there is none."""
    return _sizes(list(_parts(folder)))


def clean(folder: Path, *, older_than_days: float = 0, dry_run: bool = False) -> Sizes:
    """Remove entries that no run has used for so long, and drafts; returns what went.

    Drafts of the last hour stay, because a run may be writing them. With `dry_run` nothing goes.
    Raises InputError if there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"there is no store at {folder}")
    if not older_than_days >= 0:
        raise InputError(f"--older-than {older_than_days}: a number of days from 0 upwards")
    now = time.time()
    doomed = [
        part
        for part in _parts(folder)
        if now - _last_used(part)
        >= max(older_than_days * 86400, LIVE_HOURS * 3600 if DRAFT.fullmatch(part.name) else 0)
    ]
    sizes = _sizes(doomed)
    if not dry_run:
        for part in doomed:
            _remove(part)
        _forget(folder / HASHES, now - older_than_days * 86400)
    return sizes


def _parts(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        for part in sorted(folder.iterdir()):
            named = ENTRY.fullmatch(part.name) or DRAFT.fullmatch(part.name)
            if named and part.is_dir() and not part.is_symlink() and _is_ours(part):
                yield part


def _is_ours(part: Path) -> bool:
    """Whether a folder holds nothing but what the store writes; an entry has all of `CONTENT`."""
    names = {path.name for path in part.iterdir()} - OF_SOME
    return names == CONTENT if ENTRY.fullmatch(part.name) else names <= CONTENT


def _last_used(part: Path) -> float:
    """Seconds since 1970: runs touch an entry's meta.json; 0 where another run removed it."""
    for path in (part / "meta.json", part):
        try:
            return path.stat().st_mtime
        except OSError:
            continue
    return 0.0


def _sizes(parts: list[Path]) -> Sizes:
    drafts = sum(DRAFT.fullmatch(part.name) is not None for part in parts)
    total = 0
    for part in parts:
        for file in part.glob("*"):
            try:
                total += file.stat().st_size
            except OSError:  # another run moved it on
                continue
    return Sizes(len(parts) - drafts, drafts, total)


def _remove(part: Path) -> None:
    """As a draft first: removing takes several steps, and half an entry must never be read."""
    draft = part
    if ENTRY.fullmatch(part.name):
        draft = part.with_name(f"{part.name}.0.draft")
        try:
            part.rename(draft)
        except OSError:  # another run removed it, or a draft of this name is left from before
            shutil.rmtree(draft, ignore_errors=True)
            if part.is_dir():
                part.rename(draft)
    shutil.rmtree(draft, ignore_errors=True)


def _forget(hashes: Path, before: float) -> None:
    for record in hashes.glob("*"):
        with contextlib.suppress(OSError):  # another run was faster
            if RECORD.fullmatch(record.name) and record.stat().st_mtime <= before:
                record.unlink(missing_ok=True)
