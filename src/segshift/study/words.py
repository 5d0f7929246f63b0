"""The words of a study's command line: what configures the study, and what its jobs are given.

A job's word is an override as `train.py` takes it. One with several values (`loss=dice,focal`, in
Hydra's own grammar) is an axis of the study, and so is one whose value is `each_site`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString

from segshift.errors import InputError

EACH_SITE = "each_site"
OWN_KEYS = (
    "study",
    "name",
    "folder",
    "workers",
    "launcher",
    "dry_run",
    "postprocessed",
)  # of conf/study.yaml
SITE_KEYS = ("split.source", "split.held_out")  # choose the training sites, which name a line
SITE_GROUPS = ("split", "data")  # with each_site, their options do too
NO_STRINGS = ("null", "true", "false", "nan", "inf")  # in Hydra's grammar
REPEATED = ("seed", "split.fold")  # columns of their own, not variants


@dataclass(frozen=True, slots=True)
class Word:
    """An override: the key that it sets, and one text for each of its values."""

    key: str
    texts: tuple[str, ...]

    @property
    def is_variant(self) -> bool:
        """Whether its values are what the study compares: neither the sites nor repetitions."""
        in_turn = any(names_each_site(text) for text in self.texts)
        sited = self.key in SITE_KEYS or (in_turn and self.key.split(".")[0] in SITE_GROUPS)
        return (in_turn or len(self.texts) > 1) and self.key not in REPEATED and not sited


def divided(words: Sequence[str]) -> tuple[tuple[str, ...], tuple[Word, ...]]:
    """Overrides of conf/study.yaml, and the words of the jobs. Raises InputError for other words.

    Raises Hydra's own error for what is no override.
    """
    for word in words:
        if word.startswith("-"):
            raise InputError(
                f"{word}: a study has no such switch; it sweeps without -m, and --help lists its "
                "options"
            )
    own, jobs = [], []
    for override in OverridesParser.create().parse_overrides(list(words)):
        root = override.key_or_group.replace("/", ".").split(".")[0]
        if root == "hydra":
            raise InputError(
                f"{override.input_line}: every job has a folder of its own in the study's; set "
                "name=... or folder=..."
            )
        if root not in OWN_KEYS:
            jobs.append(_word(override))
        elif override.is_sweep_override():
            raise InputError(f"{override.input_line}: one study at a time; give one value")
        else:
            own.append(str(override.input_line))
    return tuple(own), tuple(jobs)


def parsed(words: Sequence[str]) -> tuple[Word, ...]:
    """Overrides of jobs as words; Hydra's own error for what is none."""
    return tuple(map(_word, OverridesParser.create().parse_overrides(list(words))))


def overridden(base: Sequence[Word], by: Sequence[Word]) -> tuple[Word, ...]:
    """All words of `by`, after those of `base` that they leave.

    A word replaces one of its key, and a choice of a group replaces the options below that group:
    `split=random` takes `split=single_source` away and `split.source=each_site` with it.
    """
    kept = [
        word
        for word in base
        if not any(w.key == word.key or word.key.startswith(f"{w.key}.") for w in by)
    ]
    return (*kept, *by)


def names_each_site(text: str) -> bool:
    """Whether the override's value is `each_site`."""
    return text.partition("=")[2] == EACH_SITE


def with_site(text: str, site: str) -> str:
    """The override with the site's name, quoted as Hydra reads it, in place of `each_site`."""
    plain = site.isascii() and site.isidentifier() and site.lower() not in NO_STRINGS
    name = site if plain else QuotedString(site, Quote.single).with_quotes()
    return f"{text.partition('=')[0]}={name}"


def _word(override: Override) -> Word:
    if not override.is_sweep_override():
        return Word(override.key_or_group, (str(override.input_line),))
    if not override.is_discrete_sweep():
        raise InputError(
            f"{override.input_line}: a study runs every value, so name them: "
            f"{override.key_or_group}=1,2 or range(1,10,2)"
        )
    key = override.get_key_element()
    texts = tuple(f"{key}={value}" for value in override.sweep_string_iterator())
    return Word(override.key_or_group, tuple(dict.fromkeys(texts)))
