"""The split for another case mix: parts of the test cases in which a structure is rarer or larger.

The same scanner, the same annotators, other patients: what a change of prevalence alone does.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from segshift.cohort import Case, Cohort
from segshift.cohort.checks import check_headers, load_label
from segshift.errors import InputError
from segshift.progress import threads, tracked
from segshift.splits.sites import leave_site_out, random
from segshift.splits.split import IN_DOMAIN, Split, set_name
from segshift.splits.strata import Patient, cases_of, proportional, strata

WIDER = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # tolerances that are tried, to advise one


def prevalence(
    cohort: Cohort,
    *,
    seed: int,
    structure: str,
    val_fraction: float,
    test_fraction: float,
    prevalence: float | Sequence[float] | None = None,
    volume_ml: float | Sequence[float] | None = None,
    tolerance: float = 0.01,
    held_out: str | Sequence[str] | None = None,
) -> Split:
    """Judge on parts of `in_domain` in which more or fewer cases have a structure, or more of it.

    `prevalence-<structure>-<share>` is the largest part in which that share of the cases has the
    structure; `volume-<structure>-<ml>` the largest in which a case has that much of it on average
    (0 ml where there is none). The share is met within `tolerance`, the volume within that part of
    itself; the number of cases is exact: no larger part is as near. No case comes twice, patients
    stay whole, and cases that do not annotate the structure are in no part. `held_out` sites are
    kept out as `leave_site_out` does. Reads the labels of `in_domain`. Raises InputError for what
    no part reaches.
    """
    if structure not in cohort.structures:
        raise InputError(
            f"split.structure={structure}: {cohort.name} has {list(cohort.structures)}"
        )
    shares, volumes = _wanted("prevalence", prevalence, 1), _wanted("volume_ml", volume_ml)
    _wanted("tolerance", [tolerance], 1)
    if not shares and not volumes:
        raise InputError(
            "split=prevalence takes split.prevalence=[0.2,0.8], the share of cases that have "
            f"{structure!r}, or split.volume_ml=[5,50], their mean volume in ml, or both"
        )
    fractions = {"seed": seed, "val_fraction": val_fraction, "test_fraction": test_fraction}
    home = (
        leave_site_out(cohort, held_out=held_out, **fractions)  # type: ignore[arg-type]
        if held_out
        else random(cohort, **fractions)  # type: ignore[arg-type]
    )
    place = cohort.structures.index(structure)
    pool = [case for case in home.tests[IN_DOMAIN] if case.annotated[place]]
    measured = _volumes_ml(pool, place)
    patients = proportional(strata(pool, seed))
    present = {identity: float(ml > 0) for identity, ml in measured.items()}
    sets = {}
    for kind, option, targets, of_case in (
        ("prevalence", "prevalence", shares, present),
        ("volume", "volume_ml", volumes, measured),
    ):
        for target in targets:
            scale = target if kind == "volume" else 1.0
            sets[set_name(kind, structure, f"{target:.12g}")] = _part(
                patients, of_case, f"split.{option}", target, scale, tolerance
            )
    return Split(home.train, home.val, {**home.tests, **sets})


def largest_part(
    cases: NDArray[np.int64], sums: NDArray[np.float64], *, low: float, high: float
) -> NDArray[np.bool_] | None:
    """Which patients (P,) make the largest part whose mean per case lies from `low` to `high`.

    `cases` (P,) says how many each has, `sums` (P,) what they add up to. None if no part does.
    Among patients alike the first ones are taken.
    """
    from scipy.optimize import LinearConstraint, milp  # half a second, and few splits need it

    scale = max(abs(low), abs(high)) or 1.0  # the solver's own tolerance is absolute
    rows = [cases, (sums - low * cases) / scale, (sums - high * cases) / scale]
    found = milp(
        -cases,
        integrality=np.ones(len(cases)),
        bounds=(0, 1),
        constraints=LinearConstraint(np.stack(rows), [1, 0, -np.inf], [np.inf, np.inf, 0]),
        options={"mip_rel_gap": 0},
    )
    if found.x is None:
        return None
    chosen = np.asarray(found.x > 0.5)
    _, kinds = np.unique(np.column_stack([cases, sums]), axis=0, return_inverse=True)
    for kind in range(kinds.max() + 1):
        alike = np.flatnonzero(kinds == kind)
        chosen[alike] = np.arange(len(alike)) < chosen[alike].sum()
    return chosen


def _part(
    patients: Sequence[Patient],
    of_case: Mapping[str, float],
    option: str,
    target: float,
    scale: float,
    tolerance: float,
) -> tuple[Case, ...]:
    """The largest part whose mean is `target` within `tolerance` times `scale`."""
    cases = np.array([len(own) for own in patients], dtype=np.int64)
    sums = np.array([sum(of_case[case.id] for case in own) for own in patients])

    def within(near: float) -> NDArray[np.bool_] | None:
        low, high = target - near * scale, target + near * scale
        return largest_part(cases, sums, low=low, high=high) if patients else None

    chosen = within(tolerance)
    if chosen is not None:
        return cases_of(own for own, is_in in zip(patients, chosen, strict=True) if is_in)
    reach = f"from {(sums / cases).min():.4g} to {(sums / cases).max():.4g}" if patients else "none"
    wider = (near for near in WIDER if near > tolerance and within(near) is not None)
    near = next(wider, None)
    raise InputError(
        f"{option}={target:g}: no part of the {cases.sum()} annotated case(s) of in_domain has "
        f"that within split.tolerance={tolerance:g}; whole patients reach values {reach}. "
        + (f"Take split.tolerance={near:g}" if near else "Ask for another value")
        + ", or more test cases with split.test_fraction"
    )


def _volumes_ml(cases: Sequence[Case], place: int) -> dict[str, float]:
    """By case the volume of the structure at `place`, from the labels alone."""
    with ThreadPoolExecutor(threads()) as pool:
        volumes = pool.map(lambda case: _volume_ml(case, place), cases)
        bar = tracked(volumes, "structure volumes", total=len(cases))
        return {case.id: volume for case, volume in zip(cases, bar, strict=True)}


def _volume_ml(case: Case, place: int) -> float:
    voxels = int(np.count_nonzero(load_label(case) == place + 1))
    return voxels * math.prod(check_headers(case).spacing_mm) / 1000


def _wanted(
    option: str, values: float | Sequence[float] | None, most: float = math.inf
) -> list[float]:
    wanted = values if isinstance(values, list | tuple) else [] if values is None else [values]
    for value in wanted:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            to = "up" if most == math.inf else f"to {most:g}"
            raise InputError(f"split.{option}={values}: numbers from 0 {to}")
    return list(wanted)
