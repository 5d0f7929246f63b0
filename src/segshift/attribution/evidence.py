"""What one test of one kind of shift found, and the patients that it looked at."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.attribution.permutation import choices
from segshift.units import EVERY, Units


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A test's result; NaN as p where nothing could be measured.

    `smallest_p` is what so few patients could reach at best. `large` says whether the effect is
    one that matters, however sure it is. A test that is not `complete` could not look at all that
    the question is about: it may say yes, but not no.
    """

    kind: str
    statistic: float
    p: float
    smallest_p: float
    detail: str
    large: bool = True
    complete: bool = True

    @property
    def unmeasured(self) -> bool:
        """Whether there was nothing to test."""
        return math.isnan(self.p)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Two tables of cases, of in_domain (`home`) and of a target site (`away`), to be compared.

    What is drawn depends on `seed` and the name of the target alone.
    """

    home: pd.DataFrame
    away: pd.DataFrame
    target: str
    seed: int = 0

    def patients(self, start: str) -> pd.DataFrame:
        """The numbers whose names begin with `start`: patients of home, then of away, as lines."""
        sides = [_means(table, start) for table in (self.home, self.away)]
        return pd.concat(sides, ignore_index=True)

    @property
    def units(self) -> list[Units]:
        """In what the cases of either side were measured; sizes in two of them do not compare."""
        return [each for each in EVERY if self.known(f"{each.size_name}/predicted/")]

    def known(self, start: str) -> bool:
        """Whether some case of either side has a number whose name begins with `start`."""
        columns = names(self.home, start)
        return any(side[columns].notna().any(axis=None) for side in (self.home, self.away))

    @property
    def sizes(self) -> tuple[int, int]:
        """Patients at home and away."""
        return self.home["patient"].nunique(), self.away["patient"].nunique()

    def choices(self) -> NDArray[np.bool_]:
        """Who might have been at home, (choices, patients)."""
        return choices(*self.sizes, seed=self.seed, identity=(self.target,))


def names(table: pd.DataFrame, start: str) -> list[str]:
    """The columns whose names begin with `start`, in their order."""
    return [name for name in map(str, table.columns) if name.startswith(start)]


def _means(table: pd.DataFrame, start: str) -> pd.DataFrame:
    """Of each patient, over the cases in which the number is known."""
    return table.groupby("patient")[names(table, start)].mean()
