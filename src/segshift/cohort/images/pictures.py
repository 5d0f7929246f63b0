"""PNG, JPEG and BMP through Pillow, TIFF through tifffile: pages are slices, of unknown size.

Colours are channels, transparency is none. The formats' own resolution fields are left alone:
the dots per inch of a PNG, JPEG or TIFF say how large to print or show it (72, 96 and 300 are
defaults of cameras and editors), not how large the pictured thing is. What microscopes write
beside them is `declared_spacing_mm`; it is a case's, not a file's, as its labels seldom carry it.
"""

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageSequence

from segshift.cohort.images.header import DEFLATE_LIMIT, Header, check_claim, naming
from segshift.errors import ClaimError, InputError

if TYPE_CHECKING:
    import tifffile

# A constant image under LZW, whose longest code stands for 3838 bytes, shrinks a little further.
TIFF_LIMIT = 1400
TIFF = (".tif", ".tiff")
SUFFIXES = (*TIFF, ".png", ".jpg", ".jpeg", ".bmp")
# Units of length as OME, ImageJ and BIDS write them. Inches and centimetres are a printer's.
UNITS_MM = {"mm": 1.0, "nm": 1e-6} | dict.fromkeys(
    ("um", "\u00b5m", "\u03bcm", "\\u00B5m", "micron", "microns", "micrometer"), 1e-3
)

