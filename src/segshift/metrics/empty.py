"""The one table of what a metric says when a mask is empty.

Overlaps, distances and volumes ask here first: the reference alone decides which cases they are of.
"""

import math

from segshift.metrics.pair import MaskPair


def value_if_empty(pair: MaskPair, *, miss: float) -> float | None:
    """Value fixed by policy, or None when both masks have voxels and the metric is computed.

    | reference | prediction | value  | why                                                       |
    |-----------|------------|--------|-----------------------------------------------------------|
    | empty     | any        | NaN    | there is nothing to find: `FalseAlarm` judges such a case |
    | voxels    | empty      | `miss` | NaN or a dropped case would reward it                     |

    A miss is finite, so that means exist, and as bad as the metric can be on this image: 0 for
    overlaps, shares and lesions, the image's diagonal for distances. What is signed says minus.
    """
    if pair.ref_voxels == 0:
        return math.nan
    return miss if pair.pred_voxels == 0 else None
