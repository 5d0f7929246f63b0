"""NIfTI through nibabel, plain or gzipped; a fourth axis holds channels."""

import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from segshift.cohort.images.header import DEFLATE_LIMIT, Header, check_claim
from segshift.errors import InputError

# Its notes on headers that it mends would land among the output; what it cannot mend raises.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def read_header(path: Path) -> Header:
    """The header alone; refuses one that declares more than the file can hold."""
    image = nib.load(path)
    shape = tuple(int(n) for n in image.shape)
    if len(shape) not in (2, 3, 4) or min(shape, default=0) < 1:
        raise InputError(f"{path}: expected a 2D, 3D or 3D+channel image, found shape {shape}")
    dtype = image.get_data_dtype()
    if dtype.kind not in "biuf":
        raise InputError(f"{path}: voxels are {dtype}; only real numbers are read, one per voxel")
    claimed = dtype.itemsize
    for size in shape:
        claimed *= size
    offset = int(image.dataobj.offset)
    zipped = path.name.lower().endswith(".gz")
    check_claim(
        path,
        claimed_bytes=offset + claimed,
        held_bytes=path.stat().st_size,
        expansion=DEFLATE_LIMIT if zipped else 1,
    )
    i, j, k = (*shape, 1)[:3]
    channels = shape[3] if len(shape) == 4 else 1
    affine = np.asarray(image.affine, dtype=np.float64)
    return Header((i, j, k), channels, affine, spacing_known=_states_size(image.header))


def _states_size(header: Any) -> bool:  # noqa: ANN401
    """Whether somebody filled in the voxel size: not where all that tells of it is as it began.

    Many files leave out the unit, which is mm all the same.
    """
    blank = not (header["qform_code"] or header["sform_code"])
    edges = header.get_zooms()[:3]
    return not (blank and header.get_xyzt_units()[0] == "unknown" and all(e == 1 for e in edges))


def read_voxels(path: Path) -> np.ndarray:
    """(i, j, k, C), scaled where the header says so."""
    header, image = read_header(path), nib.load(path)
    voxels: np.ndarray = np.asanyarray(image.dataobj)
    return voxels.reshape(*header.shape, header.channels)


def write_label(path: Path, voxels: np.ndarray, header: Header, *, like: Path) -> None:
    """Write (i, j, k) with the affine and, where `like` is NIfTI, its codes, units and axes."""
    image = nib.Nifti1Image(voxels, header.affine)
    image.header.set_xyzt_units("mm")
    codes = {"qform": 1, "sform": 1}  # scanner coordinates, as DICOM has them
    if like.is_file() and like.name.lower().endswith((".nii", ".nii.gz")):
        source = nib.load(like)
        codes = {name: int(source.header[f"{name}_code"]) for name in codes}
        if source.ndim == 2:
            image = nib.Nifti1Image(voxels[..., 0], header.affine)
        image.header.set_xyzt_units(*source.header.get_xyzt_units())
    if any(codes.values()):
        image.set_qform(header.affine if codes["qform"] else None, codes["qform"])
        # Of the two, readers take the sform: it alone holds every affine exactly.
        image.set_sform(header.affine, codes["sform"] or codes["qform"])
    else:  # as the image, whose place its voxel size and shape alone tell
        image.set_qform(None, 0)
        image.set_sform(None, 0)
    nib.save(image, path)
