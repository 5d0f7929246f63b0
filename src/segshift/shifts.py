"""Named changes of acquisition, with a severity from 0 (none) to 5.

A shift acts on raw intensities, before normalisation, and never sees the label.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np


class Shift(Protocol):
    """What an evaluation set may carry: a frozen dataclass, and a pure function when called.

    The store tells shifted cases apart by the dataclass's fields.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """What it is called in the name of an evaluation set."""
        ...

    @property
    def severity(self) -> int:
        """From 0, none, to 5."""
        ...

    def __call__(
        self, image: np.ndarray, *, spacing_mm: tuple[float, ...], random: np.random.Generator
    ) -> np.ndarray:
        """Change raw intensities (C, D, H, W); the result has the same shape."""
        ...


@dataclass(frozen=True, slots=True)
class Identity:
    """No shift: the images as they were acquired."""

    name: str = "none"
    severity: int = 0

    def __call__(
        self, image: np.ndarray, *, spacing_mm: tuple[float, ...], random: np.random.Generator
    ) -> np.ndarray:
        """Return the image itself."""
        return image
