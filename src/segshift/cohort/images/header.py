"""What a file's header says, as stored and in the one convention: (C, z, y, x), RAS, mm.

Every format gives a `Header` and voxels (i, j, k, C) in the file's own order; turning them is
done here, once, and undone here for what is written.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel.orientations import (
    apply_orientation,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from segshift.errors import ClaimError, InputError

# No deflate stream expands further: 1032 (zlib's technical details), and a little for the header.
DEFLATE_LIMIT = 1100
SMALLEST_VOXEL_MM = 1e-8  # a tenth of an atom; less is a damaged header
LEAST_VOLUME = 1e-4  # of the cube that voxels of the same edges would fill; flat affines have none
RAS = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a header says: channels, shape in voxels (z, y, x), spacing_mm (z, y, x), RAS affine.

    Where nobody stated a spacing it is not known: then `spacing_mm` is nominal, 1 for a voxel.
    """

    channels: int
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    affine: tuple[tuple[float, ...], ...]
    spacing_known: bool = True

    @property
    def known_mm(self) -> tuple[float, ...] | None:
        """The spacing, or None where nobody stated it: for whoever measures."""
        return self.spacing_mm if self.spacing_known else None


@dataclass(frozen=True, slots=True)
class Header:
    """A file as it is stored: shape (i, j, k), channels, affine (4, 4) from (i, j, k) to RAS mm.

    Of a file that states no voxel size the affine is one of 1 a voxel.
    """

    shape: tuple[int, int, int]
    channels: int
    affine: np.ndarray
    spacing_known: bool = True


def geometry_of(header: Header) -> Geometry:
    """The geometry after turning to RAS."""
    orientation = io_orientation(header.affine)
    ras = header.affine @ inv_ornt_aff(orientation, header.shape)
    order = np.argsort(orientation[:, 0])
    spacing = np.linalg.norm(ras[:3, :3], axis=0)
    return Geometry(
        channels=header.channels,
        shape=tuple(header.shape[i] for i in order)[::-1],
        spacing_mm=tuple(float(s) for s in spacing)[::-1],
        affine=tuple(tuple(float(v) for v in row) for row in ras),
        spacing_known=header.spacing_known,
    )


def to_ras(voxels: np.ndarray, header: Header) -> np.ndarray:
    """Stored voxels (i, j, k, C) as (C, D, H, W) in RAS."""
    turned = np.asarray(apply_orientation(voxels, io_orientation(header.affine)))
    return turned.transpose(3, 2, 1, 0)


def from_ras(label: np.ndarray, header: Header) -> np.ndarray:
    """A label (D, H, W) in RAS as (i, j, k) in the file's own order."""
    back = ornt_transform(RAS, io_orientation(header.affine))
    return np.asarray(apply_orientation(label.transpose(2, 1, 0), back))


def check_header(header: Header, path: Path) -> Header:
    """Refuse an empty image and an affine that is not finite or flat, at any voxel size."""
    if min(*header.shape, header.channels) < 1:
        raise InputError(
            f"{path}: the header says shape {header.shape} with {header.channels} channels; "
            "an image has at least one of each"
        )
    affine = header.affine
    edges_mm = np.linalg.norm(affine[:3, :3], axis=0)
    usable = bool(np.isfinite(affine).all() and edges_mm.min() > SMALLEST_VOXEL_MM)
    if not usable or abs(np.linalg.det(affine[:3, :3] / edges_mm)) < LEAST_VOLUME:
        raise InputError(f"{path}: the header's affine matrix is not usable: {affine.tolist()}")
    return header


def check_claim(path: Path, *, claimed_bytes: int, held_bytes: int, expansion: float = 1) -> None:
    """Refuse a header that declares more than the file can hold, before memory is allocated.

    `expansion` is how many bytes a stored byte may stand for: 1, or the compression's limit.
    Raises ClaimError.
    """
    if claimed_bytes > held_bytes * expansion:
        raise ClaimError(
            f"{path}: truncated or unreadable (the header declares {claimed_bytes} bytes of "
            f"voxels, but the {held_bytes} bytes stored cannot hold them); copy or export it again"
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises into an InputError that names the file.

    nibabel, zlib, NumPy, Pillow and ITK raise a dozen unrelated kinds on damaged bytes.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise InputError(f"{path}: truncated or unreadable ({reason})") from error
