"""A case, a cohort of cases, and nothing that touches pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled image or volume: the unit of evaluation.

    `label_values[i]` is the grey level in `label` that means `Cohort.structures[i]`; sites may
    number the same structure differently. `tags` are the manifest's remaining columns.
    """

    id: str
    patient: str
    site: str
    images: tuple[Path, ...]
    label: Path | None = None
    label_values: tuple[int, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cohort:
    """All cases of a study, with the names of their image channels and structures."""

    name: str
    channels: tuple[str, ...]
    structures: tuple[str, ...]
    cases: tuple[Case, ...]

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site's name, sorted."""
        return tuple(sorted({case.site for case in self.cases}))
