"""The store: each case preprocessed once into memory-mapped arrays.

An entry's name is a hash of the files' bytes and of all parameters, so a stale entry cannot be
read; it is written beside and renamed, so a killed or a concurrent run never leaves half of one.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from segshift.cohort import Case
from segshift.cohort.checks import IGNORED, SPACING, Volume, load_case
from segshift.cohort.images import image_files
from segshift.data.content import content_hash
from segshift.data.preprocessing import preprocessed_image
from segshift.data.resample import resampled_label
from segshift.plan import (
    Box,
    Plan,
    box_slices,
)
from segshift.progress import threads, tracked
from segshift.seeds import generator
from segshift.shifts import Shift
from segshift.splits import EvaluationSet

LAYOUT = 3  # raise it when what is written changes
LANDMARKS = 1000  # voxels per structure remembered for foreground sampling
SEED = 0  # not the run's seed: a case is corrupted alike for every model, and stored once for all


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A preprocessed case on disk. All arrays are memory-mapped: reading touches what is asked."""

    case: Case
    folder: Path

    def image(self) -> np.ndarray:
        """Normalised intensities float32 (C, D, H, W) of the box on the plan's grid."""
        return _mapped(self.folder / "image.npy")

    def label(self) -> np.ndarray:
        """Class indices uint8 (D, H, W) of the box on the plan's grid."""
        return _mapped(self.folder / "label.npy")

    def reference(self) -> np.ndarray:
        """Class indices uint8 (D, H, W) on the case's own grid: what predictions are scored on."""
        return _mapped(self.folder / "reference.npy")

    def landmarks(self) -> np.ndarray:
        """int32 (N, 4): structure index and z, y, x of some of its voxels, sorted by structure."""
        return np.asarray(np.load(self.folder / "landmarks.npy"))

    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size of the case's own grid."""
        return tuple(self._meta()["spacing_mm"])

    def box(self) -> Box:
        """The part of the case's own grid that `image` and `label` show."""
        return tuple((low, high) for low, high in self._meta()["box"])

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text())
        return meta


def store_cases(
    cases: Sequence[Case],
    plan: Plan,
    shift: Shift,
    *,
    folder: Path,
    quiet: bool = False,
) -> list[StoredCase]:
    """Preprocess what is not yet stored, with a progress bar; what is stored is not read again.

    Raises InputError naming the case if one cannot be read or holds wrong values.
    """
    with ThreadPoolExecutor(threads()) as pool:
        results = pool.map(lambda case: _stored(case, plan, shift, folder), cases)
        label = "reading cases" if shift.severity == 0 else f"{shift.name}{shift.severity}"
        return list(results if quiet else tracked(results, label, total=len(cases)))


def store_sets(
    sets: Sequence[EvaluationSet], plan: Plan, *, folder: Path, quiet: bool = False
) -> dict[str, list[StoredCase]]:
    """The cases of every evaluation set by its name, under its shift."""
    return {s.name: store_cases(s.cases, plan, s.shift, folder=folder, quiet=quiet) for s in sets}


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array


def _stored(case: Case, plan: Plan, shift: Shift, folder: Path) -> StoredCase:
    entry = StoredCase(case, folder / _key(case, plan, shift, folder))
    if not entry.folder.is_dir():
        _write(entry, _preprocessed(load_case(case), case, plan, shift))
    else:
        # For `cohort clean --older-than`. A store may also be somebody else's, to read only.
        with contextlib.suppress(OSError):
            os.utime(entry.folder / "meta.json")
    return entry


def _preprocessed(
    volume: Volume, case: Case, plan: Plan, shift: Shift
) -> dict[str, np.ndarray | str]:
    random = generator(SEED, "shift", shift.name, shift.severity, case.id)
    image = shift(volume.image, spacing_mm=volume.spacing_mm, random=random)
    # Of the shifted image: nobody has another one to crop, and noise in the air is no zero.
    finer, box = preprocessed_image(image, plan, spacing_mm=volume.spacing_mm)
    place, shape = box_slices(box), finer.shape[1:]
    # Where a structure is not annotated, what was not drawn may be that one.
    drawn = volume.label if all(case.annotated) else np.where(volume.label, volume.label, IGNORED)
    label = resampled_label(np.ascontiguousarray(drawn[place]), shape)
    return {
        "image": finer,
        "label": label,
        "reference": volume.label,
        "landmarks": _landmarks(label, generator(SEED, "landmarks", case.id)),
        "meta": json.dumps({"case": case.id, "spacing_mm": volume.spacing_mm, "box": box}),
    }


def _landmarks(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    found = np.flatnonzero((label > 0) & (label != IGNORED))
    order = random.permutation(len(found))
    places, structures = found[order], label.ravel()[found[order]]
    by_structure = np.argsort(structures, kind="stable")
    places, structures = places[by_structure], structures[by_structure]
    start = np.searchsorted(structures, structures)
    kept = np.arange(len(places)) - start < LANDMARKS
    zyx = np.stack(np.unravel_index(places[kept], label.shape), axis=1)
    return np.column_stack([structures[kept], zyx]).astype(np.int32)


def _write(entry: StoredCase, content: dict[str, np.ndarray | str]) -> None:
    # Not the process' number: two machines or containers that share a store may have the same.
    draft = entry.folder.with_name(f"{entry.folder.name}.{uuid4().hex[:8]}.draft")
    draft.mkdir(parents=True)
    for name, value in content.items():
        if isinstance(value, str):
            (draft / f"{name}.json").write_text(value)
        else:
            np.save(draft / f"{name}.npy", value)
    try:
        draft.rename(entry.folder)
    except OSError:  # another run was faster; its entry has the same bytes
        if not entry.folder.is_dir():
            raise
        shutil.rmtree(draft, ignore_errors=True)


def _key(case: Case, plan: Plan, shift: Shift, folder: Path) -> str:
    digest = hashlib.sha256()
    parameters = [LAYOUT, case.id, case.label_values, plan.spacing_mm]
    parameters += [case.ignore_values, case.background_values, case.consensus]
    parameters += [[file is not None for file in case.label_files], case.tags.get(SPACING)]
    parameters += [plan.interpolation, plan.crop, [asdict(rule) for rule in plan.normalisation]]
    parameters += [shift.name, shift.severity, type(shift).__qualname__, asdict(shift)]
    digest.update(json.dumps(parameters).encode())
    for path in (*case.images, *case.label_paths):
        for file in image_files(path):  # a DICOM series has many
            digest.update(bytes.fromhex(content_hash(file, store=folder)))
    return digest.hexdigest()[:32]
