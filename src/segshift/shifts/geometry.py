"""The patient lies otherwise than the network learned: rotated, or flipped by a wrong header.

The network sees the moved image, so the reference moves along with it, by the same map: whoever
segments the image that is shown without a fault still scores 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np

from segshift.errors import InputError
from segshift.shifts.shift import Acquisition, Graded, check_severity

AXES = {"z": -3, "y": -2, "x": -1}


@dataclass(frozen=True, slots=True)
class Rotation(Graded):
    """The patient lies rotated around z, to either side; the reference by the nearest voxel.

    What comes into view from outside is background, as bright as the median of the border. How far
    pixels move is no measure of how much an image changes, so it is not calibrated.
    """

    calibrated: ClassVar[bool] = False
    name: ClassVar[str] = "rotation"
    unit: ClassVar[str] = "degrees"
    numbers: ClassVar[tuple[float, ...]] = (5.0, 10.0, 15.0, 25.0, 40.0)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Rotate every slice."""
        return turned_image(image, self._degrees(random), acquisition.spacing_mm)

    def turned_label(
        self, label: np.ndarray, *, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """The label (D, H, W) rotated as the image is."""
        if self.severity == 0:
            return label
        y, x = _sources(label.shape, self._degrees(random), acquisition.spacing_mm)
        return _at(label, np.rint(y).astype(int), np.rint(x).astype(int))

    def _degrees(self, random: np.random.Generator) -> float:
        return float(random.choice([-1, 1]) * self.number)


@dataclass(frozen=True, slots=True)
class Flip:
    """A header with wrong signs: these axes are read backwards, exactly, without interpolation.

    There is no more or less of it: severity 1 is all there is, 0 none. Raises InputError for
    another severity, and for axes that are no list of z, y and x.
    """

    severity: int
    axes: Sequence[str]

    def __post_init__(self) -> None:
        """Check axes and severity."""
        listed = isinstance(self.axes, Sequence) and not isinstance(self.axes, str)
        axes = tuple(self.axes) if listed else ()
        in_order = tuple(axis for axis in AXES if axis in axes)
        if not axes or len(in_order) != len(axes):
            raise InputError(
                f"shift flip: axes is {self.axes!r}; a list of some of {', '.join(AXES)}, each once"
            )
        object.__setattr__(self, "axes", in_order)
        check_severity(self.severity, self.name)
        if self.severity > 1:
            raise InputError(
                f"shift {self.name}: severity {self.severity}; a flip is there (1) or not (0)"
            )

    @property
    def name(self) -> str:
        """`flip_` and the axes: `flip_yx`."""
        return f"flip_{''.join(self.axes)}"

    def __call__(
        self, image: np.ndarray, *, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Read the axes of an image (C, D, H, W) backwards."""
        return self._flipped(image)

    def turned_label(
        self, label: np.ndarray, *, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """The label (D, H, W) flipped as the image is."""
        return self._flipped(label)

    def _flipped(self, array: np.ndarray) -> np.ndarray:
        if self.severity == 0:
            return array
        return np.ascontiguousarray(np.flip(array, tuple(AXES[axis] for axis in self.axes)))


def turned_image(image: np.ndarray, degrees: float, spacing_mm: Sequence[float]) -> np.ndarray:
    """(C, D, H, W) rotated in plane around its middle; outside it is the median of its border."""
    edges = (image[:, :, 0], image[:, :, -1], image[:, :, :, 0], image[:, :, :, -1])
    border = np.concatenate([edge.reshape(len(image), -1) for edge in edges], axis=1)
    outside = np.median(border, axis=1)[:, None, None, None].astype(np.float32)
    y, x = _sources(image.shape, degrees, spacing_mm)
    low_y, low_x = np.floor(y).astype(int), np.floor(x).astype(int)
    result, above = np.broadcast_to(outside, image.shape).copy(), image - outside
    for step_y, step_x in product((0, 1), (0, 1)):  # the corners of the square around a source
        weight = (1 - np.abs(low_y + step_y - y)) * (1 - np.abs(low_x + step_x - x))
        result += weight.astype(np.float32) * _at(above, low_y + step_y, low_x + step_x)
    return result


def _sources(
    shape: Sequence[int], degrees: float, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel (H, W) of the rotated plane comes from, in pixels; the angle is in mm."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    middle_y, middle_x = ((size - 1) / 2 for size in shape[-2:])
    y, x = np.indices(tuple(shape[-2:])) - np.array([middle_y, middle_x])[:, None, None]
    ratio = spacing_mm[2] / spacing_mm[1]
    return cosine * y + sine * ratio * x + middle_y, cosine * x - sine / ratio * y + middle_x


def _at(array: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """`array` (..., H, W) at whole places (H, W), 0 outside."""
    height, width = array.shape[-2:]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return np.asarray(array[..., y.clip(0, height - 1), x.clip(0, width - 1)] * inside)
