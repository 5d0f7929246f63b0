"""Image files to arrays in one convention: axes (channel, z, y, x), RAS orientation, mm.

NIfTI through nibabel, PNG and TIFF through Pillow. A 2D image is a volume of one slice; formats
that carry no voxel size get 1 mm.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from PIL import Image

from segshift.errors import InputError

PICTURES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")
VOLUMES = (".nii", ".nii.gz")


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a header says: channels, shape in voxels (z, y, x), spacing_mm (z, y, x), RAS affine."""

    channels: int
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    affine: tuple[tuple[float, ...], ...]


def read_geometry(path: Path) -> Geometry:
    """Read the header alone. Raises InputError for a missing, unreadable or unknown file."""
    with _naming(path):
        return _geometry(_opened(path), path)


def read_image(path: Path) -> np.ndarray:
    """Read intensities as float32 (C, D, H, W). Raises InputError for a broken file."""
    with _naming(path):
        return np.ascontiguousarray(_voxels(path), dtype=np.float32)


def read_label(path: Path) -> np.ndarray:
    """Read integer label values as int32 (D, H, W). Raises InputError if they are no integers."""
    with _naming(path):
        values = _voxels(path)
        if len(values) != 1:
            raise InputError(f"{path}: a label needs one channel, this file has {len(values)}")
        label = values[0].astype(np.int32)
        odd = values[0][label != values[0]]
        if len(odd):
            raise InputError(f"{path}: label values must be whole numbers, found {odd[0]}")
        return np.ascontiguousarray(label)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turn whatever a reader raises into an InputError that names the file.

    nibabel, zlib, NumPy and Pillow raise a dozen unrelated kinds on damaged bytes.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: truncated or unreadable ({error})") from error


def _opened(path: Path) -> nib.nifti1.Nifti1Image | Image.Image:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    name = path.name.lower()
    if name.endswith(VOLUMES):
        return nib.load(path)
    if name.endswith(PICTURES):
        picture = Image.open(path)
        pages = getattr(picture, "n_frames", 1)
        if pages > 1:
            raise InputError(f"{path}: {pages} pages in one file; give volumes as NIfTI")
        return picture
    raise InputError(f"{path}: unknown format; known are {', '.join(VOLUMES + PICTURES)}")


def _geometry(image: nib.nifti1.Nifti1Image | Image.Image, path: Path) -> Geometry:
    if isinstance(image, Image.Image):
        size = (1, image.height, image.width)
        channels = len(image.getbands()) - ("A" in image.getbands())
        return Geometry(channels, size, (1.0, 1.0, 1.0), _rows(np.eye(4)))
    shape: tuple[int, ...] = tuple(int(n) for n in image.shape)
    if len(shape) not in (2, 3, 4) or min(shape, default=0) < 1:
        raise InputError(f"{path}: expected a 2D, 3D or 3D+channel image, found shape {shape}")
    spatial = (*shape, 1)[:3] if len(shape) < 4 else shape[:3]
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise InputError(f"{path}: the header's affine matrix is not usable: {affine.tolist()}")
    orientation = io_orientation(affine)
    ras = affine @ inv_ornt_aff(orientation, spatial)
    order = np.argsort(orientation[:, 0])
    spacing = np.linalg.norm(ras[:3, :3], axis=0)
    return Geometry(
        channels=shape[3] if len(shape) == 4 else 1,
        shape=tuple(spatial[i] for i in order)[::-1],
        spacing_mm=tuple(float(s) for s in spacing)[::-1],
        affine=_rows(ras),
    )


def _voxels(path: Path) -> np.ndarray:
    """(C, D, H, W) in the file's own dtype (scaled where the header says so)."""
    image = _opened(path)
    if isinstance(image, Image.Image):
        array = np.asarray(image)
        array = array[..., None] if array.ndim == 2 else array
        # Transparency is not an intensity.
        return np.moveaxis(array, -1, 0)[: _geometry(image, path).channels, None]
    _geometry(image, path)
    voxels: np.ndarray = np.asanyarray(image.dataobj)
    voxels = voxels[..., None] if voxels.ndim == 2 else voxels
    voxels = np.asarray(apply_orientation(voxels, io_orientation(image.affine)))
    return voxels.transpose(3, 2, 1, 0) if voxels.ndim == 4 else voxels.transpose(2, 1, 0)[None]


def _rows(matrix: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(v) for v in row) for row in matrix)
