"""The same image under two patients' names, on two sides of a split: a leak that no id shows.

Images are the same if all their channels have the same voxels, whatever their files; what their
headers say of the voxels' size does not count. The store knows each image's hash.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

from segshift.cohort import Case
from segshift.errors import InputError

if TYPE_CHECKING:  # which needs torch
    from segshift.data.stored import SeenCase, StoredCase

CURE = (
    "if it is one image, keep one of its lines in the manifest, or give both the same patient; "
    "`segshift cohort check` lists all such images"
)


class LearnedImage(NamedTuple):
    """Whose an image is that a network was trained or chosen on."""

    case: str
    patient: str


class _Place(NamedTuple):
    """A case, and all sets that it is in."""

    case: Case
    sets: frozenset[str]

    def __str__(self) -> str:
        """For people."""
        sets = " and ".join(sorted(self.sets))
        return f"case {self.case.id!r} (patient {self.case.patient!r}, in {sets})"


def refuse_duplicates(sides: Mapping[str, Sequence["SeenCase"]]) -> list[str]:
    """Hold every side of a split (`train`, `val`, the evaluation sets) against every other.

    Returns warnings about two patients of one set who have the same image. Raises InputError that
    names two cases of two patients who have it and are in no set together.
    """
    pairs = [pair for group in _groups(sides) if (pair := _pair(group))]
    apart = [(one, other) for one, other in pairs if not one.sets & other.sets]
    if apart:
        one, other = apart[0]
        raise InputError(
            f"{one} and {other} have the same voxels{_more(apart)}: an image may never cross a "
            f"split; {CURE}"
        )
    if not pairs:
        return []
    one, other = pairs[0]
    return [f"{one} and {other} have the same voxels{_more(pairs)}; {CURE}"]


def learned_images(cases: Iterable["StoredCase"]) -> dict[str, LearnedImage]:
    """By the hash of its voxels, whose each image is; of one that several have the first's."""
    found: dict[str, LearnedImage] = {}
    for entry in cases:
        if (voxels := entry.voxels()) is not None:
            found.setdefault(voxels, LearnedImage(entry.case.id, entry.case.patient))
    return found


def refuse_learned(
    sets: Mapping[str, Sequence["SeenCase"]], learned: Mapping[str, LearnedImage]
) -> None:
    """Raises InputError for a case whose image a network has `learned` as another patient's."""
    known = [
        (name, entry.case, learned[voxels])
        for name, cases in sets.items()
        for entry in cases
        if (voxels := entry.voxels()) is not None and voxels in learned
    ]
    if known:
        name, case, image = known[0]
        raise InputError(
            f"case {case.id!r} (patient {case.patient!r}, in {name}) has the same voxels as case "
            f"{image.case!r} (patient {image.patient!r}), which this model was trained or chosen "
            f"on{_more(known)}; take its line out of the manifest, or give it the patient "
            f"{image.patient!r}, whose cases are left out"
        )


def _groups(sides: Mapping[str, Sequence["SeenCase"]]) -> list[list[_Place]]:
    """The cases of each image; a case that several sets judge is one."""
    sets: dict[str, set[str]] = {}
    images: dict[str, dict[str, Case]] = {}
    for name, cases in sides.items():
        for entry in cases:
            if (voxels := entry.voxels()) is not None:
                sets.setdefault(entry.case.id, set()).add(name)
                images.setdefault(voxels, {}).setdefault(entry.case.id, entry.case)
    return [
        [_Place(case, frozenset(sets[name])) for name, case in group.items()]
        for group in images.values()
    ]


def _pair(group: Sequence[_Place]) -> tuple[_Place, _Place] | None:
    """Two patients who have this image; in no common set, if there are two such.

    Of all cases that are in the same sets two patients' suffice to find them: a thousand copies are
    no million pairs.
    """
    kept: dict[frozenset[str], dict[str, _Place]] = {}
    for place in group:
        alike = kept.setdefault(place.sets, {})
        if len(alike) < 2:
            alike.setdefault(place.case.patient, place)
    few = [place for alike in kept.values() for place in alike.values()]
    pairs = combinations(few, 2)
    return min(
        (pair for pair in pairs if pair[0].case.patient != pair[1].case.patient),
        key=lambda pair: bool(pair[0].sets & pair[1].sets),
        default=None,
    )


def _more(found: Sequence[object]) -> str:
    return f", and so it is with {len(found) - 1} more" if len(found) > 1 else ""
