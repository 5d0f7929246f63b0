"""Patients by site, in an order that is theirs alone.

A patient's place among those of a site comes from hash(seed, "split", patient): it depends neither
on the manifest's order nor on the patients of other sites. How many of a site are taken depends on
the sizes of all: many small sites together give the share that is asked for.
"""

from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from math import floor

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.seeds import derived_seed
from segshift.splits.split import sorted_cases

Patient = list[Case]  # all cases of one
Sites = dict[str, list[Patient]]  # by site


def strata(cases: Iterable[Case], seed: int) -> Sites:
    """Per site its patients; one of several sites is with the first by name."""
    patients: dict[str, Patient] = defaultdict(list)
    for case in cases:
        patients[case.patient].append(case)
    sites: dict[str, list[str]] = defaultdict(list)
    for patient, own in patients.items():
        sites[min(case.site for case in own)].append(patient)
    return {
        site: [
            patients[p] for p in sorted(sites[site], key=lambda p: derived_seed(seed, "split", p))
        ]
        for site in sorted(sites)
    }


def proportional(sites: Sites) -> list[Patient]:
    """All patients, in an order of which any beginning has as much of each site as all of it.

    As near as whole patients come: Webster's method of giving seats to parties, one by one.
    """
    placed = [
        ((place + 0.5) / len(patients), site, place, patient)
        for site, patients in sites.items()
        for place, patient in enumerate(patients)
    ]
    return [patient for *_, patient in sorted(placed, key=lambda entry: entry[:3])]


def share(patients: int, fraction: float, *, option: str) -> int:
    """How many of the patients a fraction is: at least one, and never all."""
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise InputError(f"split.{option}={fraction}: a split fraction must lie between 0 and 1")
    return max(min(max(round(patients * fraction), 1), patients - 1), 0)


def parted(sites: Sites, count: int, seed: int) -> tuple[list[Patient], Sites]:
    """The first patients of every site, `count` in all, and those that are left.

    Of each site as many as its share of the count, rounded up or down. While the others can give
    enough, a site keeps one patient: what is taken is held against what is learned there.
    """
    taken: list[Patient] = []
    kept = dict(sites)
    exact = _exact({site: len(patients) for site, patients in sites.items()}, count)
    total = Fraction(1, 2)
    # Sums over the sites are rounded, not each site: so they are neither all up nor all down.
    for site in sorted(sites, key=lambda name: derived_seed(seed, "split site", name)):
        before, total = total, total + exact[site]
        number = floor(total) - floor(before)
        taken += sites[site][:number]
        kept[site] = sites[site][number:]
    return taken, kept


def _exact(sizes: dict[str, int], count: int) -> dict[str, Fraction]:
    """Of each site its share of the count, which is no whole number."""
    most = {site: max(size - 1, 0) for site, size in sizes.items()}
    if sum(most.values()) < count:  # many sites of one patient each
        most = sizes
    exact: dict[str, Fraction] = {}
    left, of = Fraction(count), sum(sizes.values())
    for site in sorted(sizes, key=lambda name: sizes[name]):  # small ones reach their most first
        share_of = left * sizes[site] / of if of else left
        exact[site] = min(Fraction(most[site]), share_of)
        left, of = left - exact[site], of - sizes[site]
    return exact


def everyone(sites: Sites) -> list[Patient]:
    """The patients of all the sites."""
    return [patient for patients in sites.values() for patient in patients]


def cases_of(patients: Iterable[Patient]) -> tuple[Case, ...]:
    """The cases of all the patients, sorted."""
    return sorted_cases(case for patient in patients for case in patient)
