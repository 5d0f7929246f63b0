"""A case, a cohort of cases, and nothing that touches pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from segshift.cohort.labelling import Values


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled image or volume: the unit of evaluation.

    `label_values[i]` is the value, or are the values, that mean `Cohort.structures[i]`: () every
    one but 0, None that it is not annotated here. They are values of `label`, or of
    `label_files[i]` if that structure has a file of its own. `raters` are further labels by other
    people, which `consensus` (majority or staple) combines with `label`. `rater_files` are those of
    all raters by the manifest's column, whichever is taken, if it has several such columns. `maps`
    holds proton density, T1 and T2 in ms, where they are known. `tags` are its remaining columns.
    """

    id: str
    patient: str
    site: str
    images: tuple[Path, ...]
    label: Path | None = None
    label_values: tuple[Values, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    label_files: tuple[Path | None, ...] = ()
    ignore_values: tuple[int, ...] = ()
    background_values: tuple[int, ...] = ()
    raters: tuple[Path, ...] = ()
    consensus: str = ""
    maps: Path | None = None
    rater_files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def label_paths(self) -> tuple[Path, ...]:
        """Every file that the label is made of."""
        own = (path for path in self.label_files if path)
        return (*((self.label,) if self.label else ()), *self.raters, *own)

    @property
    def annotated(self) -> tuple[bool, ...]:
        """Whether each structure is annotated here."""
        return tuple(values is not None for values in self.label_values)

    def with_structures(self, order: Sequence[int]) -> "Case":
        """The case of a cohort whose structures are those at the places `order`."""
        return replace(
            self,
            label_values=tuple(self.label_values[i] for i in order),
            label_files=tuple(self.label_files[i] for i in order) if self.label_files else (),
        )


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
