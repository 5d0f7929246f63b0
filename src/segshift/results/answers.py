"""Which of several tests show something, corrected for being asked together.

A test of so few patients that not even the clearest data could pass it says nothing, and need not
be corrected for: the smallest p that it could have had is known without who was where. Holm's
correction is over the largest set of tests that can all pass it (Tarone, Biometrics 46, 1990,
515-522).
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from segshift.results.significance import holm

LEVEL = 0.05  # a corrected p up to which something counts as shown


def answered(tests: pd.DataFrame) -> pd.DataFrame:
    """The tests of one family with their `p_corrected` and `answer`.

    Of the columns `p` (NaN where nothing could be measured), `smallest_p`, what the test could have
    had at best, `large`, whether its effect is one that matters, and `complete`, whether it looked
    at all that is asked. The answer is yes (shown), no (not shown, which proves no equality) or
    unknown: not all could be looked at or, without a corrected p, so few patients can reach no p
    that would count.
    """
    counted = can_pass(tests["smallest_p"].where(tests["p"].notna(), 1.0))
    corrected = np.full(len(tests), np.nan)
    corrected[counted] = holm(tests["p"].to_numpy(np.float64)[counted])
    shown = (corrected <= LEVEL) & tests["large"].to_numpy(bool)
    unshown = np.where(tests["complete"].to_numpy(bool), "no", "unknown")
    answer = np.where(counted, np.where(shown, "yes", unshown), "unknown")
    return tests.assign(p_corrected=corrected, answer=answer)


def can_pass(smallest_p: ArrayLike) -> NDArray[np.bool_]:
    """Which tests (n,) can reach LEVEL after correction for all that can."""
    smallest = np.asarray(smallest_p, dtype=np.float64)
    for tests in range(1, len(smallest) + 1):
        enough = smallest * tests <= LEVEL
        if np.count_nonzero(enough) <= tests:
            return np.asarray(enough)
    return np.zeros(len(smallest), dtype=bool)
