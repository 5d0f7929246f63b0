"""What the manifest's lines alone tell: leaks between sites, ids written in two ways, far paths.

No file is opened; 10,000 cases take a fraction of a second.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from segshift.audit.finding import Finding
from segshift.cohort.case import Case


def check_listing(
    cases: Sequence[Case], *, folder: Path, min_patients: int, allow_outside: bool
) -> list[Finding]:
    """Everything that can be said about `cases` without their files; paths start at `folder`."""
    findings = [*_patients_at_two_sites(cases), *_ids_alike(cases), *_listed_twice(cases)]
    findings += _small_sites(cases, min_patients)
    return findings if allow_outside else [*findings, *_outside(cases, folder)]


@lru_cache(maxsize=4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def real_path(path: Path) -> str:
    """The path without `..` and links; cheap for many files of one folder."""
    parent, name = os.path.split(path)
    try:
        if name in ("", "..") or os.path.islink(path):
            return os.path.realpath(path)
        return os.path.join(_real_folder(parent), name)
    except ValueError:  # a name that no file system takes: it becomes `missing-file`
        return str(path)


def _patients_at_two_sites(cases: Sequence[Case]) -> Iterator[Finding]:
    sites: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in cases:
        sites[case.patient].setdefault(case.site, case)
    for patient, where in sites.items():
        if len(where) > 1:
            names = ", ".join(f"{site} (case {case.id!r})" for site, case in where.items())
            last = list(where.values())[-1]
            yield Finding(
                severity="error",
                kind="patient-at-two-sites",
                case=last.id,
                site=last.site,
                message=f"patient {patient!r} is at {names}: a leak between sites if it is one "
                "person; give two persons two ids, or one person one site",
            )


def _ids_alike(cases: Sequence[Case]) -> Iterator[Finding]:
    spellings: dict[str, dict[str, Case]] = defaultdict(dict)
    for case in cases:
        spellings["".join(case.patient.split()).casefold()].setdefault(case.patient, case)
    for written in spellings.values():
        if len(written) > 1:
            last = list(written.values())[-1]
            yield Finding(
                severity="warning",
                kind="patient-ids-alike",
                case=last.id,
                site=last.site,
                message=f"case {last.id!r}: the patient ids {sorted(written)} differ only by case "
                "or spaces; if they are one person, write them alike, or a split may separate them",
            )
    for patient, case in {case.patient: case for case in cases}.items():
        if patient != patient.strip():
            yield Finding(
                severity="warning",
                kind="patient-ids-alike",
                case=case.id,
                site=case.site,
                message=f"case {case.id!r}: the patient id {patient!r} begins or ends with a "
                "space; remove it",
            )


def _listed_twice(cases: Sequence[Case]) -> Iterator[Finding]:
    first: dict[tuple[str, ...], Case] = {}
    for case in cases:
        known = first.setdefault(tuple(real_path(path) for path in case.images), case)
        if known is not case:
            same = known.annotation.paths == case.annotation.paths
            yield Finding(
                severity="error",
                kind="listed-twice",
                case=case.id,
                site=case.site,
                message=f"case {case.id!r}: its image {case.images[0]} is that of case "
                f"{known.id!r}, with "
                + (
                    "the same label"
                    if same
                    else f"another label ({_labels(case)} and {_labels(known)})"
                )
                + "; keep one of the lines",
            )


def _labels(case: Case) -> str:
    return ", ".join(map(str, case.annotation.paths)) or "none"


def _small_sites(cases: Sequence[Case], least: int) -> Iterator[Finding]:
    patients: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        patients[case.site].add(case.patient)
    for site, members in sorted(patients.items()):
        if len(members) < least:
            yield Finding(
                severity="warning",
                kind="few-patients",
                site=site,
                message=f"site {site!r} has {len(members)} patient(s), fewer than {least}: its "
                "results will say little; add patients or lower --min-patients",
            )


def _outside(cases: Sequence[Case], folder: Path) -> Iterator[Finding]:
    """One finding per folder, not per file: an imported set is outside as a whole."""
    home = os.path.join(os.path.realpath(folder), "")
    found: dict[str, list[tuple[Case, Path]]] = defaultdict(list)
    for case in cases:
        for path in (*case.images, *case.annotation.paths):
            real = real_path(path)
            if not real.startswith(home):
                found[os.path.dirname(real)].append((case, path))
    for where, files in sorted(found.items()):
        case, path = files[0]
        yield Finding(
            severity="warning",
            kind="outside-folder",
            case=case.id,
            site=case.site,
            message=f"case {case.id!r}: {path} and {len(files) - 1} more file(s) in {where} lie "
            f"outside the manifest's folder {home}; move them there or pass --allow-outside",
        )
