"""Whether paired differences are more than chance: pure functions of one number per patient.

The sign-flip test asks how often the sum would be as far from 0 if every patient's difference could
as well have had the other sign: a test of the very mean difference that tables show. It is
two-sided. With n patients no p can be below 2 / 2^n.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from segshift import seeds

CAN_REACH_5_PERCENT = 6  # patients: 2 / 2^6 is the first p below 0.05
EXACT_UP_TO = 12  # patients: 4096 patterns of signs
FLIPS = 10_000
ROUNDING = 1e-10  # sums of the same numbers in another order differ by less


def sign_flip_p(differences: ArrayLike, *, identity: Sequence[str] = (), seed: int = 0) -> float:
    """The share of sign patterns whose sum is at least as far from 0 as that of `differences` (n,).

    All patterns up to 12 patients. Above, 10,000 drawn from the seed and `identity`, and the one
    that was seen counts as well, so p is never 0.
    """
    values = np.asarray(differences, dtype=np.float64)
    if len(values) <= EXACT_UP_TO:
        return float(_as_far(_all_signs(len(values)), values).mean())
    random = seeds.generator(seed, "sign flips", *identity)
    signs = random.integers(0, 2, (FLIPS, len(values)), dtype=np.int8) * 2 - 1
    return float((_as_far(signs, values).sum() + 1) / (FLIPS + 1))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values (n,) corrected for being n (Holm, Scandinavian Journal of Statistics 6, 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(corrected, 1.0)


def _all_signs(n: int) -> NDArray[np.int64]:
    return 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)


def _as_far(signs: NDArray[np.integer], values: NDArray[np.float64]) -> NDArray[np.bool_]:
    sums = np.abs(signs @ values)
    seen = np.abs(values.sum()) - ROUNDING * np.abs(values).sum()
    return np.asarray(sums >= seen)
