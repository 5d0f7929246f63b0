"""From measurements to answers: every target site against in_domain, three kinds, Holm over them.

A yes has a p below LEVEL, corrected for three kinds, and an effect that matters.
"""

import pandas as pd

from segshift.attribution.evidence import Evidence, Sides
from segshift.attribution.habits import concept
from segshift.attribution.kinds import covariate, prevalence
from segshift.errors import InputError
from segshift.results import IN_DOMAIN, holm

LEVEL = 0.05  # a corrected p up to which a shift counts as shown
COLUMNS = (
    "train", "set", "site", "kind", "statistic", "p", "p_corrected", "answer", "detail",
)  # fmt: skip


def attributed(measurements: pd.DataFrame, *, train: str, seed: int = 0) -> pd.DataFrame:
    """A line of COLUMNS for each target set and kind, of the table that `measure` made.

    `answer` is yes (shown), no (not shown, which proves no equality) or unknown: so few patients
    can reach no p that would count, or sizes are asked for that nobody stated. Raises InputError
    without in_domain or without a target.
    """
    sets = list(dict.fromkeys(measurements["set"]))
    targets = [name for name in sets if name != IN_DOMAIN]
    if IN_DOMAIN not in sets or not targets:
        raise InputError(
            f"measurements of the sets {sets}: a shift is told by {IN_DOMAIN!r} and the set of "
            "another site, 'site-...'"
        )
    home = measurements[measurements["set"] == IN_DOMAIN]
    tables = []
    for name in targets:
        away = measurements[measurements["set"] == name]
        sides = Sides(home=home, away=away, target=name, seed=seed)
        found = [test(sides) for test in (covariate, prevalence, concept)]
        about = {"train": train, "set": name, "site": ", ".join(sorted(set(away["site"])))}
        tables.append(pd.DataFrame(_answered(found)).assign(**about))
    return pd.concat(tables, ignore_index=True)[list(COLUMNS)]


def _answered(found: list[Evidence]) -> list[dict[str, object]]:
    corrected = holm([1.0 if each.unmeasured else each.p for each in found])
    return [
        {
            "kind": each.kind,
            "statistic": each.statistic,
            "p": each.p,
            "p_corrected": each.p if each.unmeasured else float(p),
            "answer": _answer(each, float(p), tests=len(found)),
            "detail": each.detail,
        }
        for each, p in zip(found, corrected, strict=True)
    ]


def _answer(evidence: Evidence, p_corrected: float, *, tests: int) -> str:
    if evidence.unmeasured or evidence.smallest_p * tests > LEVEL:
        return "unknown"
    if p_corrected <= LEVEL and evidence.large:
        return "yes"
    return "no" if evidence.complete else "unknown"
