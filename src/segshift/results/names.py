"""Names from data as names of files."""

import hashlib

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
