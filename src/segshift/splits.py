"""Cohort to Split: who is learned from, who is chosen on, and the named sets that are judged.

All rules group by patient, stratify by site and do not depend on the manifest's order: a patient's
place among those of a site comes from hash(seed, "split", patient).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from segshift.cohort import Case, Cohort
from segshift.errors import InputError
from segshift.seeds import derived_seed
from segshift.shifts import Shift


@dataclass(frozen=True, slots=True)
class Split:
    """Patient-disjoint train, validation and named test sets.

    Raises InputError for an empty set and for a patient on two sides, naming both.
    """

    train: tuple[Case, ...]
    val: tuple[Case, ...]
    tests: Mapping[str, tuple[Case, ...]]

    def __post_init__(self) -> None:
        """Check what no experiment survives: leaks and empty sets."""
        if not self.tests:
            raise InputError("the split has no evaluation set")
        sides = {"train": self.train, "val": self.val, **self.tests}
        for name, cases in sides.items():
            if not cases:
                raise InputError(
                    f"the split leaves the set {name!r} empty ("
                    + ", ".join(f"{n}: {len(c)}" for n, c in sides.items())
                    + "); use more cases or other fractions"
                )
        tests = tuple(case for cases in self.tests.values() for case in cases)
        _refuse_shared_patients("train", self.train, "val", self.val)
        _refuse_shared_patients("train", self.train, "test", tests)
        _refuse_shared_patients("val", self.val, "test", tests)


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A named list of cases that gets its own results, seen through a shift."""

    name: str
    cases: tuple[Case, ...]
    shift: Shift


def evaluation_sets(
    tests: Mapping[str, tuple[Case, ...]], shifts: Sequence[Shift]
) -> tuple[EvaluationSet, ...]:
    """Every test set under every shift; severity 0 keeps the set's plain name."""
    return tuple(
        EvaluationSet(name + (f"+{s.name}{s.severity}" if s.severity else ""), cases, s)
        for s in shifts
        for name, cases in tests.items()
    )


def random(cohort: Cohort, *, seed: int, val_fraction: float, test_fraction: float) -> Split:
    """Hold out shares of every site's patients for validation and for `in_domain`."""
    train, val, test = [], [], []
    for patients in _strata(cohort.cases, seed).values():
        held, kept = _cut(patients, test_fraction)
        chosen, learned = _cut(kept, val_fraction)
        test += held
        val += chosen
        train += learned
    return Split(_cases(train), _cases(val), {"in_domain": _cases(test)})


def kfold(cohort: Cohort, *, seed: int, folds: int, fold: int, val_fraction: float) -> Split:
    """Test on fold number `fold` of `folds`; each patient is tested in exactly one fold."""
    if not (type(folds) is int and type(fold) is int and folds >= 2 and 0 <= fold < folds):
        raise InputError(
            f"split.fold={fold} of split.folds={folds}: at least 2 folds, numbered 0 to folds - 1"
        )
    train, val, test = [], [], []
    offset = 0  # goes on from site to site, so that many small sites still give even folds
    for patients in _strata(cohort.cases, seed).values():
        held = [p for i, p in enumerate(patients, offset) if i % folds == fold]
        kept = [p for i, p in enumerate(patients, offset) if i % folds != fold]
        offset += len(patients)
        chosen, learned = _cut(kept, val_fraction)
        test += held
        val += chosen
        train += learned
    return Split(_cases(train), _cases(val), {"in_domain": _cases(test)})


def leave_site_out(
    cohort: Cohort,
    *,
    seed: int,
    held_out: str | Sequence[str],
    val_fraction: float,
    test_fraction: float,
) -> Split:
    """Train without the held-out sites; each becomes the evaluation set `site-<name>`."""
    sites_out = tuple(held_out) if isinstance(held_out, list | tuple) else (held_out,)
    unknown = [site for site in sites_out if site not in cohort.sites]
    if unknown or not sites_out:
        what = f"names the unknown site(s) {unknown}" if unknown else "names no site"
        raise InputError(
            f"split.held_out {what}; this cohort has {list(cohort.sites)}. Name one or a list of "
            "them, or take split=random or split=kfold"
        )
    if set(sites_out) == set(cohort.sites):
        raise InputError(f"split.held_out={list(sites_out)} leaves no site to train on")
    inside = [case for case in cohort.cases if case.site not in sites_out]
    outside = {f"site-{s}": [c for c in cohort.cases if c.site == s] for s in sites_out}
    for name, cases in outside.items():
        _refuse_shared_patients("the training sites", inside, name, cases)
    home = random(
        Cohort(cohort.name, cohort.channels, cohort.structures, tuple(inside)),
        seed=seed,
        val_fraction=val_fraction,
        test_fraction=test_fraction,
    )
    sites = {name: _sorted(cases) for name, cases in outside.items()}
    return Split(home.train, home.val, {**home.tests, **sites})


def _strata(cases: Iterable[Case], seed: int) -> dict[str, list[list[Case]]]:
    """Per site its patients, each a list of cases, in an order that is theirs alone."""
    patients: dict[str, list[Case]] = defaultdict(list)
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


def _cut(patients: list[list[Case]], fraction: float) -> tuple[list[list[Case]], list[list[Case]]]:
    """The first share of the patients, at least one while two remain, and the rest."""
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise InputError(f"a split fraction must lie between 0 and 1, not {fraction}")
    count = min(max(round(len(patients) * fraction), 1), len(patients) - 1)
    return patients[:count], patients[count:]


def _cases(patients: Iterable[list[Case]]) -> tuple[Case, ...]:
    return _sorted(case for patient in patients for case in patient)


def _sorted(cases: Iterable[Case]) -> tuple[Case, ...]:
    return tuple(sorted(cases, key=lambda case: case.id))


def _refuse_shared_patients(
    name: str, cases: Iterable[Case], other_name: str, other_cases: Iterable[Case]
) -> None:
    shared = {case.patient for case in cases} & {case.patient for case in other_cases}
    if shared:
        raise InputError(
            f"the patient(s) {sorted(shared)[:5]} are both in {name} and in {other_name}; a "
            "patient may never cross a split: correct the manifest, or keep the sites of a patient "
            "on one side"
        )
