"""The fingerprint of cases: spacing, size, intensities and structures in a few numbers.

One pass of threads over the files keeps a summary and a seeded sample of voxels per case, so that
memory does not grow with the images. Voxels labelled IGNORED are no foreground and count nowhere.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segshift.cohort.case import Case
from segshift.cohort.checks import IGNORED, check_headers, load_case
from segshift.cohort.images import read_image
from segshift.errors import InputError
from segshift.progress import threads, tracked
from segshift.seeds import generator
from segshift.units import Grid

SAMPLE = 10_000  # voxels per case, channel and region, as in nnU-Net
SAMPLES = 2_000_000  # of all cases together
SEED = 0  # not the run's seed: a cohort has one fingerprint


@dataclass(frozen=True, slots=True, eq=False)
class CaseFacts:
    """What is kept of one case; intensities are samples float32 (C, n), counts are voxels."""

    id: str
    patient: str
    site: str
    grid: Grid
    whole: NDArray[np.float32]
    foreground: NDArray[np.float32]  # inside any structure
    decided: int  # voxels that are not ignored; 0 without label
    counts: tuple[int | None, ...]  # per structure; None: not annotated here

    def size(self, structure: int) -> float:
        """Of a structure, in the unit of the case's sizes; NaN where it is not annotated."""
        count = self.counts[structure]
        return float("nan") if count is None else self.grid.size(count)


@dataclass(frozen=True, slots=True)
class Spread:
    """The extremes and the median of a number over cases."""

    minimum: float
    median: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Intensities:
    """Of pooled samples, in which every case weighs alike as long as it has enough voxels."""

    p0_5: float
    median: float
    p99_5: float
    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class StructureFacts:
    """One structure; `sizes` are over the cases that have it, by the unit of their sizes."""

    annotated: int  # cases
    present: int  # cases
    voxel_share: float  # of the annotated cases' voxels
    sizes: Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Of a group of cases; axes (z, y, x), intensities per channel.

    `spacing_mm` is over the cases whose spacing is known, `unsized` counts the others.
    """

    cases: int
    patients: int
    unsized: int
    spacing_mm: tuple[Spread, ...] | None
    shape: tuple[Spread, ...]
    whole: tuple[Intensities | None, ...]
    foreground: tuple[Intensities | None, ...]  # None: no case has any
    structures: tuple[StructureFacts, ...]


def read_facts(cases: Sequence[Case], *, quiet: bool = False) -> list[CaseFacts]:
    """Read every case once, with a progress bar.

    Raises InputError naming the first case that cannot be read or has other channels.
    """
    sample = max(min(SAMPLE, SAMPLES // max(len(cases), 1)), 1)
    facts: list[CaseFacts] = []
    with ThreadPoolExecutor(threads()) as pool:
        results = pool.map(lambda case: _facts(case, sample), cases)
        for one in results if quiet else tracked(results, "fingerprint", total=len(cases)):
            if facts and len(one.whole) != len(facts[0].whole):
                raise InputError(
                    f"case {one.id!r} has {len(one.whole)} channel(s), the cases before it "
                    f"{len(facts[0].whole)}; all need the same"
                )
            facts.append(one)
    return facts


def fingerprint(facts: Sequence[CaseFacts]) -> Fingerprint:
    """The fingerprint of one group of cases, such as a site; there has to be one case."""
    channels, structures = len(facts[0].whole), len(facts[0].counts)
    spacings_mm = [one.grid.spacing_mm for one in facts if one.grid.spacing_mm is not None]
    return Fingerprint(
        cases=len(facts),
        patients=len({one.patient for one in facts}),
        unsized=len(facts) - len(spacings_mm),
        spacing_mm=_spreads(np.array(spacings_mm)) if spacings_mm else None,
        shape=_spreads(np.array([one.grid.shape for one in facts])),
        whole=tuple(intensities([one.whole[c] for one in facts]) for c in range(channels)),
        foreground=tuple(
            intensities([one.foreground[c] for one in facts]) for c in range(channels)
        ),
        structures=tuple(_structure(facts, place) for place in range(structures)),
    )


def intensities(samples: Sequence[NDArray[np.float32]]) -> Intensities | None:
    """Of the samples together; None if they are all empty."""
    pooled = np.concatenate([np.asarray(s, dtype=np.float64) for s in samples])
    if not len(pooled):
        return None
    low, median, high = np.percentile(pooled, [0.5, 50, 99.5])
    return Intensities(
        float(low), float(median), float(high), float(pooled.mean()), float(pooled.std())
    )


def _facts(case: Case, sample: int) -> CaseFacts:
    geometry = check_headers(case)
    random = generator(SEED, "fingerprint", case.id)
    counts: tuple[int | None, ...] = (None,) * len(case.annotation.values)
    if case.annotation.paths:
        volume = load_case(case)
        image, label = volume.image, volume.label
        found = np.bincount(label.ravel(), minlength=IGNORED + 1)
        counts = tuple(
            int(found[place + 1]) if annotated else None
            for place, annotated in enumerate(case.annotation.annotated)
        )
    else:
        image, label = _image(case), np.zeros(geometry.shape, dtype=np.uint8)
    flat = image.reshape(len(image), -1)
    whole = _drawn(label != IGNORED, sample, random)
    foreground = _drawn((label > 0) & (label != IGNORED), sample, random)
    return CaseFacts(
        id=case.id,
        patient=case.patient,
        site=case.site,
        grid=Grid(geometry.shape, geometry.known_mm),
        whole=flat[:, whole],
        foreground=flat[:, foreground],
        decided=int(np.count_nonzero(label != IGNORED)) if case.annotation.paths else 0,
        counts=counts,
    )


def _image(case: Case) -> NDArray[np.float32]:
    """Of a case without label, checked as `load_case` does."""
    try:
        image = np.concatenate([read_image(path) for path in case.images])
    except InputError as error:
        raise InputError(f"case {case.id!r}: {error}") from error
    if not np.isfinite(image).all():
        raise InputError(f"case {case.id!r}: {case.images[0]} has NaN or infinite voxels")
    return image


def _drawn(
    inside: NDArray[np.bool_], sample: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """Flat places inside a mask: all of few, a draw with replacement of many."""
    if inside.all() and inside.size > sample:  # spares eight bytes per voxel
        return random.integers(inside.size, size=sample)
    places = np.flatnonzero(inside)
    return places if len(places) <= sample else places[random.integers(len(places), size=sample)]


def _spreads(values: NDArray[np.float64]) -> tuple[Spread, ...]:
    """Per column."""
    return tuple(
        Spread(float(column.min()), float(np.median(column)), float(column.max()))
        for column in values.T
    )


def _structure(facts: Sequence[CaseFacts], place: int) -> StructureFacts:
    annotated = [one for one in facts if one.counts[place] is not None]
    present = [one for one in annotated if one.counts[place]]
    voxels = sum(one.decided for one in annotated)
    sizes: dict[str, list[float]] = {}
    for one in present:
        sizes.setdefault(one.grid.units.size, []).append(one.size(place))
    return StructureFacts(
        annotated=len(annotated),
        present=len(present),
        voxel_share=sum(one.counts[place] or 0 for one in annotated) / max(voxels, 1),
        sizes={unit: _spreads(np.array([own]).T)[0] for unit, own in sizes.items()},
    )
