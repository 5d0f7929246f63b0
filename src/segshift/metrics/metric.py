"""The contract of a metric: two masks of one structure and the voxel spacing in, one number out."""

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from segshift.errors import InputError
from segshift.metrics.pair import MaskPair

# Neither end of these is the good one: too much and too little are both wrong.
SIGNED = re.compile(r"boundary_offset_mm|volume_difference_(ml|relative)")


class Metric(Protocol):
    """A pure function of one structure's masks; NaN only where `metrics/empty.py` says so.

    A metric implements `of`; who has several metrics to compute makes one pair for all of them.
    """

    @property
    def name(self) -> str:
        """Name in rows and summaries, with its unit if it has one: `hd95_mm`."""

    @property
    def higher_is_better(self) -> bool:
        """Which end of the scale is the good one."""

    def of(self, pair: MaskPair) -> float:
        """The value of a pair of masks."""

    def __call__(
        self, pred: NDArray[np.bool_], ref: NDArray[np.bool_], spacing_mm: Sequence[float]
    ) -> float:
        """Score `pred` against `ref`, both (D, H, W); spacing in mm as (z, y, x)."""
        return self.of(MaskPair(pred, ref, spacing_mm))


def check_metrics(metrics: Sequence[Metric]) -> None:
    """Raises InputError for none, for two of one name, and for a first one that is signed."""
    names = [metric.name for metric in metrics]
    if not names:
        raise InputError("metrics=[]: name at least one")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"metrics: two are called {', '.join(twice)}, of which rows could not be told apart; "
            f"take one of them out of {names}"
        )
    if SIGNED.fullmatch(names[0]):
        raise InputError(
            f"metrics: {names[0]} comes first, so it would choose the checkpoint and the worst "
            "site, but neither end of it is the good one; put another one first, such as Dice"
        )
