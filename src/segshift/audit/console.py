"""The findings in a terminal, grouped by kind."""

from collections.abc import Iterator
from itertools import groupby, islice

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.audit.finding import Audit, Finding

SHOWN = 10  # of each kind; the JSON and the page have all
STYLES = {"error": "bold red", "warning": "yellow", "info": "dim"}


def print_audit(audit: Audit, *, console: Console | None = None) -> None:
    """Print the first findings of each kind and one line that sums up."""
    console = console or Console()
    if audit.findings:
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in ("", "kind", "finding"):
            table.add_column(name, overflow="fold")
        for severity, kind, text in _lines(audit.findings):
            table.add_row(Text(severity, style=STYLES.get(severity, "")), Text(kind), Text(text))
        console.print(table)
    console.print(Text(summary(audit)))


def summary(audit: Audit) -> str:
    """How much was checked and what was found, in one line."""
    found = ", ".join(f"{n} {severity}(s)" for severity, n in audit.counts.items() if n)
    return (
        f"{audit.manifest}: {sum(audit.cases.values())} cases of {sum(audit.patients.values())} "
        f"patients at {len(audit.cases)} site(s): {found or 'nothing found'}"
    )


def _lines(findings: tuple[Finding, ...]) -> Iterator[tuple[str, str, str]]:
    for (severity, kind), group in groupby(findings, key=lambda one: (one.severity, one.kind)):
        members = list(group)
        for one in islice(members, SHOWN):
            yield severity, kind, one.message
        if len(members) > SHOWN:
            yield severity, kind, f"... and {len(members) - SHOWN} more; see --json or --html"
