"""What the store gives back: a case as training and testing see it, plain or under a shift."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort import Case
from segshift.data.preprocessing import left_out, preprocessed_image
from segshift.errors import InputError
from segshift.plan import Box, Plan, Scaled, first_scaled, scaled_by_prediction
from segshift.seeds import generator
from segshift.shifts import Acquisition, Shift, Turning
from segshift.units import Grid

SEED = 0  # not the run's seed: a case is corrupted alike for every model

# Of the size of the object in the first prediction (None for none): the image at the scale that
# follows from it, as `Shown` has it, and that scale.
SecondLook = Callable[[float | None], tuple[np.ndarray, Scaled]]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a network is tested on.

    `image` float32 (C, D', H', W') shows the `box` of the case's own grid on the plan's;
    `reference` and each of the other `raters` uint8 (D, H, W) have class indices on the own grid.
    Where the network finds the scale itself, the image is at its first one, and there is a
    `second_look`.
    """

    image: np.ndarray
    box: Box
    reference: np.ndarray
    raters: Mapping[str, np.ndarray]
    scaled: Scaled
    second_look: SecondLook | None


@dataclass(frozen=True, slots=True)
class StoredCase:
    """A case on disk, preprocessed by a plan.

    All arrays are memory-mapped: reading touches what is asked.
    """

    case: Case
    folder: Path
    plan: Plan

    def image(self) -> np.ndarray:
        """Normalised intensities float32 (C, D, H, W) of the box on the plan's grid."""
        return _mapped(self.folder / "image.npy")

    def label(self) -> np.ndarray:
        """Class indices uint8 (D, H, W) of the box on the plan's grid."""
        return _mapped(self.folder / "label.npy")

    def reference(self) -> np.ndarray:
        """Class indices uint8 (D, H, W) on the case's own grid: what predictions are scored on."""
        return _mapped(self.folder / "reference.npy")

    def raters(self) -> dict[str, np.ndarray]:
        """What those drew who did not draw the reference, like it, by the manifest's column."""
        names = self._meta()["raters"]
        return dict(zip(names, _mapped(self.folder / "raters.npy"), strict=True)) if names else {}

    def landmarks(self) -> np.ndarray:
        """int32 (N, 4): structure index and z, y, x of some of its voxels, sorted by structure."""
        return np.asarray(np.load(self.folder / "landmarks.npy"))

    def spacing_mm(self) -> tuple[float, ...] | None:
        """Voxel size of the case's own grid; None where nobody stated it."""
        stated = self._meta()["spacing_mm"]
        return None if stated is None else tuple(stated)

    def box(self) -> Box:
        """The part of the case's own grid that `image` and `label` show."""
        return tuple((low, high) for low, high in self._meta()["box"])

    def scaled(self) -> Scaled:
        """The scale that `image` and `label` have."""
        return Scaled(**self._meta()["scaled"])

    def voxels(self) -> str | None:
        """The hash of the image's voxels, as its files have them; None where all are one value."""
        found: str | None = self._meta()["voxels"]
        return found

    def shown(self) -> Shown:
        """The case as it was acquired."""
        return Shown(
            image=np.array(self.image()),
            box=self.box(),
            reference=self.reference(),
            raters=self.raters(),
            scaled=self.scaled(),
            second_look=_second_look(self.raw, self.plan, self.spacing_mm()),
        )

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

    What is random is drawn for the shift and the image alone: a larger severity is more of the
    same, and an image that has a line for each guideline looks the same in all of them.
    """

    plain: StoredCase
    shift: Shift

    @property
    def case(self) -> Case:
        """Who and where it is."""
        return self.plain.case

    def spacing_mm(self) -> tuple[float, ...] | None:
        """Voxel size of the case's own grid; None where nobody stated it."""
        return self.plain.spacing_mm()

    def voxels(self) -> str | None:
        """Those of the case as it was acquired, as `StoredCase.voxels`."""
        return self.plain.voxels()

    def shown(self) -> Shown:
        """The case as it would have been acquired; the reference lies where the patient does.

        Raises InputError for a shift whose result has another shape or values that are not finite.
        """
        identity, plan = _identity(self.plain.folder), self.plain.plan
        raw, spacing_mm = self.plain.raw(), self.spacing_mm()
        edges = Grid(raw.shape[1:], spacing_mm).edges
        acquisition = Acquisition(edges, self.case.tags, self.plain.maps())
        turned = functools.partial(self._turned, acquisition=acquisition, identity=identity)
        outside = left_out(raw, plan)
        changed = self.shift(raw, acquisition=acquisition, random=self._random(identity))
        image = self._checked(changed, raw, "image")
        # Whoever took the skull away did so after the acquisition: what is zero there stays zero.
        outside = turned(outside.astype(np.uint8))
        image = np.where(outside, np.float32(0), image)
        scaled = first_scaled(image, plan.scale)
        seen, box = preprocessed_image(image, plan, spacing_mm=spacing_mm, scaled=scaled)
        return Shown(
            image=seen,
            box=box,
            reference=turned(self.plain.reference()),
            raters={},  # nobody has drawn on a corrupted image: how well people agree is not of it
            scaled=scaled,
            second_look=_second_look(lambda: image, plan, spacing_mm),
        )

    def _turned(self, label: np.ndarray, *, acquisition: Acquisition, identity: str) -> np.ndarray:
        if not isinstance(self.shift, Turning):
            return label
        random = self._random(identity)
        turned = self.shift.turned_label(label, acquisition=acquisition, random=random)
        return self._checked(turned, label, "label")

    def _random(self, identity: str) -> np.random.Generator:
        return generator(SEED, "shift", self.shift.name, identity)

    def _checked(self, made: np.ndarray, of: np.ndarray, what: str) -> np.ndarray:
        if made.shape != of.shape or not np.isfinite(made).all():
            raise InputError(
                f"shift {self.shift.name}, severity {self.shift.severity}, makes of the {what} of "
                f"case {self.case.id!r}, of shape {of.shape}, one of shape {made.shape} with "
                f"{np.count_nonzero(~np.isfinite(made))} values that are not finite; it must keep "
                "the shape and have finite values alone"
            )
        return made


SeenCase = StoredCase | ShiftedCase  # what can be tested on


def _second_look(
    raw: Callable[[], np.ndarray], plan: Plan, spacing_mm: tuple[float, ...] | None
) -> SecondLook | None:
    scale = plan.object_scale
    if scale is None:
        return None

    def look(size_px: float | None) -> tuple[np.ndarray, Scaled]:
        scaled = scaled_by_prediction(size_px, scale)
        image, _ = preprocessed_image(raw(), plan, spacing_mm=spacing_mm, scaled=scaled)
        return image, scaled

    return look


@functools.cache  # 64 characters a case, which all of its shifts ask for
def _identity(entry: Path) -> str:
    """The hash of the raw image, which cannot change: an entry's name is its content's."""
    image = _mapped(entry / "raw.npy").astype(np.float32)
    return hashlib.sha256(image.tobytes()).hexdigest()


def _mapped(path: Path) -> np.ndarray:
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array
