"""The split for another case mix: parts of the test cases in which a structure is rarer or larger.

The same scanner, the same annotators, other patients: what a change of prevalence alone does.
"""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from segshift.cohort import Case, Cohort
from segshift.cohort.checks import check_headers, load_label
from segshift.errors import InputError
from segshift.progress import threads, tracked
from segshift.splits.parts import largest_part, reach
from segshift.splits.sites import leave_site_out, random
from segshift.splits.split import IN_DOMAIN, Split, set_name
from segshift.splits.strata import Patient, cases_of, proportional, strata
from segshift.units import NO_PHYSICAL_SIZE, Grid

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
    site_tolerance: float = 0.05,
    held_out: str | Sequence[str] | None = None,
) -> Split:
    """Judge on parts of `in_domain` in which more or fewer cases have a structure, or more of it.

    `prevalence-<structure>-<share>` is the largest part in which that share of the cases has the
    structure; `volume-<structure>-<ml>` the largest in which a case has that much of it on average
    (0 ml where there is none). The share is met within `tolerance`, the volume within that part of
    itself; the share of each site within `site_tolerance` of its share of all of them, since other
    sites would be other scanners. The number of cases is exact: no larger part is as near. No case
    comes twice, patients stay whole, and cases that do not annotate the structure are in no part.
    `held_out` sites are kept out as `leave_site_out` does. Reads the labels of `in_domain`. Raises
    InputError for what no part reaches.
    """
    if structure not in cohort.structures:
        raise InputError(
            f"split.structure={structure}: {cohort.name} has {list(cohort.structures)}"
        )
    shares, volumes = _wanted("prevalence", prevalence, 1), _wanted("volume_ml", volume_ml)
    _wanted("tolerance", [tolerance], 1)
    _wanted("site_tolerance", [site_tolerance], 1)
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
    pool = [case for case in home.tests[IN_DOMAIN] if case.annotation.annotated[place]]
    if not pool:
        raise InputError(f"split.structure={structure}: no case of {IN_DOMAIN} annotates it")
    measured = _sizes(pool, place, unit="ml" if volumes else None)
    patients = proportional(strata(pool, seed))
    present = {identity: float(size > 0) for identity, size in measured.items()}
    sets = {}
    for kind, option, targets, of_case in (
        ("prevalence", "prevalence", shares, present),
        ("volume", "volume_ml", volumes, measured),
    ):
        for target in targets:
            scale = target if kind == "volume" else 1.0
            sets[set_name(kind, structure, f"{target:.12g}")] = _part(
                patients,
                of_case,
                f"split.{option}={target:g}",
                target=target,
                scale=scale,
                tolerance=tolerance,
                site_tolerance=site_tolerance,
            )
    return Split(home.train, home.val, {**home.tests, **sets})


def _part(
    patients: Sequence[Patient],
    of_case: Mapping[str, float],
    asked: str,
    *,
    target: float,
    scale: float,
    tolerance: float,
    site_tolerance: float,
) -> tuple[Case, ...]:
    """The largest part whose mean is `target` within `tolerance` times `scale`."""
    sites = sorted({case.site for own in patients for case in own})
    cases = np.array([[sum(c.site == site for c in own) for own in patients] for site in sites])
    sums = np.array([sum(of_case[case.id] for case in own) for own in patients])

    def within(near: float, apart: float) -> NDArray[np.bool_] | None:
        low, high = target - near * scale, target + near * scale
        return largest_part(cases, sums, low=low, high=high, site_tolerance=apart)

    chosen = within(tolerance, site_tolerance)
    if chosen is not None:
        return cases_of(own for own, is_in in zip(patients, chosen, strict=True) if is_in)
    low, high = reach(cases, sums, site_tolerance=site_tolerance)
    shares = dict(zip(sites, (cases.sum(axis=1) / cases.sum()).round(3).tolist(), strict=True))
    options = {
        "tolerance": (w for w in WIDER if w > tolerance and within(w, site_tolerance) is not None),
        "site_tolerance": (
            w for w in WIDER if w > site_tolerance and within(tolerance, w) is not None
        ),
    }
    advice = [f"split.{name}={w:g}" for name, found in options.items() for w in islice(found, 1)]
    raise InputError(
        f"{asked}: no part of the {cases.sum()} annotated case(s) of {IN_DOMAIN} has that within "
        f"split.tolerance={tolerance:g} and the shares of the sites, {shares}, within "
        f"split.site_tolerance={site_tolerance:g}; such parts reach values from {low:.4g} to "
        f"{high:.4g}. {'Take ' + ' or '.join(advice) if advice else 'Ask for another value'}, or "
        "more test cases with split.test_fraction"
    )


def _sizes(cases: Sequence[Case], place: int, *, unit: str | None) -> dict[str, float]:
    """By case the size of the structure at `place`, from the labels alone.

    Raises InputError for a case that is not measured in the `unit`, if one is wanted.
    """
    with ThreadPoolExecutor(threads()) as pool:
        sizes = pool.map(lambda case: _size(case, place, unit=unit), cases)
        bar = tracked(sizes, "structure sizes", total=len(cases))
        return {case.id: size for case, size in zip(cases, bar, strict=True)}


def _size(case: Case, place: int, *, unit: str | None) -> float:
    geometry = check_headers(case)
    grid = Grid(geometry.shape, geometry.known_mm)
    if unit and grid.units.size != unit:
        why = f"is a picture, in {grid.units.size}" if grid.units.known else NO_PHYSICAL_SIZE
        raise InputError(
            f"split.volume_ml: how many ml a structure has in case {case.id!r} cannot be said "
            f"({why}); take split.prevalence, the share of cases that have it"
        )
    return grid.size(int(np.count_nonzero(load_label(case) == place + 1)))


def _wanted(
    option: str, values: float | Sequence[float] | None, most: float = math.inf
) -> list[float]:
    wanted = values if isinstance(values, list | tuple) else [] if values is None else [values]
    for value in wanted:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            to = "up" if most == math.inf else f"to {most:g}"
            raise InputError(f"split.{option}={values}: numbers from 0 {to}")
    return list(wanted)
