"""What a rule makes of a cohort: who is learned from, who is chosen on, and who is judged."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.shifts import Identity, Shift

IN_DOMAIN = "in_domain"  # the evaluation set of patients like those that are learned from
MARKS = str.maketrans("/\\", "__")  # they part the keys of a summary, and folders
# What else is called like that: the sides in split.json, keys of the summary beside the sets'.
TAKEN = ("train", "val", "gap", "worst_site", "shift", "worst_shift")


@dataclass(frozen=True, slots=True)
class Split:
    """Patient-disjoint train, validation and named test sets.

    Raises InputError for an empty set, for a patient on two sides, naming both, and for a set's
    name that would be taken for something else.
    """

    train: tuple[Case, ...]
    val: tuple[Case, ...]
    tests: Mapping[str, tuple[Case, ...]]
    selection: str | None = None  # the rule that has drawn `val` anew, if one has

    def __post_init__(self) -> None:
        """Check what no experiment survives: leaks and empty sets."""
        if not self.tests:
            raise InputError("the split has no evaluation set")
        for name in self.tests:
            _check_name(name)
        sides = {"train": self.train, "val": self.val, **self.tests}
        for name, cases in sides.items():
            if not cases:
                raise InputError(
                    f"the split leaves the set {name!r} empty ("
                    + ", ".join(f"{n}: {len(c)}" for n, c in sides.items())
                    + "); use more cases or other fractions"
                )
        tests = tuple(case for cases in self.tests.values() for case in cases)
        refuse_shared_patients("train", self.train, "val", self.val)
        refuse_shared_patients("train", self.train, "test", tests)
        refuse_shared_patients("val", self.val, "test", tests)


class SetKey(NamedTuple):
    """What tells evaluation sets apart: their cases by name, and how the images are corrupted.

    `corruption` is "" and `severity` 0 for images as they were acquired.
    """

    set: str
    corruption: str = ""
    severity: int = 0


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """A named list of cases that gets its own results, seen through a shift."""

    name: str
    cases: tuple[Case, ...]
    shift: Shift

    @property
    def key(self) -> SetKey:
        """Its name, and the shift if there is one."""
        shifted = (self.shift.name, self.shift.severity) if self.shift.severity else ()
        return SetKey(self.name, *shifted)


def evaluation_sets(
    tests: Mapping[str, tuple[Case, ...]], shifts: Sequence[Shift]
) -> tuple[EvaluationSet, ...]:
    """Every test set as it is, then under every shift."""
    plain = tuple(EvaluationSet(name, cases, Identity()) for name, cases in tests.items())
    return plain + tuple(
        EvaluationSet(name, cases, shift) for shift in shifts for name, cases in tests.items()
    )


def with_outside(home: Split, what: str, outside: Mapping[str, Iterable[Case]]) -> Split:
    """The split with evaluation sets of other patients; `what` its own ones have in common.

    Raises InputError for a patient on both sides.
    """
    inside = (*home.train, *home.val, *(case for own in home.tests.values() for case in own))
    sets = {name: sorted_cases(cases) for name, cases in outside.items()}
    for name, cases in sets.items():
        refuse_shared_patients(what, inside, name, cases)
    return Split(home.train, home.val, {**home.tests, **sets})


def set_name(*parts: str) -> str:
    """The name of an evaluation set after a column, a value, a structure: its parts and dashes."""
    return "-".join(parts).translate(MARKS)


def site_set(site: str) -> str:
    """The name of the evaluation set that is a whole site."""
    return f"site-{site}"


def _check_name(name: str) -> None:
    if name in TAKEN:
        raise InputError(
            f"an evaluation set may not be called {name!r}, which names something else in "
            f"split.json or summary.json, as do {', '.join(TAKEN)}; take another name"
        )
    if not name or name.startswith(".") or name != set_name(name):
        raise InputError(
            f"the name of the evaluation set {name!r} may not be empty, begin with '.' nor hold "
            "'/' or '\\', which part the keys of summary.json"
        )


def sorted_cases(cases: Iterable[Case]) -> tuple[Case, ...]:
    """By id, so that nothing depends on the manifest's order."""
    return tuple(sorted(cases, key=lambda case: case.id))


def refuse_shared_patients(
    name: str, cases: Iterable[Case], other_name: str, other_cases: Iterable[Case]
) -> None:
    """Raises InputError that names the patients and both sides."""
    shared = {case.patient for case in cases} & {case.patient for case in other_cases}
    if shared:
        raise InputError(
            f"the patient(s) {sorted(shared)[:5]} are both in {name} and in {other_name}; a "
            "patient may never cross a split: correct the manifest, or keep the sites of a patient "
            "on one side"
        )
