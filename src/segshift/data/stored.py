"""What the store gives back: a case as training and testing see it, plain or under a shift."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort import Case
from segshift.data.preprocessing import preprocessed_image
from segshift.plan import Box, Plan
from segshift.seeds import generator
from segshift.shifts import Acquisition, Shift, Turning

SEED = 0  # not the run's seed: a case is corrupted alike for every model


@dataclass(frozen=True, slots=True)
class Shown:
    """What a network is tested on.

    `image` float32 (C, D', H', W') shows the `box` of the case's own grid on the plan's;
    `reference` uint8 (D, H, W) has class indices on the own grid.
    """

    image: np.ndarray
    box: Box
    reference: np.ndarray


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A preprocessed case on disk. All arrays are memory-mapped: reading touches what is asked."""

    case: Case
    folder: Path

    def image(self) -> np.ndarray:
        """Normalised intensities float32 (C, D, H, W) of the box on the plan's grid."""
        return _mapped(self.folder / "image.npy")

    def label(self) -> np.ndarray:
        """Class indices uint8 (D, H, W) of the box on the plan's grid."""
        return _mapped(self.folder / "label.npy")

    def reference(self) -> np.ndarray:
        """Class indices uint8 (D, H, W) on the case's own grid: what predictions are scored on."""
        return _mapped(self.folder / "reference.npy")

    def landmarks(self) -> np.ndarray:
        """int32 (N, 4): structure index and z, y, x of some of its voxels, sorted by structure."""
        return np.asarray(np.load(self.folder / "landmarks.npy"))

    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size of the case's own grid."""
        return tuple(self._meta()["spacing_mm"])

    def box(self) -> Box:
        """The part of the case's own grid that `image` and `label` show."""
        return tuple((low, high) for low, high in self._meta()["box"])

    def shown(self) -> Shown:
        """The case as it was acquired."""
        return Shown(np.array(self.image()), self.box(), self.reference())

    def raw(self) -> np.ndarray:
        """Intensities float32 (C, D, H, W) of the files, where the store was asked to keep them."""
        return _mapped(self.folder / "raw.npy").astype(np.float32)

    def maps(self) -> np.ndarray | None:
        """Tissue maps (3, D, H, W), kept with the raw intensities; None where there are none."""
        path = self.folder / "maps.npy"
        return _mapped(path) if path.is_file() else None

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
        return meta


@dataclass(frozen=True, slots=True)
class ShiftedCase:
    """A stored case under a shift, which is computed whenever the case is shown: none is on disk.

    What is random is drawn for the shift and the case alone: a larger severity is more of the same.
    """

    plain: StoredCase
    plan: Plan
    shift: Shift

    @property
    def case(self) -> Case:
        """Who and where it is."""
        return self.plain.case

    def spacing_mm(self) -> tuple[float, ...]:
        """Voxel size of the case's own grid."""
        return self.plain.spacing_mm()

    def shown(self) -> Shown:
        """The case as it would have been acquired; the reference lies where the patient does."""
        spacing_mm = self.spacing_mm()
        acquisition = Acquisition(spacing_mm, self.case.tags, self.plain.maps())
        image = self.shift(self.plain.raw(), acquisition=acquisition, random=self._random())
        reference = self.plain.reference()
        if isinstance(self.shift, Turning):
            random = self._random()
            reference = self.shift.turned_label(reference, acquisition=acquisition, random=random)
        # Of the shifted image: nobody has another one to crop, and noise in the air is no zero.
        seen, box = preprocessed_image(image, self.plan, spacing_mm=spacing_mm)
        return Shown(seen, box, reference)

    def _random(self) -> np.random.Generator:
        return generator(SEED, "shift", self.shift.name, self.case.id)


SeenCase = StoredCase | ShiftedCase  # what can be tested on


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array
