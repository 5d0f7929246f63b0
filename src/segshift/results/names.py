"""Names from data as names of files."""


def file_name(name: str) -> str:
    """`name` with every character but letters, digits and - _ . + replaced by _.

    An empty name and one of dots alone get a _ in front: they would mean a folder, not a file in
    it. Different names can become the same, so a file must not be the only place of its name.
    """
    safe = "".join(c if c.isalnum() or c in "-_.+" else "_" for c in name)
    return safe if safe.strip(".") else f"_{safe}"
