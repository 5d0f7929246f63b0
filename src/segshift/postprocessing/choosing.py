"""Which rules a run keeps: those that its validation patients speak for, not those of chance.

Few cases decide, and a lesion that is removed is worse than a false blob that stays. So nothing is
removed that is as large as a true component, and a gain must be more than its noise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segshift.postprocessing.components import ReferenceComponents
from segshift.postprocessing.judging import REMOVALS, Effect
from segshift.postprocessing.rules import FILL, LARGEST, MINIMUM, Choice, Rule

LEAST_PATIENTS = 8  # of validation, with the structure
LEAST_GAIN = 0.001  # of the mean selection score
LARGE_LOSS, HARMED_SHARE = 0.05, 0.1  # of the cases, fewer than this share may lose more than that
ROUNDING = 1e-9  # where one patient alone gains, the gain is its standard error but for rounding


def chosen_rules(
    cases: Sequence[Sequence[Effect | None]],
    *,
    structures: Sequence[str],
    references: Sequence[ReferenceComponents],
) -> Choice:
    """The rules that raise a structure's mean selection score, from every case's `effects`.

    `references` are each structure's components in training and validation. First comes the removal
    of components, the mildest of the best that pass every guard: of those that the best does not
    beat by more than a standard error. Then comes filling, if it passes on top.
    """
    rules, reasons = {}, {}
    for place, (name, components) in enumerate(zip(structures, references, strict=True)):
        judged = [effect for case in cases if (effect := case[place]) is not None]
        rules[name], reason = _chosen(_Evidence(judged), components)
        if reason:
            reasons[name] = reason
    return Choice(rules=rules, reasons=reasons)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """A rule against what is done without it: mean gain over patients, and who loses."""

    rule: Rule
    error: float  # of the mean gain, over patients
    harmed: int
    cases: int

    @property
    def gain(self) -> float:
        return self.rule.score_after - self.rule.score_before

    @property
    def may_be_chance(self) -> bool:
        return self.gain <= self.error * (1 + ROUNDING)

    @property
    def objection(self) -> str:
        """The guard that it does not pass; empty if it passes all."""
        if self.gain <= LEAST_GAIN:
            return f"no rule raises its validation score by more than {LEAST_GAIN:g}"
        if self.may_be_chance:
            return (
                f"{self.rule} raises its validation score by {self.gain:.3f}, not by more than the "
                f"standard error of {self.error:.3f}"
            )
        if self.harmed / self.cases >= HARMED_SHARE:
            return (
                f"{self.rule} takes more than {LARGE_LOSS:g} from {self.harmed} of its "
                f"{self.cases} validation cases"
            )
        return ""


class _Evidence:
    """The effects on one structure, to hold candidates against each other.

    A candidate is its place in an effect's scores: (0, removal), or (1, removal) with filling.
    """

    def __init__(self, effects: Sequence[Effect]) -> None:
        self.patients = len({effect.patient for effect in effects if effect.there})
        _, self._owner = np.unique([effect.patient for effect in effects], return_inverse=True)
        self._scores = [effect.scores for effect in effects]
        self.units = sorted({effect.unit for effect in effects})

    def trial(self, after: tuple[int, int], *, over: tuple[int, int] = (0, 0)) -> _Trial:
        """What the candidate `after` makes of the scores of the candidate `over`."""
        scores = np.array([[one[over], one[after]] for one in self._scores])
        changes = scores[:, 1] - scores[:, 0]
        before, now, change = map(self._by_patient, (*scores.T, changes))
        fills, removal = after[0], REMOVALS[after[1]]
        removes = LARGEST if isinstance(removal, str) else MINIMUM[self.units[0]]
        rule = Rule(
            rule=FILL if fills else removes,
            value=None if fills or isinstance(removal, str) else removal,
            score_before=float(before.mean()),
            score_after=float(now.mean()),
            patients=self.patients,
        )
        return _Trial(
            rule=rule,
            error=float(change.std(ddof=1) / len(change) ** 0.5),
            harmed=int(np.count_nonzero(changes < -LARGE_LOSS)),
            cases=len(changes),
        )

    def _by_patient(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self._owner, values) / np.bincount(self._owner)


def _chosen(evidence: _Evidence, components: ReferenceComponents) -> tuple[tuple[Rule, ...], str]:
    """The rules of one structure; without any, why."""
    patients = evidence.patients
    if patients < LEAST_PATIENTS:
        have = "patient has" if patients == 1 else "patients have"
        return (), f"{patients} validation {have} it, at least {LEAST_PATIENTS} are needed"
    units = evidence.units
    places = [n for n, removal in enumerate(REMOVALS) if _may_be_tried(removal, components, units)]
    removals = {place: evidence.trial((0, place)) for place in places}
    passed = {place: trial for place, trial in removals.items() if not trial.objection}
    best = max(passed, key=lambda place: passed[place].gain, default=0)
    leads = (evidence.trial((0, best), over=(0, place)) for place in passed)
    mild = next((p for p, lead in zip(passed, leads, strict=True) if lead.may_be_chance), 0)
    # What is not done has no part in what filling is judged by.
    filling = evidence.trial((1, mild), over=(0, mild))
    done = [passed[mild]] if passed else []
    done += [] if filling.objection else [filling]
    if done:
        return tuple(trial.rule for trial in done), ""
    nearest = max((*removals.values(), filling), key=lambda trial: trial.gain)
    untried = "" if removals else f" (no removal is tried: {_why(components, units)})"
    return (), nearest.objection + untried


def _why(components: ReferenceComponents, units: Sequence[str]) -> str:
    """Why no removal may be tried."""
    if len(units) > 1:
        return f"cases are measured in {' and '.join(units)}"
    return f"a reference component has only {components.smallest[units[0]]:g} {units[0]}"


def _may_be_tried(
    removal: str | float | None, components: ReferenceComponents, units: Sequence[str]
) -> bool:
    """Whether it means the same in all cases, and no reference would lose a component."""
    if removal is None:
        return False
    if isinstance(removal, str):
        return components.most == 1
    return len(units) == 1 and removal <= components.smallest.get(units[0], math.inf)
