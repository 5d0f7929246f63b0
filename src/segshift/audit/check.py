"""A manifest to an audit: the lines, then every case once and in parallel, then all together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from segshift.audit.compare import compare_cases
from segshift.audit.duplicates import check_duplicates
from segshift.audit.finding import Audit, Finding, worst_first
from segshift.audit.listing import check_listing
from segshift.audit.measure import Facts, measure_case
from segshift.cohort import Case, Cohort
from segshift.cohort.manifest import BrokenLine, read_sound_lines, unannotated
from segshift.errors import InputError
from segshift.progress import threads, tracked


def check_manifest(
    manifest: str | Path,
    *,
    structures: Mapping[str, Any] | None = None,
    min_patients: int = 3,
    allow_outside: bool = False,
) -> Audit:
    """Check everything that a manifest names. Whatever is wrong becomes a finding.

    `structures` is `data.structures` of a run: it wins over the column of that name.
    """
    manifest = Path(manifest)
    try:
        # All raters' labels are looked at: `majority` asks for none in particular.
        cohort, broken = read_sound_lines(manifest, structures=structures, rater="majority")
    except InputError as error:
        return _unread(manifest, str(error))
    except Exception as error:  # a linter that dies says nothing
        return _unread(manifest, f"{manifest} cannot be read ({type(error).__name__}: {error})")
    findings = check_listing(
        cohort.cases,
        folder=manifest.parent,
        min_patients=min_patients,
        allow_outside=allow_outside,
    )
    facts: list[Facts] = []
    for found, fact in _measure(cohort):
        findings += found
        if fact:
            facts.append(fact)
    findings += [*_broken(broken), *_without_label(cohort.cases)]
    # A broken line may be the one that annotates it.
    faults = [] if broken else unannotated(cohort)
    findings += [Finding(severity="error", kind="manifest", message=text) for text in faults]
    findings += [*compare_cases(facts), *check_duplicates(facts)]
    patients = Counter(site for site, _ in {(case.site, case.patient) for case in cohort.cases})
    return Audit(
        manifest=manifest,
        findings=worst_first(findings),
        listed=cohort.cases,
        cases=dict(sorted(Counter(case.site for case in cohort.cases).items())),
        patients=dict(sorted(patients.items())),
    )


def _unread(manifest: Path, message: str) -> Audit:
    finding = Finding(severity="error", kind="manifest", message=message)
    return Audit(manifest=manifest, findings=(finding,), cases={}, patients={})


def _broken(lines: Sequence[BrokenLine]) -> list[Finding]:
    return [
        Finding(
            severity="error",
            kind="manifest",
            case=line.case,
            site=line.site,
            message=line.message,
        )
        for line in lines
    ]


def _measure(cohort: Cohort) -> Sequence[tuple[list[Finding], Facts | None]]:
    count = len(cohort.structures)
    with ThreadPoolExecutor(threads()) as pool:
        results = pool.map(lambda case: measure_case(case, structures=count), cohort.cases)
        return list(tracked(results, "checking cases", total=len(cohort.cases)))


def _without_label(cases: Sequence[Case]) -> list[Finding]:
    """One line per site: a site without labels is a choice, not a hundred faults."""
    bare: dict[str, list[Case]] = {}
    for case in cases:
        if not case.annotation.paths:
            bare.setdefault(case.site, []).append(case)
    return [
        Finding(
            severity="info",
            kind="no-label",
            case=members[0].id,
            site=site,
            message=f"{len(members)} case(s) at {site!r}, the first is {members[0].id!r}, have no "
            "label: they can be predicted, not trained on or scored",
        )
        for site, members in bare.items()
    ]
