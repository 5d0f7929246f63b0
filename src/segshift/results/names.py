"""Names from data as names of files."""

import hashlib
from pathlib import Path

LONGEST_BYTES = 180  # a file's name has at most 255, with what is put around this one


def file_name(name: str) -> str:
    """`name` with every character but letters, digits and - _ . + replaced by _, and not too long.

    A name that had to be changed gets a few digits of its hash behind it, so that no two names
    share a file, and no name leads out of its folder.
    """
    known = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)
    safe = known.encode()[:LONGEST_BYTES].decode(errors="ignore")
    if safe == name and name.strip("."):
        return name
    return f"{safe.strip('.')}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def slice_folder(folder: Path, set_: str, corruption: str = "", severity: int = 0) -> Path:
    """Where the run in `folder` keeps the slices of a set, of corrupted images apart."""
    of_set = folder / "figures" / "slices" / file_name(set_)
    return of_set / f"{corruption}-{severity}" if corruption else of_set


def set_label(set_: str, corruption: str = "", severity: int = 0) -> str:
    """A set as people read it: in_domain; in_domain, noise 3."""
    return f"{set_}, {corruption} {severity}" if corruption else set_
