"""Boxes of non-zero voxels that are found once: later plans decode no image.

A record lies beside the files' hashes, under a hash of the images' bytes, so it cannot be stale,
and `segshift cohort clean` removes it with them.
"""

import contextlib
import hashlib
import json
from pathlib import Path
from uuid import uuid4

from segshift.cohort import Case
from segshift.cohort.images import image_files
from segshift.data.content import HASHES, content_hash
from segshift.plan import Box, read_box

RECORDED = "box 1"  # raise it when a box, or how a file is read, changes


def stored_box(case: Case, *, store: Path) -> Box:
    """As `read_box`, from the store's record if there is one.

    A store is not made for it: a run that is refused after its plan leaves nothing behind.
    """
    if not store.is_dir():
        return read_box(case)
    record = store / HASHES / f"{_key(case, store)}.json"
    known = _remembered(record)
    if known is None:
        known = read_box(case)
        with contextlib.suppress(OSError):  # a store may be somebody else's, to read only
            _remember(record, known)
    return known


def _key(case: Case, store: Path) -> str:
    digest = hashlib.sha256(RECORDED.encode())
    for path in case.images:
        for file in image_files(path):
            digest.update(bytes.fromhex(content_hash(file, store=store)))
    return digest.hexdigest()[:32]


def _remembered(record: Path) -> Box | None:
    """None without a record or with a damaged one, which is then made anew."""
    try:
        box = json.loads(record.read_bytes())["box"]
        return tuple((int(low), int(high)) for low, high in box) if len(box) == 3 else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(record: Path, box: Box) -> None:
    record.parent.mkdir(parents=True, exist_ok=True)
    draft = record.with_name(f"{record.stem}.{uuid4().hex[:8]}.draft")
    draft.write_text(json.dumps({"box": box}), encoding="utf-8")
    draft.replace(record)
