"""What a plan holds: plain values, which go through JSON and a checkpoint and come back equal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segshift.units import Units


@dataclass(frozen=True, slots=True)
class View:
    """How a network looks at a volume: 2D (H, W), 2.5D (H, W) + context, 3D (D, H, W).

    `context` is the number of neighbouring slices on either side that become channels.
    """

    patch: tuple[int, ...]
    context: int = 0

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.patch)


@dataclass(frozen=True, slots=True)
class Normalisation:
    """How one channel is put on the network's scale: `scheme` is a key of normalisation.SCHEMES.

    The numbers are those of `clip_global`, in the image's own units. With `nonzero` a `zscore`
    knows only the voxels of the body; those outside, zero in every channel, become 0.
    """

    scheme: str
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    sd: float | None = None
    nonzero: bool = False


FIELD_OF_VIEW, OBJECT = "field_of_view", "object"


@dataclass(frozen=True, slots=True)
class Scale:
    """What brings pictures to one scale, and its size in pixels in a typical training case.

    That is the longer edge of the field of view, or the width of the object (see `plan.scale`).
    """

    by: str
    typical_px: float


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is derived from the training cases; axes in the order (z, y, x).

    Where a training case has no known spacing, no case is resampled by its size, as nothing tells
    how large the others' voxels are beside its own: `spacing_mm` then counts voxels of a file.
    """

    channels: int
    structures: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    view: View
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    batch: int
    structure_frequency: tuple[float, ...]  # share of voxels, background first
    normalisation: tuple[Normalisation, ...] = ()  # per channel; (), as in old plans: all zscore
    interpolation: str = "linear"  # of images: or spline, cubic as nnU-Net does it
    crop: str = "none"  # as in old plans; nonzero: to the box of the voxels that are not zero
    spacing_known: bool = True  # of all training cases
    scale: Scale | None = None  # of pictures without a physical size; None: their pixels count

    @property
    def length(self) -> str:
        """The unit of `spacing_mm`."""
        return Units(known=self.spacing_known).length

    @property
    def object_scale(self) -> Scale | None:
        """The scale that references tell of training cases, and of others the first prediction."""
        return self.scale if self.scale and self.scale.by == OBJECT else None

    def edges_of(self, known_mm: Sequence[float] | None) -> tuple[float, ...]:
        """The voxel edges of a case's own grid, as the plan measures them; None: unknown."""
        return case_edges(known_mm, self.spacing_mm, spacing_known=self.spacing_known)

    @property
    def in_channels(self) -> int:
        """Of the network: in 2.5D the neighbouring slices are channels too."""
        return self.channels * (2 * self.view.context + 1)


def case_edges(
    known_mm: Sequence[float] | None, target: Sequence[float], *, spacing_known: bool
) -> tuple[float, ...]:
    """The voxel edges of a case's own grid, in the unit of the `target` spacing of a plan.

    Under a plan in pixels every voxel has edges of 1. Under one in mm a case of unknown spacing is
    taken as it is: its voxels pass for those of the plan.
    """
    if not spacing_known:
        return (1.0, 1.0, 1.0)
    return tuple(target if known_mm is None else known_mm)


def plan_from_dict(values: Mapping[str, Any]) -> Plan:
    """The plan that `dataclasses.asdict` wrote, also after a way through JSON."""
    view = View(tuple(values["view"]["patch"]), values["view"]["context"])
    rules = tuple(Normalisation(**rule) for rule in values.get("normalisation", ()))
    scale = Scale(**values["scale"]) if values.get("scale") else None
    others = values.keys() - {"view", "normalisation", "scale"}
    plain = {key: _frozen(values[key]) for key in others}
    return Plan(view=view, normalisation=rules, scale=scale, **plain)


def _frozen(value: Any) -> Any:  # noqa: ANN401
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
