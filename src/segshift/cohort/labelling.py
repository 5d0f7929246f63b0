"""What the values in a label file mean: rules that may differ between sites.

A rule is a whole number, a list of them, `nonzero` (every value but 0: a mask, or ids of objects),
null (not annotated: neither trained on nor scored), or a mapping of sites to one of these. Two
names are reserved: `ignore` for values that nobody decided on, `background` for values that are of
no interest.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segshift.errors import InputError

IGNORE, BACKGROUND = "ignore", "background"
NONZERO = "nonzero"
MOST_STRUCTURES = 254  # class indices are uint8, 0 is the background and 255 ignored
Values = int | tuple[int, ...] | None  # (): every value but 0; None: not annotated


@dataclass(frozen=True, slots=True)
class LabelMap:
    """The values of each structure at one site; those of `own_files` are in files of their own."""

    structures: Mapping[str, Values]
    ignore: tuple[int, ...] = ()
    background: tuple[int, ...] = ()


def numbers_of(values: Values) -> tuple[int, ...]:
    """The values as a tuple, empty for every one but 0 and for none."""
    return (values,) if isinstance(values, int) else values or ()


def label_map(
    where: str,
    rules: Mapping[str, Any],
    *,
    site: str,
    sites: Collection[str],
    own_files: Collection[str] = (),
) -> LabelMap:
    """The rules of `data.structures`, or of a manifest's column, as they hold at one of the sites.

    Raises InputError for a rule that is none, for one of an unknown site, and for a value that
    means two things.
    """
    if not isinstance(rules, Mapping) or not rules:
        raise InputError(f"{where} is {rules!r}; it should map names to values: {{liver: 1}}")
    for name, rule in rules.items():
        unknown = sorted(set(map(str, rule)) - set(sites)) if isinstance(rule, Mapping) else []
        if unknown:
            raise InputError(
                f"{where} has a rule of {name!r} for the site(s) {unknown}; known are "
                f"{sorted(sites)}"
            )
    values = {str(name): _values(where, str(name), rule, site) for name, rule in rules.items()}
    if any(values.get(name) == () for name in (IGNORE, BACKGROUND)):
        raise InputError(f"{where}: `ignore` and `background` take numbers, not nonzero")
    special = {name: numbers_of(values.pop(name, None)) for name in (IGNORE, BACKGROUND)}
    wrong = [n for n in values if not re.fullmatch(r"[^\W_][\w.-]*", n) or n == "mean"]
    if wrong or not values:
        raise InputError(
            f"{where} has the structure name(s) {wrong}; a name has letters, digits, '_', '-' and "
            "'.', begins with a letter or digit and is not 'mean', which tables use"
        )
    if len(values) > MOST_STRUCTURES:
        raise InputError(
            f"{where} has {len(values)} structures, more than {MOST_STRUCTURES}; merge some "
            "of them ({organ: [1, 2, 3]}) or give those of no interest to `background`"
        )
    in_label = {name: rule for name, rule in values.items() if name not in own_files}
    used = [n for rule in (*in_label.values(), *special.values()) for n in numbers_of(rule)]
    takes_all = any(rule == () for rule in in_label.values())
    drawn = [name for name, rule in in_label.items() if rule is not None]
    if len(set(used)) < len(used) or (takes_all and len(drawn) > 1):
        raise InputError(
            f"{where} has the values {dict(rules)} at {site!r}; each structure needs its own, "
            "from 1 upwards (0 is the background), and `nonzero` leaves none for a second one"
        )
    return LabelMap(values, special[IGNORE], special[BACKGROUND])


def parsed_rules(where: str, text: str) -> dict[str, Any]:
    """The rules that a manifest's column holds: `liver=1 kidney=2|3 nucleus=nonzero rib=none`.

    Raises InputError for a name that comes twice and for what reads otherwise.
    """
    rules: dict[str, Any] = {}
    for pair in text.split():
        name, _, value = pair.partition("=")
        if name in rules:
            raise InputError(
                f"{where}: structures {text!r} names {name!r} twice; several values of one "
                f"structure are '{name}=1|2'"
            )
        if value in (NONZERO, "none"):
            rules[name] = None if value == "none" else NONZERO
            continue
        try:
            rules[name] = [int(number) for number in value.split("|")]
        except ValueError as error:
            raise InputError(
                f"{where}: structures {text!r} should read like 'liver=1 kidney=2|3'"
            ) from error
    return rules


def written_rules(
    structures: Sequence[str],
    values: Sequence[Values],
    ignore: tuple[int, ...],
    background: tuple[int, ...],
) -> str:
    """The column's text for the values of one case."""
    texts = []
    special = [(n, v) for n, v in ((IGNORE, ignore), (BACKGROUND, background)) if v]
    for name, rule in (*zip(structures, values, strict=True), *special):
        text = "none" if rule is None else "|".join(map(str, numbers_of(rule))) or NONZERO
        texts.append(f"{name}={text}")
    return " ".join(texts)


def _values(where: str, name: str, rule: Any, site: str) -> Values:  # noqa: ANN401
    if isinstance(rule, Mapping):
        rule = {str(key): value for key, value in rule.items()}.get(site)
        if isinstance(rule, Mapping):
            raise InputError(f"{where}: {name!r} has a mapping within that of its sites")
    if rule is None:
        return None
    if rule == NONZERO:
        return ()
    numbers = rule if isinstance(rule, list | tuple) else [rule]
    if not numbers or not all(type(n) is int and n >= 1 for n in numbers):
        raise InputError(
            f"{where} gives {name!r} the value {rule!r}; it should be a whole number from 1 "
            "upwards, a list of them, nonzero, null, or a mapping of sites to one of these"
        )
    return numbers[0] if len(numbers) == 1 else tuple(numbers)
