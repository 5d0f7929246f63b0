"""The store: each case preprocessed once into memory-mapped arrays.

An entry's name is a hash of the files' bytes and of all parameters, so a stale entry cannot be
read; it is written beside and renamed, so a killed or a concurrent run never leaves half of one.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from segshift.cohort import Case
from segshift.cohort.checks import Volume, load_case
from segshift.plan import Plan, resampled_shape
from segshift.progress import tracked
from segshift.seeds import generator
from segshift.shifts import Shift

LAYOUT = 2  # raise it when what is written changes
LANDMARKS = 1000  # voxels per structure remembered for foreground sampling
SEED = 0  # not the run's seed: a case is corrupted alike for every model, and stored once for all


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A preprocessed case on disk. All arrays are memory-mapped: reading touches what is asked."""

    case: Case
    folder: Path

    def image(self) -> np.ndarray:
        """Normalised intensities float32 (C, D, H, W) on the plan's grid."""
        return _mapped(self.folder / "image.npy")

    def label(self) -> np.ndarray:
        """Class indices uint8 (D, H, W) on the plan's grid."""
        return _mapped(self.folder / "label.npy")

    def reference(self) -> np.ndarray:
        """Class indices uint8 (D, H, W) on the case's own grid: what predictions are scored on."""
        return _mapped(self.folder / "reference.npy")

    def landmarks(self) -> np.ndarray:
        """int32 (N, 4): structure index and z, y, x of some of its voxels, sorted by structure."""
        return np.asarray(np.load(self.folder / "landmarks.npy"))

    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size of the case's own grid."""
        return tuple(json.loads((self.folder / "meta.json").read_text())["spacing_mm"])


def store_cases(
    cases: Sequence[Case], plan: Plan, shift: Shift, *, folder: Path, quiet: bool = False
) -> list[StoredCase]:
    """Preprocess what is not yet stored, with a progress bar.

    Raises InputError naming the case if one cannot be read or holds wrong values.
    """
    workers = min(len(os.sched_getaffinity(0)), 8) if hasattr(os, "sched_getaffinity") else 4
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda case: _stored(case, plan, shift, folder), cases)
        label = "reading cases" if shift.severity == 0 else f"{shift.name}{shift.severity}"
        return list(results if quiet else tracked(results, label, total=len(cases)))


def resampled(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Linear resampling of (C, D, H, W) to a new (D, H, W); float32 in and out."""
    if image.shape[1:] == tuple(shape):
        return image
    tensor = torch.from_numpy(np.ascontiguousarray(image))[None]
    scaled: np.ndarray = functional.interpolate(tensor, tuple(shape), mode="trilinear")[0].numpy()
    return scaled


def resampled_label(label: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resample each structure's mask linearly and let the strongest win; ids never mix."""
    if label.shape == tuple(shape):
        return label
    best = np.full(shape, -1.0, dtype=np.float32)
    winner = np.zeros(shape, dtype=np.uint8)
    for structure in np.unique(label):
        share = resampled((label == structure)[None].astype(np.float32), shape)[0]
        winner[share > best] = structure
        best = np.maximum(best, share)
    return winner


def normalised(image: np.ndarray) -> np.ndarray:
    """Zero mean and unit deviation per channel of (C, D, H, W): MR scales are arbitrary."""
    mean = image.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    deviation = image.std(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    return np.asarray((image - mean) / np.maximum(deviation, 1e-8), dtype=np.float32)


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array


def _stored(case: Case, plan: Plan, shift: Shift, folder: Path) -> StoredCase:
    entry = StoredCase(case, folder / _key(case, plan, shift))
    if not entry.folder.is_dir():
        _write(entry, _preprocessed(load_case(case), case, plan, shift))
    return entry


def _preprocessed(
    volume: Volume, case: Case, plan: Plan, shift: Shift
) -> dict[str, np.ndarray | str]:
    random = generator(SEED, "shift", shift.name, shift.severity, case.id)
    image = shift(volume.image, spacing_mm=volume.spacing_mm, random=random)
    shape = resampled_shape(volume.label.shape, volume.spacing_mm, plan.spacing_mm)
    label = resampled_label(volume.label, shape)
    return {
        "image": normalised(resampled(image, shape)),
        "label": label,
        "reference": volume.label,
        "landmarks": _landmarks(label, generator(SEED, "landmarks", case.id)),
        "meta": json.dumps({"case": case.id, "spacing_mm": volume.spacing_mm}),
    }


def _landmarks(label: np.ndarray, random: np.random.Generator) -> np.ndarray:
    found = np.flatnonzero(label)
    order = random.permutation(len(found))
    places, structures = found[order], label.ravel()[found[order]]
    by_structure = np.argsort(structures, kind="stable")
    places, structures = places[by_structure], structures[by_structure]
    start = np.searchsorted(structures, structures)
    kept = np.arange(len(places)) - start < LANDMARKS
    zyx = np.stack(np.unravel_index(places[kept], label.shape), axis=1)
    return np.column_stack([structures[kept], zyx]).astype(np.int32)


def _write(entry: StoredCase, content: dict[str, np.ndarray | str]) -> None:
    draft = entry.folder.with_name(f"{entry.folder.name}.{os.getpid()}.draft")
    shutil.rmtree(draft, ignore_errors=True)
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


def _key(case: Case, plan: Plan, shift: Shift) -> str:
    digest = hashlib.sha256()
    parameters = [LAYOUT, case.id, case.label_values, plan.spacing_mm]
    parameters += [shift.name, shift.severity, type(shift).__qualname__, asdict(shift)]
    digest.update(json.dumps(parameters).encode())
    for path in (*case.images, *((case.label,) if case.label else ())):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]
