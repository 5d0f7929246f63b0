"""How well people agree on a case: the yardstick beside a network's numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

from segshift.cohort import Annotation
from segshift.cohort.checks import IGNORED
from segshift.losses import IGNORE
from segshift.tasks.task import Score, Task


def rater_scores(
    task: Task,
    drawn: Mapping[str, np.ndarray],
    reference: np.ndarray,
    spacing_mm: Sequence[float] | None,
    *,
    annotation: Annotation,
) -> dict[str, list[Score]]:
    """By rater, every metric of their mask against the `reference`, class indices (D, H, W).

    `drawn` are class indices (D, H, W) by the manifest's column. A consensus holds a part of every
    rater's own mask, so there the first rater is the reference of the others. Structures in files
    of their own have one drawing and are left out.
    """
    others = dict(drawn)
    if annotation.raters and others:
        first = others.pop(next(iter(others))).astype(np.int16)
        first[first == IGNORED] = IGNORE
        reference = first
    return {
        rater: list(
            task.scores(
                task.drawn(mask), reference, spacing_mm, annotated=annotation.annotated_by_raters
            )
        )
        for rater, mask in others.items()
    }