# Its warnings about odd tags would land among the output; what is unreadable raises.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def read_header(path: Path) -> Header:
    """The header alone; refuses one that declares more than the file can hold."""
    if path.suffix.lower() in TIFF:
        slices, height, width, channels = _tiff_header(path)
    else:
        with _opened(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            if pages > 1:
                raise InputError(f"{path}: {pages} pages in one file; give volumes as TIFF")
            bands = picture.getbands()
            slices, height, width = 1, picture.height, picture.width
            channels = len(bands) - ("A" in bands)
        check_claim(
            path,
            claimed_bytes=height * width * channels // 8,  # a bit per pixel is the least
            held_bytes=path.stat().st_size,
            expansion=DEFLATE_LIMIT,
        )
    return Header((width, height, slices), channels, np.eye(4), spacing_known=False)


def declared_spacing_mm(path: Path) -> tuple[float, float, float] | None:
    """Voxel size (z, y, x) by the metadata of OME-TIFF or ImageJ, if every axis has one.

    A single slice is as thick as its larger pixel edge, or as declared.
    """
    if path.suffix.lower() not in TIFF:
        return None
    import tifffile

    with naming(path), tifffile.TiffFile(path) as file:
        sizes = _ome_mm(str(file.ome_metadata)) if file.is_ome else _imagej_mm(file)
        slices = _sizes(path, file.series[0].axes, file.series[0].shape)["Z"]
    z, y, x = (size if size > 0 and math.isfinite(size) else 0.0 for size in sizes)
    z = z or (max(y, x) if slices == 1 else 0.0)
    return (z, y, x) if z and y and x else None


def read_voxels(path: Path) -> np.ndarray:
    """(i, j, k, C) in the file's own dtype."""
    header = read_header(path)
    if path.suffix.lower() in TIFF:
        array = _tiff_pixels(path)  # (z, y, x, c)
    else:
        with Image.open(path) as picture:
            array = np.asarray(picture)[None]
        array = array[..., None] if array.ndim == 3 else array
    return array[..., : header.channels].transpose(2, 1, 0, 3)


def _opened(path: Path) -> Image.Image:
    """Pillow's picture, header alone; its own bound on the size comes before `check_claim`."""
    try:
        return Image.open(path)
    except Image.DecompressionBombError as error:
        raise ClaimError(f"{path}: {error}; save a picture of that size as TIFF") from error


def write_label(path: Path, voxels: np.ndarray, header: Header, *, like: Path) -> None:
    """Write (i, j, k), one page for each slice."""
    pages = voxels.transpose(2, 1, 0)
    if path.suffix.lower() in TIFF:
        import tifffile

        pages = pages[0] if len(pages) == 1 else pages
        tifffile.imwrite(path, pages, photometric="minisblack", compression="zlib")
        return
    if len(pages) != 1 or voxels.dtype.itemsize > 2:
        raise InputError(
            f"{path}: PNG holds one slice of values up to 65535, this label has {len(pages)} "
            f"slices of {voxels.dtype}; use TIFF images"
        )
    Image.fromarray(np.ascontiguousarray(pages[0])).save(path)


def _ome_mm(text: str) -> list[float]:
    """Edges (z, y, x), 0 where nothing is said; the unit that OME leaves out is the micrometre."""
    found = (e.attrib for e in ElementTree.fromstring(text).iter() if e.tag.endswith("Pixels"))
    pixels: dict[str, str] = next(found, {})
    edges = []
    for axis in "ZYX":
        unit = pixels.get(f"PhysicalSize{axis}Unit", "um")
        edges.append(float(pixels.get(f"PhysicalSize{axis}", 0)) * UNITS_MM.get(unit, 0))
    return edges


def _imagej_mm(file: "tifffile.TiffFile") -> list[float]:
    """Edges (z, y, x), 0 where nothing is said; the resolutions are pixels for a unit."""
    about, tags = file.imagej_metadata or {}, file.pages[0].tags  # type: ignore[union-attr]
    unit = UNITS_MM.get(str(about.get("unit", "")), 0.0)
    edges = [abs(float(about.get("spacing", 0)))]
    for name in ("YResolution", "XResolution"):
        pixels, units = tags[name].value if name in tags else (0, 0)
        edges.append(units / pixels if pixels else 0.0)
    return [edge * unit for edge in edges]


def _tiff_header(path: Path) -> tuple[int, int, int, int]:
    """Slices, height, width, channels."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise InputError(
                f"{path}: {len(file.series)} images of different sizes in one TIFF; "
                "save the one to use alone"
            )
        series, page = file.series[0], file.pages[0]
        sizes = _sizes(path, series.axes, series.shape)
        raw = int(page.compression) == 1
        colours = 3 if int(page.photometric) in (2, 6) else sizes["C"]  # type: ignore[union-attr]
        bits = int(page.bitspersample)  # type: ignore[union-attr]
        claimed = int(np.prod([int(n) for n in series.shape], dtype=object)) * bits // 8
    check_claim(
        path,
        claimed_bytes=claimed,
        held_bytes=path.stat().st_size,
        expansion=1 if raw else TIFF_LIMIT,
    )
    return sizes["Z"], sizes["Y"], sizes["X"], min(sizes["C"], colours)


def _tiff_pixels(path: Path) -> np.ndarray:
    """(z, y, x, c); Pillow decodes what tifffile would need imagecodecs for (LZW, JPEG)."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes, shape = series.axes, series.shape
        try:
            array = series.asarray()
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            with Image.open(path) as picture:
                pages = [np.asarray(page) for page in ImageSequence.Iterator(picture)]
            array = np.stack(pages).reshape(shape)
    sizes = _sizes(path, axes, shape)
    kept = [(_role(axis), n) for axis, n in zip(axes, shape, strict=True) if n > 1]
    array = array.reshape([n for _, n in kept])
    order = [role for role, _ in kept]
    array = array.transpose([order.index(role) for role in "ZYXC" if role in order])
    return array.reshape([sizes[role] for role in "ZYXC"])


def _sizes(path: Path, axes: str, shape: tuple[int, ...]) -> dict[str, int]:
    """Sizes of z, y, x and channels; tifffile calls undeclared pages I or Q, samples S."""
    sizes = {role: 1 for role in "ZYXC"}
    for axis, size in zip(axes, shape, strict=True):
        role = _role(axis)
        if size > 1 and sizes[role] > 1:
            raise InputError(
                f"{path}: TIFF axes {axes} of shape {shape} are more than slices and channels; "
                "save one volume a file"
            )
        sizes[role] = max(sizes[role], int(size))
    return sizes


def _role(axis: str) -> str:
    return axis if axis in "YX" else "C" if axis in "CS" else "Z"
