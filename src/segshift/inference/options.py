"""How a whole case is predicted; the fields are the keys of `conf/prediction`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """The defaults are also those of checkpoints that were written before these options."""

    overlap: float = 0.25  # of neighbouring windows, as a share of their edge
    mirror: tuple[int, ...] = ()  # axes (0 z, 1 y, 2 x); each one doubles the cost
    budget_gb: float = 3.0  # for what is predicted of a case at a time; no image, no network
    window_batch: int = 2  # windows that the network sees at once
