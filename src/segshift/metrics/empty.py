"""The one table of what a metric says when a mask is empty.

Every metric asks here first, so that no mean can improve because a model missed a structure.
"""

import math

from segshift.metrics.pair import MaskPair


def value_if_empty(pair: MaskPair, *, miss: float, false_positive: float) -> float | None:
    """Value fixed by policy, or None when both masks have voxels and the metric is computed.

    | prediction | reference | value            | why                                              |
    |------------|-----------|------------------|--------------------------------------------------|
    | empty      | empty     | NaN              | nothing to measure; in no mean, and `n` shows it |
    | empty      | voxels    | `miss`           | NaN or a dropped case would reward it            |
    | voxels     | empty     | `false_positive` | an error however small it is                     |

    Both are finite, so that means exist, and as bad as the metric can be on this image: 0 for
    overlaps, shares and lesions, the image's diagonal for distances. What is signed says in which
    direction: minus for a miss, plus for a false positive. A count of false positives needs no
    policy: it is 0 where nothing is predicted, also where there was nothing to find.
    """
    match pair.pred_voxels > 0, pair.ref_voxels > 0:
        case False, False:
            return math.nan
        case False, True:
            return miss
        case True, False:
            return false_positive
        case _:
            return None
