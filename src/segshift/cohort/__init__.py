"""Cases, cohorts and manifests: from files on disk to checked pixels. Needs no torch."""

from segshift.cohort.annotation import Annotation
from segshift.cohort.case import Case, Cohort
from segshift.cohort.manifest import read_manifest, write_manifest

__all__ = ["Annotation", "Case", "Cohort", "read_manifest", "write_manifest"]
