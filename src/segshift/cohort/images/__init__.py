"""Image files to arrays in one convention: axes (channel, z, y, x), RAS orientation, mm.

NIfTI, NRRD, MetaImage, PNG, JPEG, BMP, TIFF and folders of DICOM slices. A 2D image is a volume of
one slice; where a file states no voxel size it is unknown, and 1 stands for it. `save_label`,
`save_map` and `save_segmentation` go the way back.
"""

import hashlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segshift.cohort.images import itk, nifti, pictures, segmentation_object, series
from segshift.cohort.images.header import (
    Geometry,
    Header,
    check_header,
    from_ras,
    geometry_of,
    naming,
    to_ras,
)
from segshift.errors import InputError

__all__ = [
    "LABEL_SUFFIXES",
    "SUFFIXES",
    "Geometry",
    "image_files",
    "is_dicom",
    "label_suffix",
    "read_geometry",
    "read_image",
    "read_label",
    "save_label",
    "save_map",
    "save_segmentation",
    "voxel_hash",
]


@dataclass(frozen=True, slots=True)
class _Format:
    """How the files of one kind are read, and the suffix of labels that go with them."""

    read_header: Callable[[Path], Header]
    read_voxels: Callable[[Path], np.ndarray]
    label_suffix: str


_NIFTI = _Format(nifti.read_header, nifti.read_voxels, ".nii.gz")
_NRRD = _Format(itk.read_header, itk.read_voxels, ".nrrd")
_META = _Format(itk.read_header, itk.read_voxels, ".mha")
_PICTURE = _Format(pictures.read_header, pictures.read_voxels, ".png")  # labels are never lossy
_TIFF = _Format(pictures.read_header, pictures.read_voxels, ".tif")
_DICOM = _Format(series.read_header, series.read_voxels, ".nii.gz")

_FORMATS = {
    ".nii.gz": _NIFTI,
    ".nii": _NIFTI,
    ".nrrd": _NRRD,
    ".nhdr": _NRRD,
    ".mha": _META,
    ".mhd": _META,
    ".png": _PICTURE,
    ".jpg": _PICTURE,
    ".jpeg": _PICTURE,
    ".bmp": _PICTURE,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    **dict.fromkeys(series.SUFFIXES, _DICOM),
}
_WRITERS = {
    ".nii.gz": nifti.write_label,
    ".nrrd": itk.write_label,
    ".mha": itk.write_label,
    ".png": pictures.write_label,
    ".tif": pictures.write_label,
}
SUFFIXES = tuple(_FORMATS)
LABEL_SUFFIXES = tuple(_WRITERS)
MAP_SUFFIX = ".nii.gz"  # of every image's maps: the other formats do not all hold real numbers


def read_geometry(path: Path) -> Geometry:
    """Read the header alone. Raises InputError for a missing, unreadable or unknown file."""
    with naming(path):
        return geometry_of(check_header(_format(path).read_header(path), path))


def read_image(path: Path) -> np.ndarray:
    """Read intensities as float32 (C, D, H, W). Raises InputError for a broken file."""
    with naming(path):
        return np.ascontiguousarray(_voxels(path), dtype=np.float32)


def read_label(path: Path) -> np.ndarray:
    """Read integer label values as int32 (D, H, W). Raises InputError if they are no integers."""
    with naming(path):
        values = _voxels(path)
        if len(values) != 1:
            raise InputError(f"{path}: a label needs one channel, this file has {len(values)}")
        label = values[0].astype(np.int32)
        odd = values[0][label != values[0]]
        if len(odd):
            raise InputError(
                f"{path}: label values must be whole numbers below 2^31, found {odd[0]}"
            )
        return np.ascontiguousarray(label)


def voxel_hash(voxels: np.ndarray) -> str:
    """A hash of numbers (..., H, W) and of their shape, of 32 hex digits; no file or type counts.

    So an image is known whatever its container, and whatever spacing its header claims.
    """
    digest = hashlib.sha256(repr(voxels.shape).encode())
    for plane in voxels.reshape(-1, *voxels.shape[-2:]):  # a copy of one plane at a time
        digest.update(np.add(plane, 0, dtype=np.float32, order="C").data)  # -0 + 0 is 0
    return digest.hexdigest()[:32]


