"""The contract of a metric: two masks of one structure and the voxel spacing in, one number out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segshift.errors import InputError
from segshift.metrics.measure import Better, Measure, measure_of
from segshift.metrics.pair import MaskPair
from segshift.units import EVERY, Quantity, Units


class Metric(Protocol):
    """A pure function of one structure's masks; NaN only where the reference says so.

    Which cases a metric is of must not depend on the prediction: `metrics/empty.py` has the rule.
    A metric implements `of`; who has several metrics to compute makes one pair for all of them.
    """

    @property
    def name(self) -> str:
        """What it is called, without a unit: `hd95`."""

    @property
    def unit(self) -> str | Quantity:
        """Unit of its values, empty for a share; of a length or a size the case has the unit."""

    @property
    def better(self) -> Better:
        """Which end of the scale is the good one: `higher`, `lower`, or `zero` if neither is."""

    def named(self, units: Units) -> str:
        """The name in a case of these units; the unit of a length or a size is put behind it."""
        return self.name

    def of(self, pair: MaskPair) -> float:
        """The value of a pair of masks, in the units of the pair."""

    def __call__(
        self, pred: NDArray[np.bool_], ref: NDArray[np.bool_], spacing_mm: Sequence[float] | None
    ) -> float:
        """Score `pred` against `ref`, both (D, H, W); spacing in mm as (z, y, x), None: unknown."""
        return self.of(MaskPair(pred, ref, spacing_mm))


def measured_by(metrics: Sequence[Metric], units: Sequence[Units] = EVERY) -> dict[str, Measure]:
    """All that the metrics can measure in cases of these units, by name, in their order."""
    found = [measure_of(metric, each) for metric in metrics for each in units]
    return {measure.name: measure for measure in found}


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Raises InputError for none, for one that does not say what it measures, and for two alike.

    Also for a first one that is signed.
    """
    if not metrics:
        raise InputError("metrics=[]: name at least one")
    for units in EVERY:
        names = [measure_of(metric, units).name for metric in metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(
                f"metrics: two are called {', '.join(twice)}, of which rows could not be told "
                f"apart; take one of them out of {names}"
            )
    first = measure_of(metrics[0])
    if first.signed:
        raise InputError(
            f"metrics: {first.name} comes first, so it would choose the worst site and the cases "
            "that are shown, but neither end of it is the good one; put another one first, such as "
            "Dice"
        )
