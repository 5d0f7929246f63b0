"""One pair of files to the numbers of a case, by the same code as a run's own cases."""

from collections.abc import Iterator

import numpy as np

from segshift.cohort.checks import IGNORED, load_label
from segshift.losses import IGNORE
from segshift.scoring.pairs import Pair
from segshift.tasks import Score, Semantic


def score_pair(pair: Pair, *, task: Semantic) -> Iterator[Score]:
    """Every metric of `task` of every structure annotated in the reference; a miss is all empty.

    Raises InputError naming the case, for values that mean nothing too.
    """
    reference = load_label(pair.case).astype(np.int16)
    reference[reference == IGNORED] = IGNORE
    prediction = np.zeros(reference.shape, dtype=np.uint8)
    if pair.prediction is not None:
        # A prediction that leaves a voxel undecided has no structure there.
        labels = load_label(pair.prediction)
        prediction = np.where(labels == IGNORED, np.uint8(0), labels)
    yield from task.scores(prediction, reference, pair.spacing_mm, annotated=pair.case.annotated)
