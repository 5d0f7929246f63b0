"""The linter for data and for leaks: a manifest in, findings out, never a crash. Needs no torch."""

from segshift.audit.check import check_manifest
from segshift.audit.console import print_audit
from segshift.audit.finding import Audit, Finding, Severity
from segshift.audit.html import write_page

__all__ = ["Audit", "Finding", "Severity", "check_manifest", "print_audit", "write_page"]
