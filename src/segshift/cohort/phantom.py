"""Simulated hospitals with a known truth: random abdomens, imaged by each site's scanner.

Sites differ in the scanner (covariate shift), the patients (prevalence shift) or the annotation
guideline (concept shift), each by its own options, so that every shift's effect can be checked.
An image is drawn from (seed, patient id, scanner) alone, as its patient is from `anatomy`. Arrays,
`shape` and `spacing_mm` are in (z, y, x) order. The files are NIfTI in (x, y, z) order, RAS.
"""

import gzip
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segshift.cohort.anatomy import STRUCTURES, Labels, Patient, Population, simulate_patient
from segshift.cohort.annotation import Annotation
from segshift.cohort.case import Case, Cohort
from segshift.cohort.manifest import read_manifest, write_manifest
from segshift.cohort.physics import Scanner, acquire, tissue_maps
from segshift.errors import InputError
from segshift.progress import tracked
from segshift.seeds import generator

SMALLEST_VIEW_MM = (150.0, 250.0, 300.0)
POSITIVE = {
    "patients", "tr_ms", "te_ms", "field_strength_t", "scale", "lesion_radius_mm", "acquired",
}  # fmt: skip
SHARES = ("acquired", "filter_strength")  # of 1
REVISION = 2  # raise it when the same options start to draw other bytes: old folders are not reused


@dataclass(frozen=True, slots=True, kw_only=True)
class Guideline:
    """How annotators draw: how far outside the structures, and whether the rim is lesion."""

    margin_voxels: int
    rim_is_lesion: bool


