"""Patients by site, in an order that is theirs alone.

A patient's place among those of a site comes from hash(seed, "split", patient): it depends neither
on the manifest's order nor on the patients of other sites.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.seeds import derived_seed
from segshift.splits.split import sorted_cases

Patient = list[Case]  # all cases of one


def strata(cases: Iterable[Case], seed: int) -> dict[str, list[Patient]]:
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


def proportional(sites: Mapping[str, Sequence[Patient]]) -> list[Patient]:
    """All patients, in an order of which any beginning has as much of each site as all of it.

    As near as whole patients come: Webster's method of giving seats to parties, one by one.
    """
    placed = [
        ((place + 0.5) / len(patients), site, place, patient)
        for site, patients in sites.items()
        for place, patient in enumerate(patients)
    ]
    return [patient for *_, patient in sorted(placed, key=lambda entry: entry[:3])]


def cut(
    patients: list[Patient], fraction: float, *, option: str
) -> tuple[list[Patient], list[Patient]]:
    """The first share of the patients, at least one while two remain, and the rest."""
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise InputError(f"split.{option}={fraction}: a split fraction must lie between 0 and 1")
    count = min(max(round(len(patients) * fraction), 1), len(patients) - 1)
    return patients[:count], patients[count:]


def cases_of(patients: Iterable[Patient]) -> tuple[Case, ...]:
    """The cases of all the patients, sorted."""
    return sorted_cases(case for patient in patients for case in patient)
