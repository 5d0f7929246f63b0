"""Post-processing of decoded masks: chosen on validation cases, and kept only where it helped.

Every rule looks at one structure of the labels as they were decoded, so rules of different
structures do not depend on each other's order. Components touch by faces, edges or corners. A
decoded case (D, H, W) holds class indices (`exclusive`) or one bit for each structure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from segshift.errors import InputError

RECORD = "postprocessing.json"  # in the run's folder
LARGEST, MINIMUM, FILL = "largest_component", "min_volume_mm3", "fill_holes"
VOLUMES_MM3 = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)  # those that are tried
REMOVALS: tuple[str | float | None, ...] = (None, *VOLUMES_MM3, LARGEST)  # from mild to strong
LEAST_GAIN = 0.001  # of mean Dice: what helps less is chance
TOUCHING = np.ones((3, 3, 3), dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is done to one structure, and why: mean Dice of `n` validation cases with and without.

    `value` is the volume in mm3 of `min_volume_mm3`, None for the others.
    """

    rule: str
    value: float | None
    dice_before: float
    dice_after: float
    n: int


Rules = Mapping[str, tuple[Rule, ...]]  # by structure; () or no entry: left alone


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCase:
    """A validation case: decoded `labels` (D, H, W) and the truth to hold them against.

    `references` has one mask (D, H, W) for each structure, None where it is not annotated;
    `counted` (D, H, W) is false where nobody decided.
    """

    labels: np.ndarray
    references: Sequence[np.ndarray | None]
    counted: np.ndarray
    spacing_mm: tuple[float, ...]


def effects(case: JudgedCase, *, exclusive: bool) -> list[np.ndarray | None]:
    """Dice (2, candidates) of each structure after every candidate, unfilled and filled.

    None where the structure is not annotated, or neither there nor predicted.
    """
    tables: list[np.ndarray | None] = []
    for place, reference in enumerate(case.references):
        mask = _mask(case.labels, place, exclusive=exclusive)
        wanted = None if reference is None else reference & case.counted
        if wanted is None or not (mask.any() or wanted.any()):
            tables.append(None)
        elif not mask.any():
            tables.append(np.zeros((2, len(REMOVALS))))
        else:
            filled = _filled(mask, case.labels == 0 if exclusive else None)
            voxel_mm3 = float(np.prod(case.spacing_mm))
            both = (mask, filled)
            dice = [_dice_of_removals(each, wanted, case.counted, voxel_mm3) for each in both]
            tables.append(np.array(dice))
    return tables


def chosen_rules(
    cases: Sequence[Sequence[np.ndarray | None]], *, structures: Sequence[str]
) -> dict[str, tuple[Rule, ...]]:
    """The rules that raise a structure's mean Dice by LEAST_GAIN, from every case's `effects`.

    First the removal of components, the mildest of the best; then filling, if it helps on top.
    Every case counts for every candidate, so that no mean rises because a case is missing: a false
    structure that is removed as a whole counts as 1, a missed one as 0.
    """
    rules = {}
    for place, name in enumerate(structures):
        tables = [table for case in cases if (table := case[place]) is not None]
        rules[name] = tuple(_chosen(np.array(tables))) if tables else ()
    return rules


def postprocessed(
    labels: np.ndarray,
    rules: Rules,
    spacing_mm: Sequence[float],
    *,
    structures: Sequence[str],
    exclusive: bool,
) -> np.ndarray:
    """Labels (D, H, W) after the rules; the very array where no rule is.

    What is removed becomes background; holes are filled where nothing else is, and where two
    structures enclose one hole it goes to the first.
    """
    if not any(rules.get(name) for name in structures):
        return labels
    result = labels.copy()
    for place, name in enumerate(structures):
        if not rules.get(name):
            continue
        mask = _mask(labels, place, exclusive=exclusive)
        if not mask.any():
            continue
        after = _after(mask, rules[name], spacing_mm, free=labels == 0 if exclusive else None)
        if exclusive:
            result[mask & ~after] = 0
            result[after & (result == 0)] = place + 1
        else:
            result &= ~labels.dtype.type(1 << place)
            result[after] |= labels.dtype.type(1 << place)
    return result


def common_rules(several: Sequence[Rules]) -> dict[str, tuple[Rule, ...]]:
    """For an ensemble: what each of its members does, and of volumes the smallest."""
    first, *others = several
    kept: dict[str, tuple[Rule, ...]] = {}
    for name, rules in first.items():
        shared = []
        for rule in rules:
            same = [next((r for r in o.get(name, ()) if r.rule == rule.rule), None) for o in others]
            if None in same:
                continue
            shared.append(min((rule, *filter(None, same)), key=lambda each: each.value or 0.0))
        kept[name] = tuple(shared)
    return kept


def read_rules(checkpoint: Path) -> dict[str, tuple[Rule, ...]]:
    """What the run of a checkpoint file chose; nothing for a file that lies in no run's folder.

    Raises InputError for a damaged record.
    """
    file = checkpoint.resolve().parent.parent / RECORD
    if not file.is_file():
        return {}
    try:
        return rules_from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{file} is not what a run wrote: {error}; restore or remove it"
        ) from error


