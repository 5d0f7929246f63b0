"""The contract of a metric: two masks of one structure and the voxel spacing in, one number out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segshift.errors import InputError
from segshift.metrics.measure import Better, measure_of
from segshift.metrics.pair import MaskPair


class Metric(Protocol):
    """A pure function of one structure's masks; NaN only where the reference says so.

    Which cases a metric is of must not depend on the prediction: `metrics/empty.py` has the rule.
    A metric implements `of`; who has several metrics to compute makes one pair for all of them.
    """

    @property
    def name(self) -> str:
        """Name in rows and summaries, with its unit if it has one: `hd95_mm`."""

    @property
    def unit(self) -> str:
        """Unit of its values, such as mm; empty for a share."""

    @property
    def better(self) -> Better:
        """Which end of the scale is the good one: `higher`, `lower`, or `zero` if neither is."""

    def of(self, pair: MaskPair) -> float:
        """The value of a pair of masks."""

    def __call__(
        self, pred: NDArray[np.bool_], ref: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> float:
        """Score `pred` against `ref`, both (D, H, W); spacing in mm as (z, y, x)."""
        return self.of(MaskPair(pred, ref, spacing_mm))


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Raises InputError for none, for one that does not say what it measures, and for two alike.

    Also for a first one that is signed.
    """
    measures = [measure_of(metric) for metric in metrics]
    names = [measure.name for measure in measures]
    if not names:
        raise InputError("metrics=[]: name at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"metrics: two are called {', '.join(twice)}, of which rows could not be told apart; "
            f"take one of them out of {names}"
        )
    if measures[0].signed:
        raise InputError(
            f"metrics: {names[0]} comes first, so it would choose the worst site and the cases "
            "that are shown, but neither end of it is the good one; put another one first, such as "
            "Dice"
        )
