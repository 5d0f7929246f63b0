"""Variants of a study side by side: which model, loss or dimension is better, and where."""

from itertools import combinations

import pandas as pd

from segshift.errors import InputError
from segshift.metrics import SIGNED
from segshift.results.comparison import compare, higher_is_better
from segshift.results.pairing import pair
from segshift.results.study import LINE, acquired, case_means, corrected, jobs_behind

WHERE_COMPARED = ["part", "train", "set"]
TESTS = ("sign_flip", "wilcoxon")
VARIANTS = [
    *WHERE_COMPARED, "metric", "baseline", "variant", "difference", "low", "high",
    *(f"{test}_{kind}" for test in TESTS for kind in ("p", "holm")), "n", "patients", "jobs",
]  # fmt: skip


def variant_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`compare` of any two variants that were trained at the same sites, in each set.

    `rows` are those of a `Study`. Values are means over seeds and folds; `difference` is that of
    the means of the structure means, `variant` minus `baseline`, on the cases that both have. The
    p-values are corrected for all lines of the same metric. Signed metrics are left out.
    """
    plain = acquired(rows)
    plain = plain[~plain["metric"].str.fullmatch(SIGNED).astype(bool)]
    jobs = jobs_behind(plain, LINE).set_index(LINE)["jobs"]
    parts = [pd.DataFrame(columns=VARIANTS)]
    for key, members in case_means(plain).groupby([*WHERE_COMPARED, "metric"]):
        part, train, set_, metric = map(str, key)
        of_variants = {str(name): own for name, own in members.groupby("variant")}
        for baseline, variant in combinations(of_variants, 2):
            found = _difference(of_variants, baseline, variant, metric=metric)
            if found is None:
                continue
            behind = ";".join(jobs[part, name, train] for name in (baseline, variant))
            where = {"part": part, "train": train, "set": set_, "metric": metric, "jobs": behind}
            parts.append(found.rename(columns={"run": "variant"}).assign(**where))
    table = pd.concat(parts[1:] or parts, ignore_index=True)
    for test in TESTS:
        table[f"{test}_holm"] = corrected(table, f"{test}_p", families=["metric"])
    return table[VARIANTS]


def _difference(
    of_variants: dict[str, pd.DataFrame], baseline: str, variant: str, *, metric: str
) -> pd.DataFrame | None:
    """None where the two have no value in common, as in a study that is half finished."""
    two = {name: of_variants[name] for name in (baseline, variant)}
    try:
        paired = pair(two, metric=metric)
    except InputError:
        return None
    return compare(paired, higher_is_better=higher_is_better(metric)).differences