GUIDELINES = {
    "reference": Guideline(margin_voxels=0, rim_is_lesion=False),
    "generous": Guideline(margin_voxels=1, rim_is_lesion=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A simulated hospital; `guideline` is a name in `GUIDELINES`."""

    patients: int
    scanner: Scanner
    population: Population
    guideline: str


def simulated_cohort(
    folder: str | Path,
    *,
    seed: int,
    sites: Mapping[str, Mapping[str, Any]],
    shape: Sequence[int],
    spacing_mm: Sequence[float],
) -> Cohort:
    """Read the simulated cohort of these options, generating it first where it does not exist.

    `sites` maps a site's name to the fields of `Scanner` and `Population`, `patients` and
    `guideline`. `shape` is in voxels and `spacing_mm` in mm, both (z, y, x). Every set of options
    has its own folder below `folder`.
    """
    parsed = {name: parse_site(name, sites[name]) for name in sorted(sites)}
    shape, spacing_mm = _check_grid(shape, spacing_mm)
    if not parsed:
        raise InputError("a simulated cohort needs at least one site")
    options = {
        "revision": REVISION,
        "seed": seed,
        "shape": shape,
        "spacing_mm": spacing_mm,
        "sites": {name: asdict(site) for name, site in parsed.items()},
    }
    text = json.dumps(options, indent=1, sort_keys=True)
    folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:8]
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        _write_whole(folder / "parameters.json", text.encode())
        numbered = [(name, n) for name in parsed for n in range(1, parsed[name].patients + 1)]
        cases = [
            _write_case(
                folder,
                f"{name}-{n:03d}",
                name,
                parsed[name],
                seed=seed,
                shape=shape,
                spacing_mm=spacing_mm,
            )
            for name, n in tracked(numbered, "simulating patients", total=len(numbered))
        ]
        # Last, so that a generation that was killed is never mistaken for a finished one.
        write_manifest(manifest, cases, channels=["mr"], structures=list(STRUCTURES))
    return read_manifest(manifest, name="phantom")


def image_patient(
    patient: Patient, scanner: Scanner, *, seed: int, spacing_mm: Sequence[float]
) -> NDArray[np.int16]:
    """The patient's image (Z, Y, X) on one scanner, in arbitrary grey levels."""
    rng = generator(seed, "phantom-scan", patient.id)
    return acquire(
        patient.tissue,
        patient.properties,
        patient.texture,
        scanner,
        spacing_mm=spacing_mm,
        rng=rng,
    )


def annotate(patient: Patient, guideline: Guideline) -> Labels:
    """The labels (Z, Y, X) that annotators following `guideline` would draw.

    The margin is drawn within each axial slice, as contours are. It never takes a voxel that is
    truly another structure, except that a lesion takes liver; where two margins meet, the later
    in `STRUCTURES` wins.
    """
    truth = patient.truth
    masks = {name: truth == value for name, value in STRUCTURES.items()}
    if guideline.rim_is_lesion:
        masks["lesion"] |= patient.rim
    annotation = np.zeros_like(truth)
    in_plane = ndimage.generate_binary_structure(2, 1)[None]
    for name, value in STRUCTURES.items():
        drawn = masks[name]
        if guideline.margin_voxels:
            drawn = ndimage.binary_dilation(drawn, in_plane, iterations=guideline.margin_voxels)
        taken = masks["kidney"] if name == "lesion" else (truth > 0) & ~masks[name]
        annotation[drawn & ~taken] = value
    return annotation


def parse_site(name: str, options: Mapping[str, Any]) -> Site:
    """Check one site's options, a flat mapping; InputError says what is wrong and what is valid."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise InputError(f"site {name!r}: a name may have letters, digits, '-' and '_' only")
    if not isinstance(options, Mapping):
        raise InputError(f"site {name!r} is {options!r}; it should be a mapping of options")
    known = {each.name: each for part in (Site, Scanner, Population) for each in fields(part)}
    del known["scanner"], known["population"]
    if unknown := sorted(set(options) - set(known)):
        raise InputError(
            f"site {name!r} has the unknown key(s) {unknown}; valid are {sorted(known)}"
        )
    required = {key for key, each in known.items() if each.default is MISSING}
    if missing := sorted(required - set(options)):
        raise InputError(f"site {name!r} lacks the key(s) {missing}")
    values = {
        key: _checked(f"site {name!r}: {key}", value, known[key].type, positive=key in POSITIVE)
        for key, value in options.items()
    }
    for key in SHARES:
        if values.get(key, 0) > 1:
            raise InputError(f"site {name!r}: {key} is {values[key]}; it is a part, 1 at most")
    if values["guideline"] not in GUIDELINES:
        raise InputError(
            f"site {name!r}: guideline is {values['guideline']!r}; valid are {sorted(GUIDELINES)}"
        )
    scanner, population = (
        {each.name: values.pop(each.name) for each in fields(part) if each.name in values}
        for part in (Scanner, Population)
    )
    return Site(**values, scanner=Scanner(**scanner), population=Population(**population))


def _checked(where: str, value: Any, kind: Any, *, positive: bool) -> Any:  # noqa: ANN401
    """`value` as `kind`: str, int, float or an ascending pair of one of the latter."""
    if kind is str and isinstance(value, str) and value:
        return value
    if kind in (int, float) and _is_number(value, kind, positive=positive):
        return kind(value)
    if kind not in (str, int, float) and isinstance(value, Sequence) and len(value) == 2:
        part, (low, high) = kind.__args__[0], value
        if all(_is_number(each, part, positive=positive) for each in value) and low <= high:
            return part(low), part(high)
    bound = "above 0" if positive else "from 0 up"
    number = {int: f"a whole number {bound}", float: f"a number {bound}", str: "a text"}
    wanted = number.get(kind) or f"two ascending numbers {bound}"
    raise InputError(f"{where} is {value!r}; it should be {wanted}")


def _is_number(value: object, kind: type, *, positive: bool) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    return (value > 0 if positive else value >= 0) and kind(value) == value


def _check_grid(
    shape: Sequence[int], spacing_mm: Sequence[float]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    for name, values, kind in (("shape", shape, int), ("spacing_mm", spacing_mm, float)):
        if len(values) != 3 or not all(_is_number(each, kind, positive=True) for each in values):
            wanted = "three whole numbers" if kind is int else "three numbers"
            raise InputError(f"{name} is {list(values)}; it should be {wanted} above 0: z, y, x")
    view = tuple(size * step for size, step in zip(shape, spacing_mm, strict=True))
    if any(size < least for size, least in zip(view, SMALLEST_VIEW_MM, strict=True)):
        raise InputError(
            f"shape {list(shape)} at spacing_mm {list(spacing_mm)} shows {view} mm (z, y, x); "
            f"an abdomen needs at least {SMALLEST_VIEW_MM}"
        )
    return tuple(int(size) for size in shape), tuple(float(step) for step in spacing_mm)


def _write_case(
    folder: Path,
    patient: str,
    site_name: str,
    site: Site,
    *,
    seed: int,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
) -> Case:
    """Simulate one patient of a site, write the five volumes and return the manifest's line."""
    one = simulate_patient(patient, site.population, seed=seed, shape=shape, spacing_mm=spacing_mm)
    volumes: dict[str, Labels | NDArray[np.int16] | NDArray[np.float32]] = {
        "images": image_patient(one, site.scanner, seed=seed, spacing_mm=spacing_mm),
        "labels": annotate(one, GUIDELINES[site.guideline]),
        "truth": one.truth,
        "instances": one.instances,
        "maps": tissue_maps(
            one.tissue,
            one.properties,
            one.texture,
            field_strength_t=site.scanner.field_strength_t,
        ),
    }
    files = {kind: f"{kind}/{patient}.nii.gz" for kind in volumes}
    for kind, volume in volumes.items():
        _write_whole(folder / files[kind], _nifti_bytes(volume, spacing_mm))
    return Case(
        id=patient,
        patient=patient,
        site=site_name,
        images=(folder / files["images"],),
        annotation=Annotation(folder / files["labels"], tuple(STRUCTURES.values())),
        maps=folder / files["maps"],
        tags={
            "tr_ms": f"{site.scanner.tr_ms:g}",
            "te_ms": f"{site.scanner.te_ms:g}",
            "field_strength_t": f"{site.scanner.field_strength_t:g}",
            "vendor": site.scanner.vendor,
            "guideline": site.guideline,
            "truth": files["truth"],
            "instances": files["instances"],
        },
    )


def _nifti_bytes(
    volume: Labels | NDArray[np.int16] | NDArray[np.float32], spacing_mm: Sequence[float]
) -> bytes:
    """(Z, Y, X) or (C, Z, Y, X) as gzipped NIfTI, x first; no time stamp: equal in, equal out."""
    affine = np.diag([*reversed(spacing_mm), 1.0])
    image = nib.Nifti1Image(volume.T, affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=4, mtime=0)


def _write_whole(path: Path, content: bytes) -> None:
    """The file appears whole or not at all, also when two processes write the same cohort."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_bytes(content)
    draft.replace(path)
