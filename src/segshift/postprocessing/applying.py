"""Rules done to decoded labels (D, H, W): class indices (`exclusive`) or a bit per structure.

Every rule looks at one structure of the labels as they were decoded, so rules of different
structures do not depend on each other's order.
"""

from collections.abc import Sequence

import numpy as np

from segshift.postprocessing.components import Mask, components_of, filled
from segshift.postprocessing.rules import FILL, LARGEST, MINIMUM, Rule, Rules
from segshift.units import Grid


def postprocessed(
    labels: np.ndarray,
    rules: Rules,
    spacing_mm: Sequence[float] | None,
    *,
    structures: Sequence[str],
    exclusive: bool,
) -> np.ndarray:
    """Labels (D, H, W) after the rules; the very array where no rule is.

    A least size in one unit says nothing of a case that is measured in another.

    What is removed becomes background; holes are filled where nothing else is, and where two
    structures enclose one hole it goes to the first.
    """
    if not any(rules.get(name) for name in structures):
        return labels
    result, grid = labels.copy(), Grid(labels.shape, spacing_mm)
    for place, name in enumerate(structures):
        if not rules.get(name):
            continue
        mask = mask_of(labels, place, exclusive=exclusive)
        if not mask.any():
            continue
        after = _after(mask, rules[name], grid, free=labels == 0 if exclusive else None)
        if exclusive:
            result[mask & ~after] = 0
            result[after & (result == 0)] = place + 1
        else:
            result &= ~labels.dtype.type(1 << place)
            result[after] |= labels.dtype.type(1 << place)
    return result


def mask_of(labels: np.ndarray, place: int, *, exclusive: bool) -> Mask:
    """The mask of the structure at a place."""
    return labels == place + 1 if exclusive else (labels >> place & 1).astype(bool)


def _after(mask: Mask, rules: Sequence[Rule], grid: Grid, free: Mask | None) -> Mask:
    """The mask after its rules, filling first: a hole's size counts for its component."""
    values = {rule.rule: rule.value for rule in rules}
    after = filled(mask, free) if FILL in values else mask
    minimum = MINIMUM[grid.units.small_size]
    if LARGEST in values or minimum in values:
        components = components_of(after)
        removal = LARGEST if LARGEST in values else values[minimum]
        keep = components.kept(removal, grid.voxel)
        after = np.zeros_like(mask)
        after[components.box] = keep[components.places]
    return after
