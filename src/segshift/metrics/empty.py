"""The one table of what a metric says when a mask is empty.

Every metric asks here first, so that no mean can improve because a model missed a structure.
"""

import math

import numpy as np
from numpy.typing import NDArray


def value_if_empty(
    pred: NDArray[np.bool_], ref: NDArray[np.bool_], *, worst: float
) -> float | None:
    """Value fixed by policy, or None when both masks have voxels and the metric is computed.

    | prediction | reference | value | why                                                         |
    |------------|-----------|-------|-------------------------------------------------------------|
    | empty      | empty     | NaN   | nothing to measure; left out of means, and `n` shows it     |
    | empty      | voxels    | worst | a miss; NaN or a dropped case would reward it               |
    | voxels     | empty     | worst | a false positive is an error however small it is            |

    `worst` is the metric's worst value on this image and must be finite, so that means exist.
    """
    match bool(pred.any()), bool(ref.any()):
        case False, False:
            return math.nan
        case True, True:
            return None
        case _:
            return worst
