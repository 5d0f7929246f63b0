"""One case, read once: what is wrong with its files, and a few kilobytes to compare it by.

Pixels are dropped when a case is done, so memory does not grow with the cohort.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from segshift.audit.finding import Finding, Severity
from segshift.audit.orientation import Poses, poses
from segshift.audit.pooling import pooled
from segshift.cohort.case import Case
from segshift.cohort.checks import check_headers, load_label
from segshift.cohort.images import read_geometry, read_image, voxel_hash
from segshift.errors import ClaimError, InputError

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is kept of a case to compare it with others."""

    case: Case
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None  # None: nobody stated it
    quantiles: tuple[tuple[float, ...], ...]  # per channel, at QUANTILES
    image_hash: str
    label_hash: str  # empty without a usable label
    appearance: np.ndarray  # bool: the signs of a band-passed thumbnail
    outside_share: float  # of the label's voxels that lie in the dark around the body; or NaN
    poses: Poses | None  # None without foreground


class _Stop(Exception):  # noqa: N818
    """What was found so far makes the rest of the case unreadable."""


@dataclass(slots=True)
class _Notes:
    """The findings of one case as they are collected."""

    case: Case
    found: list[Finding]

    def add(self, severity: Severity, kind: str, text: str) -> None:
        prefix = f"case {self.case.id!r}: "
        message = text if text.startswith(prefix) else prefix + text
        self.found.append(
            Finding(
                severity=severity,
                kind=kind,
                case=self.case.id,
                site=self.case.site,
                message=message,
            )
        )


def measure_case(case: Case, *, structures: int) -> tuple[list[Finding], Facts | None]:
    """Read a case whole. The facts are None where a file cannot be read or does not fit.

    `structures` is their number; higher values of the loaded label are voxels to ignore.
    """
    notes = _Notes(case, [])
    try:
        return notes.found, _measured(case, notes, structures)
    except _Stop:
        return notes.found, None
    except Exception as error:  # a linter that dies on one file hides all others
        notes.add("error", "unreadable", f"cannot be read ({type(error).__name__}: {error})")
        return notes.found, None


def _measured(case: Case, notes: _Notes, structures: int) -> Facts | None:
    _check_files([*case.images, *case.annotation.paths], notes)
    try:
        geometry = check_headers(case)
    except InputError as error:
        notes.add("error", "geometry-mismatch", str(error))
        return None
    channels = []
    for path in case.images:
        channels.append(_read(path, notes))
    image = channels[0] if len(channels) == 1 else np.concatenate(channels)
    del channels
    usable = _check_intensities(image, notes)
    label = _checked_label(case, notes, structures)
    if not usable:
        return None
    label_hash = "" if label is None else voxel_hash(label)
    label = label if label is not None and label.any() else None
    small = pooled(image[0], (32, 64, 64))
    return Facts(
        case=case,
        shape=geometry.shape,
        spacing_mm=geometry.known_mm,
        quantiles=tuple(_quantiles(channel) for channel in image),
        image_hash=voxel_hash(image),
        label_hash=label_hash,
        appearance=_appearance(image[0]),
        outside_share=_outside_share(small, label) if label is not None else np.nan,
        poses=poses(small, label, structures) if label is not None else None,
    )


def _check_files(paths: Iterable[Path], notes: _Notes) -> None:
    """Existence, headers and sizes of every file, before a voxel is read."""
    for path in paths:
        try:
            present = path.exists()
        except (OSError, ValueError):  # a name that no file system takes
            present = False
        if not present:
            notes.add(
                "error",
                "missing-file",
                f"{path} does not exist; mend the path or remove the line",
            )
            continue
        try:
            read_geometry(path)
        except InputError as error:
            kind = "header-bomb" if isinstance(error, ClaimError) else "unreadable"
            notes.add("error", kind, f"{error}; restore the file from its source")
    if notes.found:
        raise _Stop


def _read(path: Path, notes: _Notes) -> np.ndarray:
    try:
        return read_image(path)
    except InputError as error:
        notes.add("error", "unreadable", f"{error}; restore the file from its source")
        raise _Stop from error


def _check_intensities(image: np.ndarray, notes: _Notes) -> bool:
    """Whether all voxels are finite and some differ; (C, D, H, W)."""
    bad = image.size - int(np.count_nonzero(np.isfinite(image)))
    if bad:
        notes.add(
            "error",
            "not-finite",
            f"{bad} of {image.size} voxels of {notes.case.images[0]} are NaN or infinite; mend the "
            "file or take the case out of the manifest",
        )
        return False
    usable = True
    for number, channel in enumerate(image):
        low = float(channel.min())
        if low == float(channel.max()):
            notes.add(
                "error",
                "constant-image",
                f"all voxels of channel {number} of {notes.case.images[0]} are {low:g}; export the "
                "image again or take the case out of the manifest",
            )
            usable = False
    return usable


def _checked_label(case: Case, notes: _Notes, structures: int) -> np.ndarray | None:
    """Structure indices (D, H, W), ignored voxels as 0; None where there is no usable label."""
    if not case.annotation.paths or not any(case.annotation.annotated):
        return None
    try:
        label = load_label(case)
    except InputError as error:
        faults = [fault for fault in map(_label_fault, case.annotation.paths) if fault]
        notes.add("error", faults[0] if faults else "unknown-label", str(error))
        return None
    label = np.where(label <= structures, label, 0).astype(np.uint8)
    if not label.any():
        notes.add(
            "warning",
            "empty-label",
            f"no voxel of {case.annotation.paths[0]} belongs to a structure; if none is there, "
            "well; otherwise export the label again",
        )
    return label


def _label_fault(path: Path) -> str:
    """Which fault of this file makes a label unloadable; empty if its numbers are whole."""
    try:
        values = read_image(path)
    except InputError:
        return "unreadable"
    whole = len(values) == 1 and bool((np.isfinite(values) & (values == np.rint(values))).all())
    return "" if whole else "non-integer-label"


def _quantiles(channel: np.ndarray) -> tuple[float, ...]:
    """Of at most about 100,000 voxels, evenly spread."""
    flat = channel.reshape(-1)
    return tuple(float(q) for q in np.quantile(flat[:: max(1, flat.size // 100_000)], QUANTILES))


def _appearance(image: np.ndarray) -> np.ndarray:
    """A perceptual hash of (D, H, W): where a thumbnail is brighter than its surroundings.

    Blind to scale, offset, resampling and noise of a few per cent.
    """
    thumbnail = pooled(image, (1, 32, 32) if len(image) == 1 else (8, 16, 16))
    around = ndimage.gaussian_filter(thumbnail, (2, 3, 3), mode="nearest")
    return np.asarray((thumbnail > around).ravel())


def _outside_share(small: np.ndarray, label: np.ndarray) -> float:
    """Share of the foreground (D, H, W) in the dark around the body of a pooled image."""
    weight = pooled((label > 0).astype(np.float32), small.shape)
    low, high = np.quantile(small, (0.02, 0.98))
    dark = small < low + 0.12 * (high - low)
    # Within each slice: lungs and bowel are dark, but the body closes around them.
    outside = np.stack([~ndimage.binary_fill_holes(~one) for one in dark])
    return float(weight[outside].sum() / weight.sum())
