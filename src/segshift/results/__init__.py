"""What was measured: rows (the only truth about quality), their cases, and means of them."""

from segshift.results.cases import read_cases, write_cases
from segshift.results.groups import group_tables, grouped, summarise_groups
from segshift.results.rows import COLUMNS, Row, append_rows, read_rows, write_rows
from segshift.results.tables import IN_DOMAIN, MEAN, is_shifted, site_table, summarise

__all__ = [
    "COLUMNS",
    "IN_DOMAIN",
    "MEAN",
    "Row",
    "append_rows",
    "group_tables",
    "grouped",
    "is_shifted",
    "read_cases",
    "read_rows",
    "site_table",
    "summarise",
    "summarise_groups",
    "write_cases",
    "write_rows",
]
