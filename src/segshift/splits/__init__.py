"""Cohort to Split: who is learned from, who is chosen on, and the named sets that are judged.

A rule is a function of a cohort and keyword options. All group by patient, stratify by site and do
not depend on the manifest's order.
"""

from segshift.splits.columns import by_column
from segshift.splits.files import from_file
from segshift.splits.labels import concept
from segshift.splits.mix import prevalence
from segshift.splits.selection import limited, selected
from segshift.splits.sites import kfold, leave_site_out, random, single_source
from segshift.splits.split import (
    IN_DOMAIN,
    EvaluationSet,
    SetKey,
    Split,
    evaluation_sets,
    site_set,
)

__all__ = [
    "IN_DOMAIN",
    "EvaluationSet",
    "SetKey",
    "Split",
    "by_column",
    "concept",
    "evaluation_sets",
    "from_file",
    "kfold",
    "leave_site_out",
    "limited",
    "prevalence",
    "random",
    "selected",
    "single_source",
    "site_set",
]
