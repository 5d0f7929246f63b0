"""The store: each case read and preprocessed once into memory-mapped arrays.

An entry's name is a hash of the files' bytes and of all parameters, so a stale entry cannot be
read; it is written beside and renamed, so a killed or a concurrent run never leaves half of one.
Of a case that is tested under shifts it keeps the raw image too, once for all shifts.
"""

import contextlib
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from uuid import uuid4

import numpy as np

from segshift.cohort import Case
from segshift.cohort.checks import IGNORED, Volume, load_case, load_raters
from segshift.cohort.images import read_image, voxel_hash
from segshift.data.content import content_hash
from segshift.data.preprocessing import preprocessed_image
from segshift.data.resample import resampled_label
from segshift.data.stored import SEED, SeenCase, ShiftedCase, StoredCase
from segshift.errors import InputError
from segshift.plan import Plan, Scale, box_slices, first_scaled, scaled_by_reference
from segshift.progress import threads, tracked
from segshift.seeds import generator
from segshift.shifts import Shift
from segshift.splits import EvaluationSet, SetKey

LAYOUT = 6  # raise it when what is written changes
LANDMARKS = 1000  # voxels per structure remembered for foreground sampling
COMPACT = (np.uint8, np.int16, np.uint16)  # types of files; in them the store is half as large


def store_cases(
    cases: Sequence[Case],
    plan: Plan,
    *,
    folder: Path,
    training: bool = False,
    quiet: bool = False,
) -> list[StoredCase]:
    """Preprocess what is not yet stored, with a progress bar; what is stored is not read again.

    References of `training` cases may decide their scale, those of others never do. Raises
    InputError naming the case if one cannot be read or holds wrong values.
    """
    raw = [not training and plan.object_scale is not None] * len(cases)
    return _all_stored(cases, plan, folder, raw=raw, training=training, quiet=quiet)


def store_sets(
    sets: Sequence[EvaluationSet], plan: Plan, *, folder: Path, quiet: bool = False
) -> dict[SetKey, list[SeenCase]]:
    """The cases of every evaluation set, under its shift; a case is read once for all.

    Raises InputError as `store_cases` does.
    """
    # The sets of all shifts share the very same objects, so that no file is hashed for each.
    cases = {id(case): case for each in sets for case in each.cases}
    shifted = {id(case) for each in sets if each.shift.severity for case in each.cases}
    raw = [each in shifted or plan.object_scale is not None for each in cases]
    whole = list(cases.values())
    entries = _all_stored(whole, plan, folder, raw=raw, training=False, quiet=quiet)
    plain = dict(zip(cases, entries, strict=True))

    def seen(case: Case, shift: Shift) -> SeenCase:
        entry = plain[id(case)]
        return ShiftedCase(entry, shift) if shift.severity else entry

    return {each.key: [seen(case, each.shift) for case in each.cases] for each in sets}


def _all_stored(
    cases: Sequence[Case],
    plan: Plan,
    folder: Path,
    *,
    raw: Sequence[bool],
    training: bool,
    quiet: bool,
) -> list[StoredCase]:
    label = "reading cases, raw images too" if any(raw) else "reading cases"

    def stored(case: Case, kept: bool) -> StoredCase:
        return _stored(case, plan, folder, raw=kept, training=training)

    with ThreadPoolExecutor(threads()) as pool:
        results = pool.map(stored, cases, raw)
        return list(results if quiet else tracked(results, label, total=len(cases)))


def _stored(case: Case, plan: Plan, folder: Path, *, raw: bool, training: bool) -> StoredCase:
    by_reference = plan.object_scale if training else None
    key = _key(case, plan, folder, by_reference=by_reference is not None)
    entry = StoredCase(case, folder / key, plan)
    if not entry.folder.is_dir():
        volume = load_case(case)
        content = _preprocessed(volume, case, plan, by_reference=by_reference)
        _write(entry, {**content, **(_raw(volume.image, case) if raw else {})})
    # Of an older entry, or one that another run has just written without it.
    if raw and not (entry.folder / "raw.npy").is_file():
        _add(entry, _raw(load_case(case).image, case))
    # For `cohort clean --older-than`. A store may also be somebody else's, to read only.
    with contextlib.suppress(OSError):
        os.utime(entry.folder / "meta.json")
    return entry


