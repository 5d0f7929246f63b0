"""In what the lengths and sizes of a case are measured: mm where its spacing is known, else pixels.

A picture's size is an area, a volume's a volume. Where nobody stated how large a voxel is, counts
of voxels and of voxel edges are all that can be told, and they are named so.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

NO_PHYSICAL_SIZE = "unknown: no physical size"  # in place of an answer that needs one


class Quantity(Enum):
    """What is measured in the units of a case: how far, or how much."""

    LENGTH = "length"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class Units:
    """Of a case: whether it is `flat`, one slice, and whether its spacing is `known`."""

    flat: bool = False
    known: bool = True

    @property
    def length(self) -> str:
        """Of distances; a px is the edge of a pixel or voxel."""
        return "mm" if self.known else "px"

    @property
    def size(self) -> str:
        """Of areas and volumes."""
        if self.known:
            return "mm2" if self.flat else "ml"
        return "px" if self.flat else "voxels"

    @property
    def small_size(self) -> str:
        """Of areas and volumes of a few voxels."""
        return "mm3" if self.size == "ml" else self.size

    @property
    def sized(self) -> str:
        """What a size is of: an area or a volume."""
        return "area" if self.flat else "volume"

    @property
    def size_name(self) -> str:
        """What a size is called in tables: `volume_ml`, `area_px`."""
        return f"{self.sized}_{self.size}"

    def of(self, quantity: Quantity) -> str:
        """The unit of a quantity."""
        return self.length if quantity is Quantity.LENGTH else self.size


EVERY = tuple(Units(flat=flat, known=known) for known in (True, False) for flat in (False, True))
PHYSICAL = frozenset(unit for each in EVERY if each.known for unit in (each.length, each.size))
COUNTED = frozenset(unit for each in EVERY if not each.known for unit in (each.length, each.size))


@dataclass(frozen=True, slots=True)
class Grid:
    """The voxels of a case: shape (z, y, x) and `spacing_mm`, None where nobody stated it."""

    shape: Sequence[int]
    spacing_mm: Sequence[float] | None

    @property
    def units(self) -> Units:
        """What is measured on it: an axis of one voxel makes a picture."""
        return Units(flat=1 in self.shape, known=self.spacing_mm is not None)

    @property
    def edges(self) -> tuple[float, ...]:
        """Of a voxel (z, y, x) in the unit of lengths: mm, or 1 px each."""
        return tuple(self.spacing_mm) if self.spacing_mm is not None else (1.0, 1.0, 1.0)

    @property
    def voxel(self) -> float:
        """What a voxel measures in the unit of small sizes; a picture's thickness is left out."""
        edges = list(self.edges)
        if self.units.flat:
            edges.pop(list(self.shape).index(1))
        return math.prod(edges)

    def size(self, voxels: float) -> float:
        """What so many voxels measure in the unit of sizes."""
        return voxels * self.voxel / (1000 if self.units.size == "ml" else 1)


def mixed_told(known: Mapping[str, Sequence[bool]]) -> str:
    """A sentence where the spacing of some cases is known and that of others is not, else "".

    `known` says so of each case of a site or set, by its name.
    """
    every = [one for own in known.values() for one in own]
    if all(every) or not any(every):
        return ""
    where = ", ".join(
        f"{name} {len(own) - sum(own)} of {len(own)}" for name, own in known.items() if not all(own)
    )
    return (
        f"no physical size: {where} cases; their lengths and sizes are in pixels, the others' in "
        "mm, and no mean is of both"
    )
