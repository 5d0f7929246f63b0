"""How a whole case is predicted; the fields are the keys of `conf/prediction`."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from segshift.errors import InputError

LEAST_GB = 0.01  # of a budget


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """The defaults are also those of checkpoints that were written before these options."""

    overlap: float = 0.25  # of neighbouring windows, as a share of their edge
    mirror: tuple[int, ...] = ()  # axes (0 z, 1 y, 2 x); each one doubles the cost
    budget_gb: float = 3.0  # for what is predicted of a case at a time; no image, no network
    window_batch: int | None = None  # windows that the network sees at once; None: by their size

    def __post_init__(self) -> None:
        """Raises InputError for what no case could be predicted with."""
        if not (type(self.overlap) in (int, float) and 0 <= self.overlap <= 0.99):
            raise InputError(f"overlap={self.overlap}: a number from 0 to 0.99")
        if not (type(self.budget_gb) in (int, float) and LEAST_GB <= self.budget_gb < math.inf):
            raise InputError(f"budget_gb={self.budget_gb}: a number of GB from {LEAST_GB}")
        at_once = self.window_batch
        if at_once is not None and not (type(at_once) is int and at_once >= 1):
            raise InputError(
                f"window_batch={at_once}: a whole number of windows from 1, or null to have "
                "it follow from their size"
            )
        if not (isinstance(self.mirror, tuple) and all(type(axis) is int for axis in self.mirror)):
            raise InputError(
                f"mirror={self.mirror}: a list of axes, such as [0,1,2], z first; [] for none"
            )


def changed(options: PredictionOptions, values: Mapping[str, object]) -> PredictionOptions:
    """The options with those `values` that are not None, as a config has them.

    Raises InputError.
    """
    given = {str(name): value for name, value in values.items() if value is not None}
    mirror = given.get("mirror")
    if isinstance(mirror, Sequence) and not isinstance(mirror, str):
        given["mirror"] = tuple(mirror)
    return replace(options, **given)  # type: ignore[arg-type]
