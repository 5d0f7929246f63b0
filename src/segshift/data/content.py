"""What a file holds, as a hash that is computed once: later runs compare size and times alone.

Each file has a record of its own below the store, written beside and renamed, so that runs may
share it. A record counts only for the very size and times that it was made for.
"""

import hashlib
import json
import os
import time
from pathlib import Path
from uuid import uuid4

HASHES = "hashes"  # the records' folder below the store
# The coarsest clock of a file system (FAT): a younger file may yet change unseen.
SETTLED_NS = 2 * 10**9


def content_hash(path: Path, *, store: Path) -> str:
    """SHA-256 of the file's bytes, in hex; read from the file only if it may have changed."""
    record = _record(path, store)
    before = _state(path)
    known = _remembered(record)
    if known is not None and known[0] == before:
        return known[1]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    settled = time.time_ns() - before[1] > SETTLED_NS
    if settled and _state(path) == before:
        _remember(record, before, digest)
    return digest


def _state(path: Path) -> list[int]:
    """Size, time of the last write, and time of the last change, which no user can set."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _record(path: Path, store: Path) -> Path:
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    return store / HASHES / f"{name}.json"


def _remembered(record: Path) -> tuple[list[int], str] | None:
    """State and hash; None without a record or with a damaged one, which is then made anew."""
    try:
        values = json.loads(record.read_bytes())
        state, digest = values["state"], values["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return (state, digest) if isinstance(digest, str) and len(digest) == 64 else None


def _remember(record: Path, state: list[int], digest: str) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    draft = record.with_name(f"{record.stem}.{uuid4().hex[:8]}.draft")
    draft.write_text(json.dumps({"state": state, "sha256": digest}), encoding="utf-8")
    draft.replace(record)
