"""A tree of DICOM files: each series is a case without a label, its parameters are columns.

Names of patients are not copied; the patient column holds PatientID as it is in the files.
"""

from pathlib import Path
from typing import Any

from segshift.cohort.case import Case
from segshift.cohort.images import series
from segshift.cohort.images.header import naming
from segshift.cohort.importers.imported import Imported, Tell
from segshift.errors import InputError

COLUMNS = {
    "RepetitionTime": "tr_ms",
    "EchoTime": "te_ms",
    "MagneticFieldStrength": "field_strength_t",
    "Manufacturer": "vendor",
    "ManufacturerModelName": "scanner",
    "Modality": "modality",
    "SeriesDescription": "series",
    "InstitutionName": "institution",
}


def import_dicom(folder: str | Path, *, tell: Tell, site: str | None = None) -> Imported:
    """Cases of all series below `folder`; one that is no volume is left out with a remark.

    Raises InputError if no series is left, with the first reason.
    """
    top = Path(folder)
    if not top.is_dir():
        raise InputError(f"{top} is no folder; DICOM is imported from a tree of files")
    cases: dict[str, Case] = {}
    reasons: list[str] = []
    for place in sorted({file.parent for file in top.rglob("*") if series.is_slice(file)}):
        for source, tags in _series(place):
            case = _case(top, source, tags, site)
            try:
                with naming(source):
                    series.read_header(source)
            except InputError as error:
                reasons.append(f"left out: {error}")
                continue
            if case.id in cases:
                raise InputError(
                    f"{source}: its id {case.id!r} is taken by {cases[case.id].images}"
                )
            cases[case.id] = case
    if not cases:
        reason = f"; {reasons[0]}" if reasons else ""
        raise InputError(f"{top} holds no DICOM series that is a volume{reason}")
    unnamed = sorted(case.id for case in cases.values() if case.patient == case.id)
    if unnamed:
        reasons.append(f"{len(unnamed)} series without PatientID, each its own patient: {unnamed}")
    for reason in reasons:
        tell(reason)
    return Imported(tuple(cases.values()), ("image",), ())


def _series(place: Path) -> list[tuple[Path, Any]]:
    """Each series of a folder: the folder, or the first file where there are several."""
    first: dict[str, tuple[Path, Any]] = {}
    for file in sorted(place.iterdir()):
        if series.is_slice(file):
            with naming(file):
                tags = series.read_tags(file)
            first.setdefault(str(tags.get("SeriesInstanceUID")), (file, tags))
    if len(first) == 1:
        return [(place, tags) for _, tags in first.values()]
    return list(first.values())


def _case(top: Path, source: Path, tags: Any, site: str | None) -> Case:  # noqa: ANN401
    """The case of one series, named by its folder, and by its number where that is not enough."""
    place = source if source.is_dir() else source.parent
    name = "-".join(place.resolve().relative_to(top.resolve()).parts) or top.resolve().name
    if source.is_file():
        name = f"{name}-{str(tags.get('SeriesInstanceUID')).rsplit('.', 1)[-1]}"
    return Case(
        id=name,
        patient=str(tags.get("PatientID") or "").strip() or name,
        site=site or top.resolve().name,
        images=(source.absolute(),),
        tags={column: _text(tags.get(key)) for key, column in COLUMNS.items()},
    )


def _text(value: object) -> str:
    return "" if value is None else " ".join(str(value).split())
