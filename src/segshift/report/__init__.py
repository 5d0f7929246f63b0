"""Pictures and tables that a person looks at, drawn from what a run left in its folder."""

from segshift.report.console import print_group_tables, print_site_table
from segshift.report.figures import learning_curves, overlays, site_strip
from segshift.report.html import write_report
from segshift.report.network import network_numbers, print_network, write_network

__all__ = [
    "learning_curves",
    "network_numbers",
    "overlays",
    "print_group_tables",
    "print_network",
    "print_site_table",
    "site_strip",
    "write_network",
    "write_report",
]