def label_suffix(like: Path) -> str:
    """The suffix of a label beside the image `like`: its format, or the lossless one nearest."""
    return _format(like).label_suffix


def save_label(path: Path, label: np.ndarray, *, like: Path) -> None:
    """Write a label (D, H, W) in RAS as the file beside the image `like`: its axes and affine.

    `path` ends in `label_suffix(like)`. The file appears whole or not at all.
    """
    suffix = label_suffix(like)
    if not path.name.endswith(suffix):
        raise InputError(f"{path}: a label for {like} should be named *{suffix}")
    header = _header_for(path, label.shape, like)
    kind = np.min_scalar_type(int(label.max(initial=0)))
    stored = np.int32 if int(label.min(initial=0)) < 0 or kind.itemsize > 2 else kind
    voxels = np.ascontiguousarray(from_ras(label, header).astype(stored))
    with _appearing(path) as draft:
        _WRITERS[suffix](draft, voxels, header, like=like)


def save_map(path: Path, values: np.ndarray, *, like: Path) -> None:
    """Write real numbers (D, H, W) in RAS, such as probabilities, as NIfTI in float32.

    They lie where the image `like` lies, whatever its format. The file appears whole or not at all.
    """
    if not path.name.endswith(MAP_SUFFIX):
        raise InputError(f"{path}: a map should be named *{MAP_SUFFIX}")
    header = _header_for(path, values.shape, like)
    with _appearing(path) as draft:
        voxels = from_ras(values, header).astype(np.float32)
        nifti.write_label(draft, voxels, header, like=like)


def save_segmentation(
    path: Path, masks: Iterable[np.ndarray], *, names: Sequence[str], like: Path, software: str
) -> None:
    """Write a DICOM Segmentation of the series `like`: a segment for each mask (D, H, W) in RAS.

    Masks may overlap, and are taken one by one. `software` is recorded as what made them, as `name
    version`. The file appears whole or not at all. Raises InputError if `like` is no series.
    """
    if not is_dicom(like):
        raise InputError(f"{path}: a DICOM Segmentation needs a DICOM series, {like} is none")
    masks = iter(masks)
    first = next(masks)
    header = _header_for(path, first.shape, like)
    stored = (from_ras(mask, header) for mask in itertools.chain([first], masks))
    with _appearing(path) as draft:
        segmentation_object.write(draft, stored, names=names, like=like, software=software)


def is_dicom(path: Path) -> bool:
    """Whether an image is a DICOM series. Raises InputError for an unknown format."""
    return _format(path) is _DICOM


def _header_for(path: Path, shape: tuple[int, ...], like: Path) -> Header:
    """The header of the image `like`, whose shape (z, y, x) what goes into `path` must have."""
    with naming(like):
        header = check_header(_format(like).read_header(like), like)
    wanted = geometry_of(header).shape
    if shape != wanted:
        raise InputError(
            f"{path}: the label has shape {shape} (z, y, x), the image {like} has {wanted}"
        )
    return header


@contextmanager
def _appearing(path: Path) -> Iterator[Path]:
    """A file to write that takes its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def image_files(path: Path) -> tuple[Path, ...]:
    """The files an image consists of, for hashing its content: itself, or a series' slices."""
    with naming(path):
        if _format(path) is _DICOM:
            return tuple(file for file, _ in series.slices_of(path))
        if path.suffix.lower() in (".nrrd", ".nhdr", ".mha", ".mhd"):
            return itk.files_of(path)
        return (path,)


def _format(path: Path) -> _Format:
    if path.is_dir():
        return _DICOM
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    name = path.name.lower()
    for suffix, form in _FORMATS.items():
        if name.endswith(suffix):
            return form
    if series.is_slice(path):
        return _DICOM
    raise InputError(f"{path}: unknown format; known are {', '.join(SUFFIXES)}, DICOM folders")


def _voxels(path: Path) -> np.ndarray:
    """(C, D, H, W) in the file's own dtype (scaled where the header says so)."""
    form = _format(path)
    header = check_header(form.read_header(path), path)
    return to_ras(form.read_voxels(path), header)
