"""One pair of files to the numbers of a case, by the same code as a run's own cases."""

from collections.abc import Iterator

import numpy as np

from segshift.cohort import Case
from segshift.cohort.checks import IGNORED, load_label, load_raters
from segshift.losses import IGNORE
from segshift.scoring.pairs import Pair
from segshift.tasks import Score, Semantic, rater_scores


def score_pair(pair: Pair, *, task: Semantic) -> Iterator[Score]:
    """Every metric of `task` of every structure annotated in the reference; a miss is all empty.

    Raises InputError naming the case, for values that mean nothing too.
    """
    reference = _reference(pair.case)
    prediction = np.zeros(reference.shape, dtype=np.uint8)
    if pair.prediction is not None:
        # A prediction that leaves a voxel undecided has no structure there.
        labels = load_label(pair.prediction)
        prediction = np.where(labels == IGNORED, np.uint8(0), labels)
    yield from task.scores(
        prediction, reference, pair.spacing_mm, annotated=pair.case.annotation.annotated
    )


def raters_of_pair(pair: Pair, *, task: Semantic) -> dict[str, list[Score]]:
    """By rater, the same of the masks of other people: how well people agree."""
    drawn = load_raters(pair.case)
    if not drawn:
        return {}
    return rater_scores(
        task, drawn, _reference(pair.case), pair.spacing_mm, annotation=pair.case.annotation
    )


def _reference(case: Case) -> np.ndarray:
    reference = load_label(case).astype(np.int16)
    reference[reference == IGNORED] = IGNORE
    return reference
