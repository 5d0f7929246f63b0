"""What a check says: a finding names the case, the value found and how to mend it."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from segshift.cohort.case import Case

Severity = Literal["error", "warning", "info"]
STATUS: dict[Severity, int] = {"error": 2, "warning": 1, "info": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong. `case` is empty where a site or the manifest itself is meant."""

    severity: Severity
    kind: str
    message: str
    case: str = ""
    site: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All findings of one manifest, the worst first, and how much was looked at."""

    manifest: Path
    findings: tuple[Finding, ...]
    patients: dict[str, int]  # per site
    cases: dict[str, int]  # per site
    listed: tuple[Case, ...] = ()  # what was read of the manifest

    @property
    def status(self) -> int:
        """The exit status: 2 for errors, 1 for warnings, 0 for nothing worse than info."""
        return max((STATUS[one.severity] for one in self.findings), default=0)

    @property
    def counts(self) -> dict[Severity, int]:
        """How many findings of each severity."""
        found = Counter(one.severity for one in self.findings)
        return {severity: found[severity] for severity in STATUS}

    def json(self) -> str:
        """The whole audit for other programs."""
        content = {
            "manifest": str(self.manifest),
            "status": self.status,
            "cases": self.cases,
            "patients": self.patients,
            "counts": self.counts,
            "findings": [asdict(one) for one in self.findings],
        }
        return json.dumps(content, indent=1) + "\n"


def worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """Errors, then warnings, then the rest; within these by kind, site and case."""
    return tuple(
        sorted(findings, key=lambda f: (-STATUS[f.severity], f.kind, f.site, f.case, f.message))
    )
