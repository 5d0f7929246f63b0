"""What was measured: rows (the only truth about quality), their cases, means, comparisons."""

from segshift.results.cases import SCALE, add_scales, read_cases, write_cases
from segshift.results.comparison import Comparison, compare, with_failures
from segshift.results.failures import FAILURE, Failed, failed_patients, failure_profile
from segshift.results.gaps import gap_table, leave_site_out_table
from segshift.results.groups import group_tables, grouped, summarise_groups
from segshift.results.intervals import FEWEST_PATIENTS, MEAN, Interval, bootstrap_means
from segshift.results.matrix import failure_table, shift_table, train_test_matrix
from segshift.results.measures import (
    Measures,
    by_name,
    read_measures,
    write_measures,
)
from segshift.results.names import set_label
from segshift.results.pairing import (
    Paired,
    common_rows,
    pair,
    pair_if_any,
    patient_means,
    read_runs,
)
from segshift.results.rows import (
    COLUMNS,
    Row,
    acquired,
    append_rows,
    of_network,
    of_raters,
    read_rows,
    rows_of,
    write_rows,
)
from segshift.results.shrinkage import WorstSite, site_means, worst_site
from segshift.results.significance import holm, sign_flip_p
from segshift.results.study import (
    DONE,
    FAILED,
    Study,
    case_means,
    distinct,
    line_names,
    main_measure,
    place_name,
    read_jobs,
    read_study,
    sites_of,
    trained_at,
)
from segshift.results.study_tables import (
    StudyTables,
    read_means,
    study_summary,
    study_tables,
    write_study_tables,
)
from segshift.results.tables import site_table, summarise, with_raters
from segshift.results.variants import variant_table
from segshift.splits import IN_DOMAIN

__all__ = [
    "COLUMNS",
    "DONE",
    "FAILED",
    "FAILURE",
    "FEWEST_PATIENTS",
    "IN_DOMAIN",
    "MEAN",
    "SCALE",
    "Comparison",
    "Failed",
    "Interval",
    "Measures",
    "Paired",
    "Row",
    "Study",
    "StudyTables",
    "WorstSite",
    "acquired",
    "add_scales",
    "append_rows",
    "bootstrap_means",
    "by_name",
    "case_means",
    "common_rows",
    "compare",
    "distinct",
    "failed_patients",
    "failure_profile",
    "failure_table",
    "gap_table",
    "group_tables",
    "grouped",
    "holm",
    "leave_site_out_table",
    "line_names",
    "main_measure",
    "of_network",
    "of_raters",
    "pair",
    "pair_if_any",
    "patient_means",
    "place_name",
    "read_cases",
    "read_jobs",
    "read_means",
    "read_measures",
    "read_rows",
    "read_runs",
    "read_study",
    "rows_of",
    "set_label",
    "shift_table",
    "sign_flip_p",
    "site_means",
    "site_table",
    "sites_of",
    "study_summary",
    "study_tables",
    "summarise",
    "summarise_groups",
    "train_test_matrix",
    "trained_at",
    "variant_table",
    "with_failures",
    "with_raters",
    "worst_site",
    "write_cases",
    "write_measures",
    "write_rows",
    "write_study_tables",
]
