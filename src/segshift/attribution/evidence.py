"""What one test of one kind of shift found, and the patients that it looked at."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.attribution.permutation import Choices, choices
from segshift.units import EVERY, Units


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A test's result; NaN as p where nothing could be measured.

    `smallest_p` is what these patients could have reached at best, whoever were at home. `large`
    says whether the effect is one that matters, however sure it is. A test that is not `complete`
    could not look at all that the question is about: it may say yes, but not no.
    """

    kind: str
    statistic: float
    p: float
    smallest_p: float
    detail: str
    large: bool = True
    complete: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Two tables of cases, of in_domain (`home`) and of a target site (`away`), to be compared.

    What is drawn depends on `seed` and the name of the target alone. Patients are those of home,
    then those of away, each side sorted by name.
    """

    home: pd.DataFrame
    away: pd.DataFrame
    target: str
    seed: int = 0

    def cases(self, start: str) -> pd.DataFrame:
        """The numbers whose names begin with `start`, a line a case, home first."""
        tables = [side[names(side, start)] for side in (self.home, self.away)]
        return pd.concat(tables, ignore_index=True)

    @property
    def owners(self) -> NDArray[np.int64]:
        """The place of each case's patient among all patients, (cases,)."""
        home, away = (
            np.unique(side["patient"], return_inverse=True)[1] for side in (self.home, self.away)
        )
        return np.concatenate([home, away + self.sizes[0]])

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

    def choices(self, home: int, away: int, *identity: str) -> Choices:
        """Who of so many patients might have been at home, (choices, home + away)."""
        return choices(home, away, seed=self.seed, identity=(self.target, *identity))


def names(table: pd.DataFrame, start: str) -> list[str]:
    """The columns whose names begin with `start`, in their order."""
    return [name for name in map(str, table.columns) if name.startswith(start)]
