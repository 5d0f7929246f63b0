"""Pictures and tables that a person looks at, drawn from what a run left in its folder."""

from segshift.report.console import print_failures
from segshift.report.figures import (
    loss_curve,
    overlay,
    reliability_diagram,
    site_strip,
    validation_curve,
)
from segshift.report.html import write_report
from segshift.report.network import network_numbers, print_network, write_network
from segshift.report.site_console import print_group_tables, print_site_table

__all__ = [
    "loss_curve",
    "network_numbers",
    "overlay",
    "print_failures",
    "print_group_tables",
    "print_network",
    "print_site_table",
    "reliability_diagram",
    "site_strip",
    "validation_curve",
    "write_network",
    "write_report",
]
