"""NRRD and MetaImage (MHA, MHD) through SimpleITK, whose LPS millimetres become RAS.

SimpleITK is imported in here only when such a file is read: it takes a third of a second.
"""

import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort.images.header import DEFLATE_LIMIT, Header, check_claim
from segshift.errors import InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LOCK = threading.Lock()
_KEPT: list[int] = []  # the real stderr, then one entry for each thread that wants silence
NRRD = (".nrrd", ".nhdr")
SIZES = ("spacings", "space directions", "elementspacing", "elementsize")  # of voxels
LONGEST_FIELD = 500  # bytes of a header's line; directions in 4D take 400
LONGEST_NAME = 250
LONGEST_HEADER = 1 << 20  # bytes; NRRD key/value pairs of segmentations take some ten thousand


def read_header(path: Path) -> Header:
    """The header alone; refuses one that declares more than the file can hold."""
    reader = _reader(path)
    size = [int(n) for n in reader.GetSize()]
    kind = reader.GetPixelID()
    import SimpleITK as sitk  # noqa: N813

    name = sitk.GetPixelIDValueAsString(kind)
    bits = re.search(r"(\d+)-bit", name)
    if not bits or "complex" in name or len(size) not in (2, 3, 4):
        raise InputError(
            f"{path}: {len(size)}D with voxels of {name}; 2D, 3D and 3D+channel images of real "
            "numbers are read"
        )
    components = int(reader.GetNumberOfComponents())
    claimed = components * int(bits[1]) // 8
    for extent in size:
        claimed *= extent
    held, expansion, _ = _held(path)
    check_claim(path, claimed_bytes=claimed, held_bytes=held, expansion=expansion)
    if len(size) == 4 and components > 1:
        raise InputError(f"{path}: a time series of vectors; save one volume a file")
    i, j, k = (*size, 1)[:3]
    affine = LPS_TO_RAS @ _lps_affine(reader, len(size))
    channels = size[3] if len(size) == 4 else components
    return Header((i, j, k), channels, affine, spacing_known=_states_size(path))


def read_voxels(path: Path) -> np.ndarray:
    """(i, j, k, C) in the file's own dtype."""
    import SimpleITK as sitk  # noqa: N813

    header = read_header(path)
    reader = _reader(path)
    with _silence():
        array = np.asarray(sitk.GetArrayFromImage(reader.Execute()))
    i, j, k = header.shape
    if int(reader.GetNumberOfComponents()) > 1:
        return array.reshape(k, j, i, header.channels).transpose(2, 1, 0, 3)
    return array.reshape(header.channels, k, j, i).transpose(3, 2, 1, 0)


def write_label(path: Path, voxels: np.ndarray, header: Header, *, like: Path) -> None:
    """Write (i, j, k), compressed, with the origin, spacing and direction of `like`."""
    import SimpleITK as sitk  # noqa: N813

    reader = _reader(like)
    dimension = min(int(reader.GetDimension()), 3)
    array = np.ascontiguousarray(voxels.transpose(2, 1, 0))
    image = sitk.GetImageFromArray(array[0] if dimension == 2 else array)
    whole = int(reader.GetDimension())
    direction = np.reshape(reader.GetDirection(), (whole, whole))[:dimension, :dimension]
    image.SetSpacing(list(reader.GetSpacing())[:dimension])
    image.SetOrigin(list(reader.GetOrigin())[:dimension])
    image.SetDirection([float(value) for value in direction.ravel()])
    sitk.WriteImage(image, str(path), useCompression=True)


def _reader(path: Path) -> Any:  # noqa: ANN401
    """A reader whose header is read."""
    import SimpleITK as sitk  # noqa: N813

    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() in NRRD else "MetaImageIO")
    reader.SetFileName(str(path))
    _check_fields(path)
    _held(path)  # before ITK follows the header to another file
    with _silence():
        reader.ReadImageInformation()
    return reader


