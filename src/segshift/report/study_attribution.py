"""Which shift is it? What the jobs of a study have found, together and in words.

Each job may have left an attribution.csv: per evaluation set and kind of shift a test and its
answer. The seeds and folds of a line ask the same question of other networks; they are shown side
by side, not pooled into a p-value that none of them has.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from segshift.report.measures import records
from segshift.report.study_words import train_label
from segshift.results import DONE, place_name
from segshift.results.rows import read_strings
from segshift.results.study import LINE

ANSWERS = ("set", "site", "kind", "statistic", "p", "p_corrected", "answer", "detail")
KINDS = {"covariate": "the images", "prevalence": "the case mix", "concept": "the annotation"}
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
    """The attribution.csv of every finished job that has one, beside its line, seed and fold."""
    columns = [*LINE, "seed", "fold", "job"]
    tables = [pd.DataFrame(columns=[*columns, *ANSWERS])]
    done = jobs[jobs["status"] == DONE]
    for job in records(done[columns].drop_duplicates().sort_values(columns)):
        path = folder / "jobs" / job["job"] / "attribution.csv"
        if path.is_file():
            table = read_strings(path, columns=ANSWERS, what="answers")[list(ANSWERS)]
            tables.append(table.assign(**job)[[*columns, *ANSWERS]])
    return pd.concat(tables[1:] or tables, ignore_index=True)


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


def _verdict(kind: str, lines: pd.DataFrame) -> Verdict:
    answers = Counter(lines["answer"])
    top, times = max(answers.items(), key=lambda item: (item[1], item[0]))
    said = SAID.get(top, top)
    if times < len(lines):
        said = f"{said} in {times} of {len(lines)} jobs"
    p = pd.to_numeric(lines["p_corrected"], errors="coerce").dropna()
    low, high = (f"{p.min():.2g}", f"{p.max():.2g}") if len(p) else ("", "")
    return Verdict(
        kind=kind,
        what=KINDS[kind],
        answer=said,
        clear=top == "yes" and times == len(lines),
        p=low if low == high else f"{low} to {high}",
        detail=" / ".join(dict.fromkeys(lines["detail"])),
    )
