"""What a measured number means, said once by its metric and read everywhere else."""

from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

from segshift.errors import InputError
from segshift.units import PHYSICAL, Quantity, Units

Better = Literal["higher", "lower", "zero"]
Values = TypeVar("Values")


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric's `name` in rows, its `unit` ("" for a share) and which end is `better`.

    `zero`: too much and too little are both wrong, so a mean is a bias. Such a measure is signed:
    it has no worst site, no gap and no ranks.
    """

    name: str
    unit: str
    better: Better

    def __post_init__(self) -> None:
        """Refuse an end that no table could be read with."""
        if self.better not in get_args(Better):
            raise InputError(
                f"metric {self.name!r}: `better` is {self.better!r}; it is one of "
                f"{', '.join(get_args(Better))}"
            )

    @property
    def signed(self) -> bool:
        """Whether neither end is the good one."""
        return self.better == "zero"

    def badness(self, values: Values) -> Values:
        """Numbers, arrays or columns such that larger is worse, and differences keep their size."""
        known: Any = values
        worse: Values = {"higher": -known, "lower": known, "zero": abs(known)}[self.better]
        return worse


def measure_of(metric: Any, units: Units = Units()) -> Measure:  # noqa: ANN401, B008 - a constant
    """What a metric measures in a case of these units, by default in a volume of known spacing.

    Raises InputError for one that lacks a declaration, whatever a config names.
    """
    for field, kinds in (("name", str), ("unit", str | Quantity), ("better", str)):
        found = getattr(metric, field, None)
        if not isinstance(found, kinds) or found in PHYSICAL:
            raise InputError(
                f"the metric {type(metric).__qualname__} says {field}={found!r}; a metric declares "
                "its name, its unit ('' for a share; Quantity.LENGTH or Quantity.SIZE for what has "
                f"the unit of its case, such as mm) and better: {', '.join(get_args(Better))}"
            )
    if isinstance(metric.unit, str):
        return Measure(metric.named(units), metric.unit, metric.better)
    unit = units.of(metric.unit)
    return Measure(f"{metric.named(units)}_{unit}", unit, metric.better)
