"""A DICOM series: a folder of slices, or one of its files where the folder holds several series.

Through pydicom; compressed pixels through SimpleITK's GDCM. The rescale slope is applied. Slices
are sorted by their position, never by name or number.
"""

import mmap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort.images.header import DEFLATE_LIMIT, Header, check_claim
from segshift.errors import InputError

SAME = ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient")  # in all slices
# Little and big endian, deflated, and RLE; what pydicom reads without a further package.
PLAIN = (
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
)
SUFFIXES = (".dcm", ".ima", ".dicom")
STEP_TOLERANCE = 0.05  # of the distance between slices
TAGS = (
    "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "PatientID", "Modality",
    "InstitutionName", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
    "SpacingBetweenSlices", "RepetitionTime", "EchoTime", "MagneticFieldStrength", "Manufacturer",
    "ManufacturerModelName",
)  # fmt: skip


def is_slice(path: Path) -> bool:
    """Whether a file is DICOM by its marker after the preamble of 128 bytes."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def slices_of(path: Path) -> tuple[tuple[Path, Any], ...]:
    """The files of one series and their headers, sorted by position.

    Raises InputError for several series in a folder, gaps, doubles and mixed orientations.
    """
    folder = path if path.is_dir() else path.parent
    found = {file: read_tags(file) for file in sorted(folder.iterdir()) if is_slice(file)}
    if not found:
        raise InputError(f"{path}: no DICOM files in this folder; an image folder holds one series")
    if path.is_file():
        if path not in found:
            raise InputError(f"{path}: not a DICOM file (no DICM marker)")
        wanted = found[path].get("SeriesInstanceUID")
        found = {f: d for f, d in found.items() if d.get("SeriesInstanceUID") == wanted}
    series = sorted({str(tags.get("SeriesInstanceUID")) for tags in found.values()})
    if len(series) > 1:
        raise InputError(
            f"{path}: {len(series)} series in one folder ({', '.join(series[:3])}, ...); name one "
            "file of the series to use in its place, as `segshift cohort import dicom` does"
        )
    return _sorted(path, found)


def read_header(path: Path) -> Header:
    """The headers of all slices."""
    slices = slices_of(path)
    for file, tags in slices:
        syntax = tags.file_meta.TransferSyntaxUID
        compressed = syntax.is_encapsulated or syntax.is_deflated
        claimed = int(tags.Rows) * int(tags.Columns) * int(tags.get("SamplesPerPixel", 1))
        check_claim(
            file,
            claimed_bytes=claimed * int(tags.BitsAllocated) // 8,
            held_bytes=file.stat().st_size,
            expansion=DEFLATE_LIMIT if compressed else 1,
        )
    tags = slices[0][1]
    positions = np.array([each.ImagePositionPatient for _, each in slices], dtype=np.float64)
    row, column, normal = _directions(tags)
    between_rows, between_columns = (float(value) for value in tags.PixelSpacing)
    if len(slices) > 1:
        step = (positions[-1] - positions[0]) / (len(slices) - 1)
    else:
        thickness = tags.get("SpacingBetweenSlices") or tags.get("SliceThickness") or 1.0
        step = normal * float(thickness)
    affine = np.eye(4)
    affine[:3, :3] = np.column_stack([row * between_columns, column * between_rows, step])
    affine[:3, 3] = positions[0]
    shape = (int(tags.Columns), int(tags.Rows), len(slices))
    return Header(
        shape, int(tags.get("SamplesPerPixel", 1)), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    )


def read_voxels(path: Path) -> np.ndarray:
    """(i, j, k, C), rescaled to the modality's units."""
    header = read_header(path)
    columns, rows, _ = header.shape
    planes = [
        _decoded(file) if tags.file_meta.TransferSyntaxUID not in PLAIN else _plain(file)
        for file, tags in slices_of(path)
    ]
    stack = np.stack([plane.reshape(rows, columns, header.channels) for plane in planes])
    return stack.transpose(2, 1, 0, 3)


def read_tags(file: Path) -> Any:  # noqa: ANN401
    """The tags of one file that are used here, without pixels."""
    import pydicom

    # Scanners break the standard's value rules all the time; what is used is checked here.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mapped(file) as content:
            return pydicom.dcmread(content, stop_before_pixels=True, specific_tags=list(TAGS))


@contextmanager
def mapped(file: Path) -> Iterator[Any]:
    """The file's bytes; of a damaged length no more are read than there are.

    An open file would set aside the gigabytes that a length of 0xFFFFFFFE asks for.
    """
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as map_:
        yield map_


def _plain(file: Path) -> np.ndarray:
    """Pixels stored plainly. GDCM would believe a damaged length and take gigabytes."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with mapped(file) as content:
            one = pydicom.dcmread(content)
        pixels = one.pixel_array
    slope = float(one.get("RescaleSlope") or 1)
    return np.asarray(pixels * slope + float(one.get("RescaleIntercept") or 0))


def _decoded(file: Path) -> np.ndarray:
    """Compressed pixels (JPEG and its kind)."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO")))


def _directions(tags: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # noqa: ANN401
    """Unit vectors in LPS along a row, along a column, and across the slices."""
    cosines = np.array(tags.ImageOrientationPatient, dtype=np.float64)
    return cosines[:3], cosines[3:], np.cross(cosines[:3], cosines[3:])


def _sorted(path: Path, found: dict[Path, Any]) -> tuple[tuple[Path, Any], ...]:
    needed = ("BitsAllocated", "ImagePositionPatient", *SAME)
    for file, tags in found.items():
        missing = [name for name in needed if tags.get(name) in (None, "")]
        if missing or int(tags.get("NumberOfFrames") or 1) > 1:
            what = f"lacks {missing}" if missing else "holds several frames"
            raise InputError(f"{file}: {what}; convert this series to NIfTI, with dcm2niix say")
    first = next(iter(found.values()))
    for file, tags in found.items():
        for name in SAME:
            if not np.allclose(
                np.array(tags[name].value, float), np.array(first[name].value, float), atol=1e-3
            ):
                raise InputError(
                    f"{file}: {name} is {tags[name].value}, other slices of {path} have "
                    f"{first[name].value}; a localizer or a mixed series is no volume"
                )
    normal = _directions(first)[2]
    at = {
        f: float(np.dot(normal, np.array(d.ImagePositionPatient, float))) for f, d in found.items()
    }
    files = sorted(found, key=lambda file: at[file])
    steps = np.diff([at[file] for file in files])
    usual = float(np.median(steps)) if len(steps) else 1.0
    for before, after, step in zip(files, files[1:], steps, strict=False):
        if usual <= 0 or abs(step - usual) > STEP_TOLERANCE * usual:
            raise InputError(
                f"{path}: slices {before.name} and {after.name} are {step:.3g} mm apart, the "
                f"others {usual:.3g} mm: a slice is missing or doubled; export the series again"
            )
    return tuple((file, found[file]) for file in files)
