"""How a whole case is predicted; the fields are the keys of `conf/prediction`."""

from dataclasses import dataclass

from segshift.errors import InputError


@dataclass(frozen=True, slots=True)
class PredictionOptions:
    """The defaults are also those of checkpoints that were written before these options."""

    overlap: float = 0.25  # of neighbouring windows, as a share of their edge
    mirror: tuple[int, ...] = ()  # axes (0 z, 1 y, 2 x); each one doubles the cost
    budget_gb: float = 3.0  # for what is predicted of a case at a time; no image, no network
    window_batch: int = 2  # windows that the network sees at once

    def __post_init__(self) -> None:
        """Raises InputError for what no case could be predicted with."""
        if not 0 <= self.overlap <= 0.99:
            raise InputError(f"prediction.overlap={self.overlap}: a number from 0 to 0.99")
        if self.window_batch < 1 or self.budget_gb <= 0:
            raise InputError(
                f"prediction.window_batch={self.window_batch}, budget_gb={self.budget_gb}: at "
                "least 1 window, and a number of GB above 0"
            )