def told(rules: Rules) -> str:
    """The rules in a line for people."""
    lines = [
        f"{name} {one.rule}{'' if one.value is None else f' {one.value:g}'}: Dice "
        f"{one.dice_before:.3f} to {one.dice_after:.3f} on {one.n} validation case(s)"
        for name, each in rules.items()
        for one in each
    ]
    return "; ".join(lines) or "no post-processing helps the validation cases"


def rules_from_dict(values: Mapping[str, Any]) -> dict[str, tuple[Rule, ...]]:
    """The rules that `{name: [asdict(rule), ...]}` wrote, also after a way through JSON."""
    return {name: tuple(Rule(**rule) for rule in rules) for name, rules in values.items()}


def _mask(labels: np.ndarray, place: int, *, exclusive: bool) -> np.ndarray:
    return labels == place + 1 if exclusive else (labels >> place & 1).astype(bool)


def _after(
    mask: np.ndarray, rules: Sequence[Rule], spacing_mm: Sequence[float], free: np.ndarray | None
) -> np.ndarray:
    """The mask after its rules, filling first: a hole's volume counts for its component."""
    values = {rule.rule: rule.value for rule in rules}
    after = _filled(mask, free) if FILL in values else mask
    if LARGEST in values or MINIMUM in values:
        components, sizes = _components(after)
        removal = LARGEST if LARGEST in values else values[MINIMUM]
        after = _kept(sizes, removal, float(np.prod(spacing_mm)))[components]
    return after


def _filled(mask: np.ndarray, free: np.ndarray | None) -> np.ndarray:
    """Holes filled in 3D, in a single slice within it; only where `free` allows."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    # A hole lies within the mask's box, and what reaches the box's faces is none. Labelling what is
    # outside takes one pass, where binary_fill_holes takes one for every voxel of the way in.
    outside, count = ndimage.label(~mask[box])
    closed = np.arange(count + 1) > 0
    for axis in range(mask.ndim) if len(mask) > 1 else range(1, mask.ndim):
        for face in (0, -1):
            closed[np.take(outside, face, axis=axis)] = False
    whole = mask.copy()
    whole[box] |= closed[outside]
    return whole if free is None else mask | (whole & free)


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Component of every voxel, 0 outside, and the components' sizes in voxels, 0 for outside."""
    box = ndimage.find_objects(mask.astype(np.uint8))[0]
    components = np.zeros(mask.shape, dtype=np.int32)
    count = ndimage.label(mask[box], structure=TOUCHING, output=components[box])
    # By slices: bincount makes 8 bytes of every voxel that it gets at once.
    sizes = np.zeros(count + 1, dtype=np.int64)
    for plane in components[box]:
        sizes += np.bincount(plane.ravel(), minlength=count + 1)
    sizes[0] = 0
    return components, sizes


def _kept(sizes: np.ndarray, removal: str | float | None, voxel_mm3: float) -> np.ndarray:
    """Which components stay: all, those of at least a volume in mm3, or the largest."""
    if isinstance(removal, str):
        return np.asarray(np.arange(len(sizes)) == int(sizes.argmax()))
    return np.asarray((sizes > 0) & (sizes * voxel_mm3 >= (removal or 0.0)))


def _dice_of_removals(
    mask: np.ndarray, reference: np.ndarray, counted: np.ndarray, voxel_mm3: float
) -> list[float]:
    """Dice after every one of REMOVALS; 1 where nothing is left and nothing was wanted."""
    components, sizes = _components(mask)
    judged = np.bincount(components[counted], minlength=len(sizes))
    overlap = np.bincount(components[reference], minlength=len(sizes))
    truth = int(np.count_nonzero(reference))
    values = []
    for removal in REMOVALS:
        keep = _kept(sizes, removal, voxel_mm3)
        total = int(judged[keep].sum()) + truth
        values.append(2 * int(overlap[keep].sum()) / total if total else 1.0)
    return values


def _chosen(table: np.ndarray) -> list[Rule]:
    """Rules from Dice (cases, 2, candidates): unfilled and filled, removals from none upwards."""
    means = table.mean(axis=0)
    n, rules, now = len(table), [], float(means[0, 0])
    best = int(means[0].argmax())  # the first, so the mildest, of equals
    if means[0, best] <= now + LEAST_GAIN:
        best = 0  # what is not done has no part in what filling is judged by
    else:
        removal = REMOVALS[best]
        rules.append(
            Rule(
                rule=LARGEST if removal == LARGEST else MINIMUM,
                value=None if isinstance(removal, str) else removal,
                dice_before=now,
                dice_after=float(means[0, best]),
                n=n,
            )
        )
        now = float(means[0, best])
    if means[1, best] > now + LEAST_GAIN:
        rules.append(
            Rule(rule=FILL, value=None, dice_before=now, dice_after=float(means[1, best]), n=n)
        )
    return rules