def _preprocessed(
    volume: Volume, case: Case, plan: Plan, *, by_reference: Scale | None
) -> dict[str, np.ndarray | str]:
    scaled = (
        scaled_by_reference(volume.label, by_reference)
        if by_reference
        else first_scaled(volume.image, plan.scale)
    )
    known_mm = volume.geometry.known_mm
    finer, box = preprocessed_image(volume.image, plan, spacing_mm=known_mm, scaled=scaled)
    place, shape = box_slices(box), finer.shape[1:]
    # Where a structure is not annotated, what was not drawn may be that one.
    known = all(case.annotation.annotated)
    drawn = volume.label if known else np.where(volume.label, volume.label, IGNORED)
    label = resampled_label(np.ascontiguousarray(drawn[place]), shape)
    raters = load_raters(case)
    meta = {
        "spacing_mm": known_mm,
        "box": box,
        "raters": list(raters),
        "voxels": voxel_hash(volume.image) if _shows_anything(volume.image) else None,
    }
    return {
        "image": finer,
        "label": label,
        "reference": volume.label,
        "landmarks": _landmarks(label, generator(SEED, "landmarks", case.id)),
        **({"raters": np.stack([*raters.values()])} if raters else {}),
        "meta": json.dumps({"case": case.id, **meta, "scaled": asdict(scaled)}),
    }


def _shows_anything(image: np.ndarray) -> bool:
    """Whether any channel has two values: empty slices are alike, and nobody's."""
    return any(channel.min() < channel.max() for channel in image)


def _raw(image: np.ndarray, case: Case) -> dict[str, np.ndarray]:
    """What a shift acts on, in the smallest type that holds the very numbers, and tissue maps."""
    low, high = image.min(), image.max()
    for kind in COMPACT:
        limits = np.iinfo(kind)
        if limits.min <= low and high <= limits.max and np.array_equal(image.astype(kind), image):
            image = image.astype(kind)
            break
    if case.maps is None:
        return {"raw": image}
    maps = read_image(case.maps)
    if len(maps) != 3 or maps.shape[1:] != image.shape[1:]:
        raise InputError(
            f"case {case.id!r}: the maps {case.maps} have shape {maps.shape} (channel, z, y, x); "
            f"proton density, T1 and T2 of this image have {(3, *image.shape[1:])}"
        )
    if not np.isfinite(maps).all():
        raise InputError(
            f"case {case.id!r}: the maps {case.maps} have "
            f"{np.count_nonzero(~np.isfinite(maps))} values that are not finite; write 0 where the "
            "tissue is not known"
        )
    return {"maps": maps, "raw": image}  # in this order: whoever finds raw finds all


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


def _write(entry: StoredCase, content: Mapping[str, np.ndarray | str]) -> None:
    draft = _draft(entry, content)
    try:
        draft.rename(entry.folder)
    except OSError:  # another run was faster; its entry has the same bytes
        if not entry.folder.is_dir():
            raise
        shutil.rmtree(draft, ignore_errors=True)


def _add(entry: StoredCase, content: Mapping[str, np.ndarray]) -> None:
    draft = _draft(entry, content)
    for name in content:
        (draft / f"{name}.npy").replace(entry.folder / f"{name}.npy")
    draft.rmdir()


def _draft(entry: StoredCase, content: Mapping[str, np.ndarray | str]) -> Path:
    # Not the process' number: two machines or containers that share a store may have the same.
    draft = entry.folder.with_name(f"{entry.folder.name}.{uuid4().hex[:8]}.draft")
    draft.mkdir(parents=True)
    for name, value in content.items():
        if isinstance(value, str):
            (draft / f"{name}.json").write_text(value, encoding="utf-8")
        else:
            np.save(draft / f"{name}.npy", value)
    return draft


def _key(case: Case, plan: Plan, folder: Path, *, by_reference: bool) -> str:
    try:
        described = case.described(functools.partial(content_hash, store=folder))
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    parameters = [LAYOUT, described, plan.spacing_mm, plan.spacing_known]
    parameters += [plan.interpolation, plan.crop]
    parameters += [[asdict(rule) for rule in plan.normalisation]]
    parameters += [None if plan.scale is None else asdict(plan.scale), by_reference]
    return hashlib.sha256(json.dumps(parameters).encode()).hexdigest()[:32]
