"""What was measured: rows (the only truth about quality), their cases, means, comparisons."""

from segshift.results.cases import read_cases, write_cases
from segshift.results.comparison import Comparison, compare, higher_is_better
from segshift.results.failures import FAILURE, failure_profile
from segshift.results.gaps import gap_table, leave_site_out_table
from segshift.results.groups import group_tables, grouped, summarise_groups
from segshift.results.intervals import Interval, bootstrap_means
from segshift.results.matrix import failure_table, shift_table, train_test_matrix
from segshift.results.pairing import Paired, common_rows, pair, patient_means, read_runs
from segshift.results.rows import COLUMNS, Row, append_rows, read_rows, write_rows
from segshift.results.significance import holm, sign_flip_p, wilcoxon_p
from segshift.results.study import (
    DONE,
    FAILED,
    Study,
    acquired,
    case_means,
    distinct,
    line_names,
    main_metric,
    place_name,
    read_jobs,
    read_study,
    sites_of,
)
from segshift.results.study_tables import (
    StudyTables,
    read_means,
    study_summary,
    study_tables,
    write_study_tables,
)
from segshift.results.tables import MEAN, is_shifted, site_table, summarise
from segshift.results.variants import variant_table
from segshift.splits import IN_DOMAIN

__all__ = [
    "COLUMNS",
    "DONE",
    "FAILED",
    "FAILURE",
    "IN_DOMAIN",
    "MEAN",
    "Comparison",
    "Interval",
    "Paired",
    "Row",
    "Study",
    "StudyTables",
    "acquired",
    "append_rows",
    "bootstrap_means",
    "case_means",
    "common_rows",
    "compare",
    "distinct",
    "failure_profile",
    "failure_table",
    "gap_table",
    "group_tables",
    "grouped",
    "higher_is_better",
    "holm",
    "is_shifted",
    "leave_site_out_table",
    "line_names",
    "main_metric",
    "pair",
    "patient_means",
    "place_name",
    "read_cases",
    "read_jobs",
    "read_means",
    "read_rows",
    "read_runs",
    "read_study",
    "shift_table",
    "sign_flip_p",
    "site_table",
    "sites_of",
    "study_summary",
    "study_tables",
    "summarise",
    "summarise_groups",
    "train_test_matrix",
    "variant_table",
    "wilcoxon_p",
    "write_cases",
    "write_rows",
    "write_study_tables",
]
