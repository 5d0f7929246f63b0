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
    """What one job is given, and what it is called among those that it is compared with."""

    part: str
    overrides: tuple[str, ...]
    variant: str


def parts_of(
    study: Mapping[str, Any], words: Sequence[Word], *, split_options: OptionsOf
) -> tuple[Part, ...]:
    """The parts of a study's YAML under the command line's words, which win over the YAML's.

    A word about the split, such as `split.fold=0,1`, is for the parts whose split has that option,
    which `split_options` tells by the split's name. Raises InputError for what is no part.
    """
    unknown = sorted(set(study) - {"question", "overrides", "parts", "attribute"})
    if unknown:
        raise InputError(
            f"study.{unknown[0]}: a study has a question, overrides, parts and attribute"
        )
    common = parsed(study.get("overrides") or ())
    owns: dict[str, tuple[tuple[Word, ...], int]] = {}
    for name, options in (study.get("parts") or {}).items():
        if options is None:  # study.parts.leave_site_out=null
            continue
        if not isinstance(options, Mapping) or set(options) - {"overrides", "sites_at_least"}:
            raise InputError(f"study.parts.{name}={options}: it has overrides and sites_at_least")
        own = overridden(common, parsed(options.get("overrides") or ()))
        owns[str(name)] = own, options.get("sites_at_least", 1)
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
        for overrides in itertools.product(*choices):
            varied = [
                text.lstrip("+")
                for text, word in zip(overrides, part.words, strict=True)
                if word.is_variant
            ]
            yield Combination(part.name, overrides, " ".join(varied))
