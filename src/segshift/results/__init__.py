"""What was measured: rows (the only truth about quality) and the means derived from them."""

from segshift.results.rows import COLUMNS, Row, append_rows, read_rows, write_rows
from segshift.results.tables import IN_DOMAIN, MEAN, is_shifted, site_table, summarise

__all__ = [
    "COLUMNS",
    "IN_DOMAIN",
    "MEAN",
    "Row",
    "append_rows",
    "is_shifted",
    "read_rows",
    "site_table",
    "summarise",
    "write_rows",
]
