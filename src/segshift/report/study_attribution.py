"""Which shift is it? What the jobs of a study have found, together and in words.

Each job may have left an attribution.csv: per evaluation set and kind of shift a test and its
answer. The seeds and folds of a line ask the same question of other networks; they are shown side
by side, not pooled into a p-value that none of them has. The pairs of one seed and fold are asked
together: their answers are corrected for all of them, as the gaps of a study are, not for those of
one run as in the file of a job.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from segshift.errors import InputError
from segshift.report.measures import records
from segshift.report.study_words import train_label
from segshift.results import DONE, answered, place_name
from segshift.results.rows import read_strings
from segshift.results.study import LINE

TESTS = ("set", "site", "kind", "statistic", "p", "smallest_p", "large", "complete", "detail")
NUMBERS = ["statistic", "p", "smallest_p"]
KINDS = {"covariate": "the images", "prevalence": "the case mix", "concept": "the annotation"}
_TEST = ["job", "set", "kind"]  # what tells one test of a study from another
SAID = {"yes": "differ", "no": "not shown to differ", "unknown": "cannot be told"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One kind of shift of one pair: the answer in words, whether it is a clear yes, p, detail."""

    kind: str
    what: str
    answer: str
    clear: bool
    p: str
    detail: str


@dataclass(frozen=True, slots=True)
class PairVerdicts:
    """What is known of one pair of training and test site."""

    variant: str
    train: str
    test: str
    verdicts: tuple[Verdict, ...]


def read_attributions(folder: Path, jobs: pd.DataFrame) -> pd.DataFrame:
    """The attribution.csv of every finished job that has one, beside its line, seed and fold.

    Each seed and fold is answered anew as one family. A job that several parts share has its lines
    in each, and is tested once.
    """
    columns = [*LINE, "seed", "fold", "job"]
    tables = []
    done = jobs[jobs["status"] == DONE]
    for job in records(done[columns].drop_duplicates().sort_values(columns)):
        path = folder / "jobs" / job["job"] / "attribution.csv"
        if path.is_file():
            tables.append(_read_tests(path).assign(**job)[[*columns, *TESTS]])
    if not tables:
        return pd.DataFrame(columns=[*columns, *TESTS, "p_corrected", "answer"])
    tests = pd.concat(tables, ignore_index=True)
    once = tests.drop_duplicates(_TEST)
    answers = [answered(family) for _, family in once.groupby(["seed", "fold"])]
    found = pd.concat(answers)[[*_TEST, "p_corrected", "answer"]]
    return tests.merge(found, on=_TEST, how="left", validate="many_to_one")


def pair_verdicts(attributions: pd.DataFrame, *, sites: tuple[str, ...]) -> list[PairVerdicts]:
    """A line per variant, training and test site, with the three kinds in their order."""
    found = []
    for key, own in attributions.groupby([*LINE, "set", "site"]):
        _, variant, train, set_, site = map(str, key)
        verdicts = tuple(
            _verdict(kind, own[own["kind"] == kind])
            for kind in KINDS
            if (own["kind"] == kind).any()
        )
        label = train_label(train, sites)
        found.append(PairVerdicts(variant, label, place_name(set_, site), verdicts))
    return found


def _read_tests(path: Path) -> pd.DataFrame:
    table = read_strings(path, columns=TESTS, what="answers")[list(TESTS)]
    try:
        table[NUMBERS] = table[NUMBERS].replace("", "nan").astype("float64")
    except ValueError as error:
        raise InputError(f"{path}: {', '.join(NUMBERS)}: {error}") from error
    for name in ("large", "complete"):
        if not table[name].isin(("True", "False")).all():
            raise InputError(f"{path}: column {name}: True or False is wanted")
        table[name] = table[name] == "True"
    return table


def _verdict(kind: str, lines: pd.DataFrame) -> Verdict:
    answers = Counter(lines["answer"])
    top, times = max(answers.items(), key=lambda item: (item[1], item[0]))
    said = SAID.get(top, top)
    if times < len(lines):
        said = f"{said} in {times} of {len(lines)} jobs"
    p = lines["p_corrected"].dropna()
    low, high = (f"{p.min():.2g}", f"{p.max():.2g}") if len(p) else ("", "")
    return Verdict(
        kind=kind,
        what=KINDS[kind],
        answer=said,
        clear=top == "yes" and times == len(lines),
        p=low if low == high else f"{low} to {high}",
        detail=" / ".join(dict.fromkeys(lines["detail"])),
    )
