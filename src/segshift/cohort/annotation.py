"""What says what a case's label is: its files, what their values mean, and who drew them.

It describes itself by what its files hold, so that the store and a study's identity agree on which
labels are the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from segshift.cohort.images import image_files
from segshift.cohort.labelling import Values

HashOf = Callable[[Path], str]  # of a file's bytes


@dataclass(frozen=True, slots=True)
class Annotation:
    """What a case's label is made of; of an image alone it is empty.

    `values[i]` is the value, or are the values, that mean `Cohort.structures[i]`: () every one but
    0, None that it is not annotated here. They are values of `label`, or of `files[i]` if that
    structure has a file of its own. `raters` are further labels by other people, which `consensus`
    (majority or staple) combines with `label`. `rater_files` are those of all raters by the
    manifest's column, whichever is taken, if it has several such columns.
    """

    label: Path | None = None
    values: tuple[Values, ...] = ()
    files: tuple[Path | None, ...] = ()
    ignore_values: tuple[int, ...] = ()
    background_values: tuple[int, ...] = ()
    raters: tuple[Path, ...] = ()
    consensus: str = ""
    rater_files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Every file that the label is made of."""
        own = (path for path in self.files if path)
        return (*((self.label,) if self.label else ()), *self.raters, *own)

    @property
    def annotated(self) -> tuple[bool, ...]:
        """Whether each structure is annotated here."""
        return tuple(values is not None for values in self.values)

    @property
    def annotated_by_raters(self) -> tuple[bool, ...]:
        """Whether each structure is in the files of the raters, not in one of its own."""
        own = self.files or (None,) * len(self.values)
        return tuple(a and not file for a, file in zip(self.annotated, own, strict=True))

    @property
    def others(self) -> dict[str, Path]:
        """The files of the raters who did not draw the label, sorted by column.

        Where the label is a consensus nobody alone drew it: these are the files of all.
        """
        taken = None if self.raters else self.label
        return {column: path for column, path in sorted(self.rater_files.items()) if path != taken}

    def with_label(self, label: Path | None) -> "Annotation":
        """The same of one other file: values mean what they mean in `label`, no rater is asked."""
        return replace(self, label=label, raters=(), consensus="")

    def with_structures(self, order: Sequence[int]) -> "Annotation":
        """That of a cohort whose structures are those at the places `order`."""
        return replace(
            self,
            values=tuple(self.values[i] for i in order),
            files=tuple(self.files[i] for i in order) if self.files else (),
        )

    def described(self, hash_of: HashOf) -> dict[str, Any]:
        """As JSON takes it, all that decides the bytes of the label and of the other raters'."""
        own = {each.name: by_content(getattr(self, each.name), hash_of) for each in fields(self)}
        # Of two raters who drew the very same, the hashes do not say which of them is the label.
        return {**own, "others": list(self.others)}


def by_content(value: object, hash_of: HashOf) -> Any:  # noqa: ANN401
    """A value as JSON takes it: for a path the hashes of what its files hold, never where they lie.

    A DICOM series has many files, in the order of their positions.
    """
    if isinstance(value, Path):
        return [hash_of(file) for file in image_files(value)]
    if isinstance(value, Mapping):
        return {key: by_content(value[key], hash_of) for key in sorted(value)}
    if isinstance(value, tuple):
        return [by_content(each, hash_of) for each in value]
    return value
