"""What is done to a structure, written beside the run that chose it and read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segshift.errors import InputError
from segshift.units import EVERY

RECORD = "postprocessing.json"  # in the run's folder
LARGEST, FILL = "largest_component", "fill_holes"
# The removal of components by the unit of its bound: it is done to cases of that unit alone.
MINIMUM = {each.small_size: f"min_{each.sized}_{each.small_size}" for each in EVERY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is done to one structure, and why: the mean selection score with and without.

    `value` is the least size of a rule of MINIMUM, such as the mm3 of `min_volume_mm3`, None for
    the others; `patients` are those of validation who have the structure.
    """

    rule: str
    value: float | None
    score_before: float
    score_after: float
    patients: int

    def __str__(self) -> str:
        """The rule in words of the record."""
        return self.rule if self.value is None else f"{self.rule} {self.value:g}"


Rules = Mapping[str, tuple[Rule, ...]]  # by structure; () or no entry: left alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a run chose: rules by structure, and for a structure without any the reason."""

    rules: dict[str, tuple[Rule, ...]]
    reasons: dict[str, str]


def common_rules(several: Sequence[Rules]) -> dict[str, tuple[Rule, ...]]:
    """For an ensemble: what each of its members does, and of least sizes the smallest."""
    first, *others = several
    kept: dict[str, tuple[Rule, ...]] = {}
    for name, rules in first.items():
        shared = []
        for rule in rules:
            same = [next((r for r in o.get(name, ()) if r.rule == rule.rule), None) for o in others]
            if None in same:
                continue
            shared.append(min((rule, *filter(None, same)), key=lambda each: each.value or 0.0))
        kept[name] = tuple(shared)
    return kept


def read_rules(checkpoint: Path) -> dict[str, tuple[Rule, ...]]:
    """What the run of a checkpoint file chose; nothing for a file that lies in no run's folder.

    Raises InputError for a damaged record.
    """
    file = checkpoint.resolve().parent.parent / RECORD
    if not file.is_file():
        return {}
    try:
        return rules_from_dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"{file} is not what a run wrote: {error!r}; restore or remove it"
        ) from error


def rules_from_dict(values: Mapping[str, Any]) -> dict[str, tuple[Rule, ...]]:
    """The rules that `asdict(choice)` wrote, also after a way through JSON."""
    return {name: tuple(Rule(**rule) for rule in rules) for name, rules in values["rules"].items()}


def told(choice: Choice) -> str:
    """The rules, or why there are none, in a line for people."""
    lines = [
        f"{name}: {one}, score {one.score_before:.3f} to {one.score_after:.3f}, "
        f"{one.patients} validation patients have it"
        for name, rules in choice.rules.items()
        for one in rules
    ]
    alike: dict[str, list[str]] = {}
    for name, reason in choice.reasons.items():
        alike.setdefault(reason, []).append(name)
    return "; ".join([*lines, *(f"{', '.join(names)}: {why}" for why, names in alike.items())])
