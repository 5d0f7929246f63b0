"""Which patients make a part of a set with another mean per case, and the sites in their shares.

Pure functions of counts: `cases` (S, P) says how many cases each patient has at every site, `sums`
(P,) what they add up to, such as cases with a lesion or ml of it.
"""

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def largest_part(
    cases: Counts, sums: Floats, *, low: float, high: float, site_tolerance: float
) -> NDArray[np.bool_] | None:
    """Which patients (P,) make the largest part whose mean per case lies from `low` to `high`.

    The share that each site has of the cases is within `site_tolerance` that of the whole. None if
    there is no such part. Among patients alike the first ones are taken.
    """
    from scipy.optimize import LinearConstraint, milp  # half a second, and few splits need it

    scale = max(abs(low), abs(high)) or 1.0  # the solver's own tolerance is absolute
    every = cases.sum(axis=0)
    not_negative = np.vstack([(sums - low * every) / scale, _beyond(cases, -site_tolerance)])
    not_positive = np.vstack([(sums - high * every) / scale, _beyond(cases, site_tolerance)])
    found = milp(
        -every,
        integrality=np.ones(len(every)),
        bounds=(0, 1),
        constraints=[
            LinearConstraint(every, 1),
            LinearConstraint(not_negative, 0),
            LinearConstraint(not_positive, -np.inf, 0),
        ],
        options={"mip_rel_gap": 0},
    )
    if found.x is None:
        return None
    chosen = np.asarray(found.x > 0.5)
    _, kinds = np.unique(np.vstack([cases, sums]), axis=1, return_inverse=True)
    for kind in range(kinds.max() + 1):
        alike = np.flatnonzero(kinds == kind)
        chosen[alike] = np.arange(len(alike)) < chosen[alike].sum()
    return chosen


def reach(cases: Counts, sums: Floats, *, site_tolerance: float) -> tuple[float, float]:
    """The least and the largest mean per case that the sites' shares allow.

    They are exact for many cases alike; few whole patients may stay short of them.
    """
    from scipy.optimize import linprog

    rows = np.vstack([-_beyond(cases, -site_tolerance), _beyond(cases, site_tolerance)])
    one = {"A_eq": cases.sum(axis=0)[None], "b_eq": [1]}  # a mean: weights of one case in all
    ends = [
        sign * linprog(sign * sums, A_ub=rows, b_ub=np.zeros(len(rows)), **one).fun
        for sign in (1, -1)
    ]
    return float(ends[0]), float(ends[1])


def _beyond(cases: Counts, tolerance: float) -> Floats:
    """Rows (S, P): summed over a part, the cases of a site beyond its share plus the tolerance."""
    shares = cases.sum(axis=1, keepdims=True) / cases.sum()
    return np.asarray(cases - (shares + tolerance) * cases.sum(axis=0))
