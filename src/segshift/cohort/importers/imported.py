"""What an importer returns, and the names that it makes from other people's."""

import re
from collections.abc import Callable
from typing import NamedTuple

from segshift.cohort.case import Case
from segshift.cohort.labelling import NONZERO, Values
from segshift.errors import InputError

RESERVED = ("id", "patient", "site", "image", "label", "structures")

# Takes a line that the user should read, such as what was left out.
Tell = Callable[[str], object]


class Imported(NamedTuple):
    """Cases with the names of their channels and structures, as `write_manifest` takes them."""

    cases: tuple[Case, ...]
    channels: tuple[str, ...]
    structures: tuple[str, ...]


def word(name: str) -> str:
    """One lower-case word, fit for a metric key, a file name and the manifest."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "unnamed"


def column(name: str) -> str:
    """A tag's column: one word that is none of the manifest's own columns."""
    name = word(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name))
    return f"original_{name}" if name.split("_")[0] in RESERVED else name


def parse_structures(text: str) -> dict[str, Values]:
    """`liver=1 kidney=2` or `nucleus=nonzero` as a mapping. Raises InputError if it is neither."""
    try:
        pairs = [pair.split("=") for pair in text.split()]
        found: dict[str, Values] = {
            name: () if value == NONZERO else int(value) for name, value in pairs
        }
    except ValueError as error:
        raise InputError(
            f"--structures {text!r} should read like 'liver=1 kidney=2' or 'nucleus=nonzero'"
        ) from error
    values = list(found.values())
    alone = () not in values or len(values) == 1
    low = any(isinstance(value, int) and value < 1 for value in values)
    if not values or not alone or low or len(set(values)) < len(pairs):
        raise InputError(
            f"--structures {text!r}: each structure needs a value of its own, from 1 upwards"
        )
    return found
