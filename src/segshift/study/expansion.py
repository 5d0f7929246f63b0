"""From the parts of a study to its combinations: one value of every axis, every site in turn."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segshift.errors import InputError
from segshift.study.words import Word, names_each_site, overridden, parsed, with_site

SitesOf = Callable[[Sequence[str]], tuple[str, ...]]
OptionsOf = Callable[[str], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Part:
    """A block of jobs: its words, and the number of sites that it takes to make sense."""

    name: str
    words: tuple[Word, ...]
    sites_at_least: int


@dataclass(frozen=True, slots=True)
class Combination:
    """What one job is given, and what it is called among those that it is compared with.

    `in_turn` are the keys of `overrides` that every site of the cohort is given to, one by one.
    """

    part: str
    overrides: tuple[str, ...]
    variant: str
    in_turn: tuple[str, ...]


def parts_of(
    study: Mapping[str, Any], words: Sequence[Word], *, split_options: OptionsOf
) -> tuple[Part, ...]:
    """The parts of a study's YAML under the command line's words, which win over the YAML's.

    A word about the split, such as `split.fold=0,1`, is for the parts whose split has that option,
    which `split_options` tells by the split's name. Raises InputError for what is no part.
    """
    common = _overrides("study.overrides", study.get("overrides"))
    owns: dict[str, tuple[tuple[Word, ...], int]] = {}
    for name, options in _mapping("study.parts", study.get("parts")).items():
        if options is None:  # study.parts.leave_site_out=null
            continue
        key = f"study.parts.{name}"
        _refuse_unknown(key, _mapping(key, options), ("overrides", "sites_at_least"))
        own = overridden(common, _overrides(f"{key}.overrides", options.get("overrides")))
        least = options.get("sites_at_least", 1)
        if type(least) is not int or least < 1:
            raise InputError(f"{key}.sites_at_least={least}: a whole number from 1")
        owns[str(name)] = own, least
    if not owns:
        raise InputError("study.parts is empty: a study needs one part at least")
    # What no part takes stays in all of them, so that the error says which options there are.
    taken = {
        w for own, _ in owns.values() for w in words if _takes((*own, *words), w, split_options)
    }
    parts = []
    for name, (own, least) in owns.items():
        fitting = [w for w in words if w not in taken or _takes((*own, *words), w, split_options)]
        parts.append(Part(name, overridden(own, fitting), least))
    return tuple(parts)


def checked_study(study: object) -> Mapping[str, Any]:
    """What a study's YAML says beside its parts. Raises InputError that names key and value."""
    known = ("question", "overrides", "parts", "attribute")
    content = _mapping("study", study)
    _refuse_unknown("study", content, known)
    if type(content.get("attribute", False)) is not bool:
        raise InputError(f"study.attribute={content['attribute']}: true or false")
    if not isinstance(content.get("question"), str | None):
        raise InputError(f"study.question={content['question']}: a text")
    return content


def _mapping(key: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping | None):
        raise InputError(f"{key}={value}: options and their values, such as those of study=demo")
    return value or {}


def _refuse_unknown(key: str, options: Mapping[str, Any], known: Sequence[str]) -> None:
    if unknown := [name for name in options if name not in known]:
        raise InputError(f"{key}.{unknown[0]}: {key} has {', '.join(known)}")


def _overrides(key: str, value: object) -> tuple[Word, ...]:
    words = [] if value is None else value
    if (
        not isinstance(words, Sequence)
        or isinstance(words, str)
        or not all(isinstance(word, str) for word in words)
    ):
        raise InputError(
            f"{key}={value}: a list of words as train.py takes them, such as [loss=dice, seed=0]"
        )
    return parsed(words)


def _takes(words: Sequence[Word], word: Word, split_options: OptionsOf) -> bool:
    """Whether `word` is about something that the split which `words` choose has."""
    if not word.key.startswith("split."):
        return True
    choices = [text.partition("=")[2] for w in words if w.key == "split" for text in w.texts]
    return not choices or word.key.split(".")[1] in split_options(choices[-1])


def combinations(part: Part, sites_of: SitesOf) -> Iterator[Combination]:
    """Every combination of the part's axes, the last word's values next to each other.

    `sites_of` tells the cohort's sites under the overrides given; a combination of the other axes
    whose cohort has fewer than the part needs is left out.
    """
    for texts in itertools.product(*(word.texts for word in part.words)):
        sites = sites_of(texts)
        if len(sites) < part.sites_at_least:
            continue
        choices = [
            [with_site(text, site) for site in sites] if names_each_site(text) else [text]
            for text in texts
        ]
        in_turn = tuple(
            word.key for text, word in zip(texts, part.words, strict=True) if names_each_site(text)
        )
        for overrides in itertools.product(*choices):
            varied = [
                text.lstrip("+")
                for text, word in zip(overrides, part.words, strict=True)
                if word.is_variant
            ]
            yield Combination(part.name, overrides, " ".join(varied), in_turn)