def _check_fields(path: Path) -> None:
    """Refuse a header with a field that ITK cannot take without a segmentation fault.

    Its readers copy wrong fields into buffers of a thousand bytes, a MetaImage's name into one of
    256, and believe any number of dimensions. Comments and NRRD's key:=value pairs may be long.
    """
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    nrrd = path.suffix.lower() in NRRD
    end = rb"\r?\n\r?\n" if nrrd else rb"(?im)^ElementDataFile[^\n]*\n?"
    for line in re.split(end, head, maxsplit=1)[0].splitlines():
        free = nrrd and (line.startswith(b"#") or b":=" in line.split(b": ")[0])
        dimensions = re.match(rb"\s*NDims\s*[=:]\s*(.*)", line)
        odd = dimensions and not nrrd and dimensions[1].strip() not in (b"2", b"3", b"4")
        named = not nrrd and re.match(rb"\s*Name\b", line)
        if odd or (not free and len(line) > (LONGEST_NAME if named else LONGEST_FIELD)):
            raise InputError(
                f"{path}: truncated or unreadable (a header field of {len(line)} bytes begins "
                f"{line[:40].decode('latin-1')!r})"
            )


@contextmanager
def _silence() -> Iterator[None]:
    """No output on stderr, where MetaIO writes about damaged files past ITK's own switch."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    with _LOCK:  # the first thread in redirects, the last one out restores
        if not _KEPT:
            _KEPT.append(os.dup(2))
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 2)
            os.close(nowhere)
        _KEPT.append(-1)
    try:
        yield
    finally:
        with _LOCK:
            _KEPT.pop()
            if len(_KEPT) == 1:
                kept = _KEPT.pop()
                os.dup2(kept, 2)
                os.close(kept)


def _lps_affine(reader: Any, dimension: int) -> np.ndarray:  # noqa: ANN401
    """(4, 4) from (i, j, k) to LPS mm; a missing third axis has 1 mm, a fourth is dropped."""
    affine, n = np.eye(4), min(dimension, 3)
    direction = np.reshape(reader.GetDirection(), (dimension, dimension))[:n, :n]
    affine[:n, :n] = direction * np.asarray(reader.GetSpacing())[:n]
    affine[:n, 3] = reader.GetOrigin()[:n]
    return affine


def _states_size(path: Path) -> bool:
    """Whether the header has a field with the voxel size.

    NRRD writes NaN or none for an axis that has none, as that of channels.
    """
    fields, _ = _fields(path)
    axes = re.findall(r"\([^)]*\)|\S+", " ".join(fields.get(name, "") for name in SIZES).lower())
    return len([axis for axis in axes if "nan" not in axis and axis != "none"]) > 1


def files_of(path: Path) -> tuple[Path, ...]:
    """The header's file, and that of the voxels where they lie in one of their own."""
    _, _, data = _held(path)
    return (path,) if data is None else (path, data)


def _held(path: Path) -> tuple[int, float, Path | None]:
    """How many bytes of voxels are stored, how many each may stand for, and a file of their own."""
    nrrd = path.suffix.lower() in NRRD
    fields, end = _fields(path)
    data = fields.get("data file" if nrrd else "elementdatafile") or fields.get("datafile", "LOCAL")
    held = path.stat().st_size - end
    file_of_data = None
    if data.upper() != "LOCAL":
        file_of_data = (path.parent / data).resolve()
        if not file_of_data.is_relative_to(path.parent.resolve()) or not file_of_data.is_file():
            raise InputError(
                f"{path}: its voxels should lie in {data!r}, which is no single file in the same "
                "folder; put it there or convert to one file (.nrrd, .mha)"
            )
        held = file_of_data.stat().st_size
    zipped = fields.get("compresseddata", "").lower() == "true"
    encoding = fields.get("encoding", "raw").lower()
    if zipped or encoding in ("gz", "gzip", "bz2", "bzip2"):
        return held, DEFLATE_LIMIT, file_of_data
    # As text, a number takes at least a digit and a space, and at most eight bytes as binary.
    return held, 1 if encoding == "raw" else 4, file_of_data


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """The header's fields by their names in small letters, and where it ends; 0 if nowhere."""
    with path.open("rb") as file:
        head = file.read(LONGEST_HEADER)
    nrrd = path.suffix.lower() in NRRD
    end = re.search(rb"\r?\n\r?\n" if nrrd else rb"(?im)^ElementDataFile[^\n]*\n?", head)
    text = head[: end.end() if end else len(head)].decode("latin-1")
    found = re.findall(r"(?m)^([\w ]+?)\s*[:=]\s*(.*?)\r?$", text)
    return {key.strip().lower(): value.strip() for key, value in found}, end.end() if end else 0
