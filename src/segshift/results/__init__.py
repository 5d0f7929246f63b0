"""What was measured: rows (the only truth about quality), their cases, means, comparisons."""

from segshift.results.cases import read_cases, write_cases
from segshift.results.comparison import Comparison, compare, higher_is_better
from segshift.results.failures import FAILURE, failure_profile
from segshift.results.groups import group_tables, grouped, summarise_groups
from segshift.results.intervals import Interval, bootstrap_means
from segshift.results.pairing import Paired, pair, patient_means, read_runs
from segshift.results.rows import COLUMNS, Row, append_rows, read_rows, write_rows
from segshift.results.significance import holm, sign_flip_p, wilcoxon_p
from segshift.results.tables import IN_DOMAIN, MEAN, is_shifted, site_table, summarise

__all__ = [
    "COLUMNS",
    "FAILURE",
    "IN_DOMAIN",
    "MEAN",
    "Comparison",
    "Interval",
    "Paired",
    "Row",
    "append_rows",
    "bootstrap_means",
    "compare",
    "failure_profile",
    "group_tables",
    "grouped",
    "higher_is_better",
    "holm",
    "is_shifted",
    "pair",
    "patient_means",
    "read_cases",
    "read_rows",
    "read_runs",
    "sign_flip_p",
    "site_table",
    "summarise",
    "summarise_groups",
    "wilcoxon_p",
    "write_cases",
    "write_rows",
]
