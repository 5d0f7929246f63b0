"""How large the object is that a network predicts, by which a case's scale is found."""

from collections.abc import Callable, Iterable

import numpy as np
import torch

from segshift.inference.slabs import Slab
from segshift.plan import object_px

Masks = Callable[[torch.Tensor], Iterable[np.ndarray]]


def predicted_object_px(slabs: Iterable[Slab], masks: Masks) -> float | None:
    """The width of all structures together, in pixels of the case's own grid; None without any.

    `masks` makes one of each structure, bool (d, H, W), of a slab's probabilities (K, d, H, W).
    """
    widths = [object_px(np.logical_or.reduce([*masks(slab.probability)])) for slab in slabs]
    return max((width for width in widths if width is not None), default=None)
