"""From measurements to answers: every target site against in_domain, three kinds, Holm over all.

A yes has a p of at most 5 %, corrected for the kinds and sites of the run, and an effect that
matters.
"""

from dataclasses import asdict

import pandas as pd

from segshift.attribution.evidence import Sides
from segshift.attribution.habits import concept
from segshift.attribution.kinds import covariate, prevalence
from segshift.errors import InputError
from segshift.results import IN_DOMAIN, answered

COLUMNS = (
    "train", "set", "site", "kind", "statistic", "p", "smallest_p", "large", "complete",
    "p_corrected", "answer", "detail",
)  # fmt: skip


def attributed(measurements: pd.DataFrame, *, train: str, seed: int = 0) -> pd.DataFrame:
    """A line of COLUMNS for each target set and kind, of the table that `measure` made.

    What is shown is `answered` over all of them. Raises InputError without in_domain or without a
    target.
    """
    sets = list(dict.fromkeys(measurements["set"]))
    targets = [name for name in sets if name != IN_DOMAIN]
    if IN_DOMAIN not in sets or not targets:
        raise InputError(
            f"measurements of the sets {sets}: a shift is told by {IN_DOMAIN!r} and the set of "
            "another site, 'site-...'"
        )
    home = measurements[measurements["set"] == IN_DOMAIN]
    lines = []
    for name in targets:
        away = measurements[measurements["set"] == name]
        sides = Sides(home=home, away=away, target=name, seed=seed)
        about = {"train": train, "set": name, "site": ", ".join(sorted(set(away["site"])))}
        lines += [about | asdict(test(sides)) for test in (covariate, prevalence, concept)]
    return answered(pd.DataFrame(lines))[list(COLUMNS)]
