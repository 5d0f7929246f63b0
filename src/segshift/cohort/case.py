"""A case, a cohort of cases, and nothing that touches pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from segshift.cohort.annotation import Annotation, HashOf, by_content
from segshift.errors import InputError

SPACING = "spacing_mm"  # the column of pictures, which have no geometry
SPACING_KNOWN = "spacing_known"  # a column; false: what the files say is no physical size
KNOWN = {"": None, "true": True, "false": False}  # what it may say; nothing: as the files do


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled image or volume: the unit of evaluation.

    `annotation` says what its label is. `tags` are the manifest's remaining columns. `maps` holds
    proton density, T1 and T2 in ms, where they are known.
    """

    id: str
    patient: str
    site: str
    images: tuple[Path, ...]
    annotation: Annotation = field(default_factory=Annotation)
    tags: Mapping[str, str] = field(default_factory=dict)
    maps: Path | None = None

    @property
    def spacing_known(self) -> bool | None:
        """What the manifest's column of that name says; None: whatever the image's header states.

        What holds of the case is `Geometry.spacing_known`, of `checks.check_headers`.
        """
        return KNOWN[self.tags.get(SPACING_KNOWN, "").strip().lower()]

    def described(self, hash_of: HashOf) -> dict[str, Any]:
        """As JSON takes it, all of the case that decides what preprocessing makes of it."""
        return {
            "id": self.id,  # voxels are drawn for it
            "images": by_content(self.images, hash_of),
            "annotation": self.annotation.described(hash_of),
            SPACING: self.tags.get(SPACING),
            SPACING_KNOWN: self.spacing_known,
            "maps": by_content(self.maps, hash_of),
        }


@dataclass(frozen=True, slots=True)
class Cohort:
    """All cases of a study, with the names of their image channels and structures.

    Tags that name files are relative to `folder`, the manifest's.
    """

    name: str
    channels: tuple[str, ...]
    structures: tuple[str, ...]
    cases: tuple[Case, ...]
    folder: Path = Path()

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site's name, sorted."""
        return tuple(sorted({case.site for case in self.cases}))

    def with_structures(self, structures: tuple[str, ...]) -> "Cohort":
        """With its structures in a model's order. Raises InputError unless they are the same."""
        if set(structures) != set(self.structures):
            raise InputError(
                f"the model segments {list(structures)}, but the cohort has "
                f"{list(self.structures)}; name the same ones with data.structures"
            )
        order = [self.structures.index(name) for name in structures]
        cases = tuple(
            replace(case, annotation=case.annotation.with_structures(order)) for case in self.cases
        )
        return replace(self, structures=structures, cases=cases)
