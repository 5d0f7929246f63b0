"""What a shift is, and what it may know of the case that it changes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from segshift.errors import InputError

SEVEREST = 5
STEP = 0.06  # how much one more severity of a calibrated shift changes an image: docs/shifts.md


@dataclass(frozen=True, slots=True)
class Acquisition:
    """How a case was acquired: voxel size (z, y, x), the manifest's tags, and tissue maps.

    `maps` (3, D, H, W), where the case has them, are proton density, T1 and T2 in ms.
    """

    spacing_mm: tuple[float, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    maps: np.ndarray | None = None


class Shift(Protocol):
    """What an evaluation set may carry: a pure function of the image and of random numbers."""

    @property
    def name(self) -> str:
        """What it is called in the name of an evaluation set."""
        ...

    @property
    def severity(self) -> int:
        """From 0, none, to 5."""
        ...

    def __call__(
        self, image: np.ndarray, *, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Change raw intensities float32 (C, D, H, W); as many, and finite, come back."""
        ...


@runtime_checkable
class Turning(Protocol):
    """A shift that moves the patient: the reference must lie where the image shows the patient."""

    def turned_label(
        self, label: np.ndarray, *, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """The label (D, H, W) moved as the image is, given random numbers in the same state."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """No shift: the images as they were acquired."""

    name: str = "none"
    severity: int = 0

    def __call__(
        self, image: np.ndarray, *, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Return the image itself."""
        return image


@dataclass(frozen=True, slots=True)
class Graded(ABC):
    """A shift whose severities 1 to 5 are five `numbers`, measured in `unit`; 0 changes no bit.

    Where it is `calibrated`, severity s changes the reference images by s times `STEP`, so that it
    may be ranked beside others. Raises InputError for a severity that is no whole number from 0 to
    5.
    """

    severity: int
    name: ClassVar[str]
    unit: ClassVar[str]
    numbers: ClassVar[tuple[float, ...]]
    calibrated: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the severity."""
        check_severity(self.severity, self.name)

    @property
    def number(self) -> float:
        """What this severity means."""
        return self.numbers[self.severity - 1]

    def __call__(
        self, image: np.ndarray, *, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Change raw intensities float32 (C, D, H, W); severity 0 returns the image itself."""
        if self.severity == 0:
            return image
        return self.changed(image, acquisition, random).astype(np.float32, copy=False)

    @abstractmethod
    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """The image (C, D, H, W) under this shift, of a severity from 1 to 5."""


def is_calibrated(shift: Shift) -> bool:
    """Whether its severities are the common steps; of a shift that does not say so they are not."""
    return bool(getattr(shift, "calibrated", False))


def check_severity(severity: object, name: str) -> None:
    """Raises InputError unless it is a whole number from 0 to 5."""
    if type(severity) is not int or not 0 <= severity <= SEVEREST:
        raise InputError(
            f"shift {name}: severity {severity!r}; it is a whole number from 0 (none) to {SEVEREST}"
        )
