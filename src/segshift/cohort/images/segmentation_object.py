"""DICOM Segmentation objects through highdicom: what a clinic's viewer lays over the series.

A binary object with a segment for each structure, which refers to the series' own slices. Names
are recorded as private codes: nobody told which term of a dictionary a structure's name means.
"""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort.images import series
from segshift.errors import InputError

CODES = "99SEGSHIFT"  # the scheme of our names; 99 is for private ones (DICOM PS3.16, 8.2)
# What an object must say of patient and study, and scanners' exports or pseudonymisers leave out.
NEEDED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate",
    "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
UNIQUE = ("StudyInstanceUID", "FrameOfReferenceUID")
UNICODE = "ISO_IR 192"  # as which names of any language are written
LONGEST_TERM = 64  # characters of a label, and of a code's meaning
LONGEST_CODE = 16


def write(
    path: Path, masks: Iterable[np.ndarray], *, names: Sequence[str], like: Path, software: str
) -> None:
    """Write masks (i, j, k), in the series' own order of columns, rows and slices.

    They are taken one by one: into a byte for each voxel, and as masks overlap, for each mask.
    """
    import highdicom
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    apart_mm = float(np.linalg.norm(series.read_header(like).affine[:3, 2]))
    sources = [_source(file, apart_mm=apart_mm) for file, _ in series.slices_of(like)]
    name, _, version = software.partition(" ")
    method = highdicom.AlgorithmIdentificationSequence(
        name=name, version=version, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=term,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=CodedConcept(code, CODES, term),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=method,
        )
        for number, (code, term) in enumerate(_codes_and_terms(names), start=1)
    ]
    frames = _frames(masks, len(names))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty masks and of values that scanners write
        try:
            made = highdicom.seg.Segmentation(
                source_images=sources,
                pixel_array=frames,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=segments,
                series_instance_uid=highdicom.UID(),
                series_number=100,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer=name,
                manufacturer_model_name=name,
                software_versions=version,
                device_serial_number="0",
                content_label="SEGMENTATION",
                specific_character_set=UNICODE,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{like}: its tags make no DICOM Segmentation ({error}); mend them, or convert the "
                "series to NIfTI"
            ) from error
        made.save_as(path)


def _frames(masks: Iterable[np.ndarray], count: int) -> np.ndarray:
    """`count` masks (i, j, k) as segment numbers (k, j, i), if they overlap (k, j, i, segment).

    A frame has the series' rows and columns.
    """
    numbers: np.ndarray | None = None
    stack: np.ndarray | None = None
    for number, mask in enumerate(masks, start=1):
        frame = mask.transpose(2, 1, 0).astype(bool, copy=False)
        if number == 1:
            numbers = np.zeros(frame.shape, np.min_scalar_type(count))
        if numbers is not None and numbers[frame].any():
            stack = np.zeros((count, *frame.shape), np.uint8)
            for other in range(1, number):
                np.equal(numbers, other, out=stack[other - 1], casting="unsafe")
            numbers = None
        if numbers is not None:
            numbers[frame] = number
        elif stack is not None:
            stack[number - 1] = frame
    if stack is not None:
        return np.moveaxis(stack, 0, -1)
    assert numbers is not None, "a task has structures"
    return numbers


def _codes_and_terms(names: Sequence[str]) -> list[tuple[str, str]]:
    """A code and a term for each structure; codes end in its number where short names are alike.

    Raises InputError for an empty name.
    """
    if not all(name.strip() for name in names):
        raise InputError(f"structures {list(names)}: an empty name is none in DICOM; name them all")
    whole = [name.strip().replace("\\", "/") for name in names]  # a backslash separates values
    codes = [name[:LONGEST_CODE].strip() for name in whole]
    if len(set(codes)) < len(codes):
        ends = [f"_{number}" for number, _ in enumerate(whole, start=1)]
        codes = [n[: LONGEST_CODE - len(e)] + e for n, e in zip(whole, ends, strict=True)]
    return [(code, name[:LONGEST_TERM]) for code, name in zip(codes, whole, strict=True)]


def _source(file: Path, *, apart_mm: float) -> Any:  # noqa: ANN401
    """A slice's tags without its pixels, and an empty value for what an object must repeat."""
    import pydicom

    with series.mapped(file) as content:
        tags = pydicom.dcmread(content, stop_before_pixels=True)
    for name in NEEDED:
        if name not in tags:
            setattr(tags, name, "")
    if not tags.get("SliceThickness"):
        tags.SliceThickness = apart_mm
    for name in UNIQUE:
        if not tags.get(name):  # the same for all slices of a series
            sources = [name, str(tags.get("SeriesInstanceUID"))]
            setattr(tags, name, pydicom.uid.generate_uid(entropy_srcs=sources))
    return tags
