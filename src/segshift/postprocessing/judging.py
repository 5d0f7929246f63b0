"""What every candidate of a post-processing would do to one validation case."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segshift.postprocessing.applying import mask_of
from segshift.postprocessing.components import Mask, components_of, filled
from segshift.postprocessing.rules import LARGEST
from segshift.units import Grid

SIZES = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)  # that are tried; in mm3 of volumes
REMOVALS: tuple[str | float | None, ...] = (None, *SIZES, LARGEST)  # from mild to strong


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedCase:
    """A validation case: decoded `labels` (D, H, W) and the truth to hold them against.

    `references` has one mask (D, H, W) for each structure, None where it is not annotated;
    `counted` (D, H, W) is false where nobody decided.
    """

    patient: str
    labels: np.ndarray
    references: Sequence[np.ndarray | None]
    counted: np.ndarray
    spacing_mm: tuple[float, ...] | None

    @property
    def grid(self) -> Grid:
        """What its voxels measure."""
        return Grid(self.labels.shape, self.spacing_mm)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """Selection scores (2, candidates) of one structure of a case: unfilled and filled.

    The selection score is Dice where the reference has the structure, which is then `there`;
    elsewhere 1 if nothing is predicted, else 0. Which it is the reference alone decides, so no
    candidate's mean rises because a case is missing from it. `unit` is that of the case's sizes.
    """

    patient: str
    there: bool
    scores: np.ndarray
    unit: str


def effects(case: JudgedCase, *, exclusive: bool) -> list[Effect | None]:
    """The effect on each structure, None where it is not annotated."""
    found: list[Effect | None] = []
    for place, reference in enumerate(case.references):
        if reference is None:
            found.append(None)
            continue
        mask, wanted = mask_of(case.labels, place, exclusive=exclusive), reference & case.counted
        there, empty = bool(wanted.any()), not mask.any()
        if empty:
            scores = np.full((2, len(REMOVALS)), float(not there))
        else:
            both = (mask, filled(mask, case.labels == 0 if exclusive else None))
            scores = np.array([_scores(each, wanted, case) for each in both])
        unit = case.grid.units.small_size
        found.append(Effect(patient=case.patient, there=there, scores=scores, unit=unit))
    return found


def _scores(mask: Mask, reference: Mask, case: JudgedCase) -> list[float]:
    """The selection score after every one of REMOVALS."""
    components = components_of(mask)
    judged, overlap = components.within(mask & case.counted), components.within(reference)
    truth = int(np.count_nonzero(reference))
    scores = []
    for removal in REMOVALS:
        keep = components.kept(removal, case.grid.voxel)
        total = int(judged[keep].sum()) + truth
        scores.append(2 * int(overlap[keep].sum()) / total if total else 1.0)
    return scores
