"""Variants of a study side by side: which model, loss or dimension is better, and where."""

from itertools import combinations

import pandas as pd

from segshift.results.comparison import compare
from segshift.results.measures import Measures, check_measured
from segshift.results.pairing import pair_if_any
from segshift.results.rows import acquired
from segshift.results.study import LINE, case_means, corrected, jobs_behind

WHERE_COMPARED = ["part", "train", "set"]
VARIANTS = [
    *WHERE_COMPARED, "metric", "baseline", "variant", "difference", "low", "high", "p", "p_holm",
    "n", "patients", "jobs",
]  # fmt: skip


def variant_table(rows: pd.DataFrame, measures: Measures) -> pd.DataFrame:
    """`compare` of any two variants that were trained at the same sites, in each set.

    `rows` are those of a `Study`. Values are means over seeds and folds, of images as they were
    acquired; `difference` is that of the means of the structure means,
    `variant` minus `baseline`, on the cases that both have. `p_holm` is corrected for all lines of
    the same metric. Signed metrics are left out.
    """
    plain = acquired(rows)
    check_measured(plain["metric"], measures)
    judged = [name for name, measure in measures.items() if not measure.signed]
    plain = plain[plain["metric"].isin(judged)]
    jobs = jobs_behind(plain, LINE).set_index(LINE)["jobs"]
    parts = [pd.DataFrame(columns=VARIANTS)]
    means = case_means(plain).assign(corruption="", severity=0)
    for key, members in means.groupby([*WHERE_COMPARED, "metric"]):
        part, train, set_, metric = map(str, key)
        of_variants = {str(name): own for name, own in members.groupby("variant")}
        for baseline, variant in combinations(of_variants, 2):
            two = {name: of_variants[name] for name in (baseline, variant)}
            paired = pair_if_any(two, metric=metric)
            if paired is None:
                continue
            found = compare(paired, measure=measures[metric]).differences
            behind = ";".join(jobs[part, name, train] for name in (baseline, variant))
            where = {"part": part, "train": train, "set": set_, "jobs": behind}
            parts.append(found.rename(columns={"run": "variant"}).assign(**where))
    table = pd.concat(parts[1:] or parts, ignore_index=True)
    table["p_holm"] = corrected(table, "p", families=["metric"])
    return table[VARIANTS]
