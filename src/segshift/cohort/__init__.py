"""Cases, cohorts and manifests: from files on disk to checked pixels. Needs no torch."""

from segshift.cohort.case import Case, Cohort
from segshift.cohort.manifest import read_manifest, write_manifest

__all__ = ["Case", "Cohort", "read_manifest", "write_manifest"]
