"""Overlap of centrelines, for tubes: whether they are connected, not how thick they are."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from skimage.morphology import skeletonize

from segshift.metrics.empty import value_if_empty
from segshift.metrics.measure import Better
from segshift.metrics.metric import Metric
from segshift.metrics.pair import Mask, MaskPair


@dataclass(frozen=True, slots=True)
class ClDice(Metric):
    """Centreline Dice in [0, 1]; 0 where nothing is predicted. For tubes alone.

    The harmonic mean of the share of the predicted centreline in the reference and the share of the
    reference's centreline in the prediction (Shit et al. 2021, arXiv:2003.07311).
    """

    name: ClassVar[str] = "cl_dice"
    unit: ClassVar[str] = ""
    better: ClassVar[Better] = "higher"

    def of(self, pair: MaskPair) -> float:
        """The value of a pair."""
        fixed = value_if_empty(pair, miss=0.0)
        if fixed is not None:
            return fixed
        pred, ref = pair.cropped
        precision = ref[_centreline(pred)].mean()
        sensitivity = pred[_centreline(ref)].mean()
        if precision + sensitivity == 0:
            return 0.0
        return float(2 * precision * sensitivity / (precision + sensitivity))


def _centreline(mask: Mask) -> Mask:
    """The skeleton of a mask (D, H, W), or all of one that thinning leaves nothing of."""
    line = np.asarray(skeletonize(mask), dtype=bool)
    return line if line.any() else mask
