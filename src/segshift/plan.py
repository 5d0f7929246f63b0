"""Training cases to Plan: spacing, patch and network topology, by nnU-Net's published rules.

Isensee et al., Nature Methods 18 (2021), and the rules that nnU-Net v2 documents. Only cases handed
in are read, and only training cases may be handed in: a plan that saw the held-out site leaks it.
It differs from nnU-Net in that memory is bounded by a number of patch voxels, not by an estimate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segshift.cohort import Case
from segshift.cohort.checks import check_headers, load_label
from segshift.cohort.images import Geometry
from segshift.errors import InputError

SMALLEST_EDGE = 4  # voxels; an axis is pooled while its edge stays at least this long
ANISOTROPY = 3.0  # an axis this much coarser than the others keeps its fine detail


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
class Plan:
    """All that is derived from the training cases; axes in the order (z, y, x)."""

    channels: int
    structures: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    view: View
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    batch: int
    structure_frequency: tuple[float, ...]  # share of voxels, background first

    @property
    def in_channels(self) -> int:
        """Of the network: in 2.5D the neighbouring slices are channels too."""
        return self.channels * (2 * self.view.context + 1)


def make_plan(
    cases: Sequence[Case],
    *,
    structures: Sequence[str],
    dimensions: int,
    context: int,
    patch_voxels: int,
    batch: int | None = None,
    patch: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
) -> Plan:
    """Plan from the training cases' headers and labels; what is given overrides what is derived.

    A derived patch has at most `patch_voxels`; a derived batch has as many patches as fit into
    them, but at least 2.
    Raises InputError for 2D images under a 3D view and for a patch that the pooling cannot halve.
    """
    _check_view(dimensions, context)
    headers = [check_headers(case) for case in cases]
    channels = headers[0].channels
    check_channels(cases, headers, channels)
    target = tuple(spacing_mm) if spacing_mm else _target_spacing(headers)
    if len(target) != 3 or min(target) <= 0:
        raise InputError(f"plan.spacing_mm={list(target)}: three positive numbers (z, y, x)")
    shapes = [resampled_shape(h.shape, h.spacing_mm, target) for h in headers]
    median = np.median(shapes, axis=0)[3 - dimensions :]
    if dimensions == 3 and median[0] < SMALLEST_EDGE:
        raise InputError(
            f"the training cases have a median of {median[0]:g} slices, too few for a 3D network; "
            "take model=unet2d or model=unet25d"
        )
    spacing = np.array(target[3 - dimensions :])
    size = np.array(patch) if patch else _fitting(np.ceil(median), spacing, patch_voxels)
    if len(size) != dimensions or min(size) < 1:
        raise InputError(f"plan.patch={list(size)}: the view needs {dimensions} positive edges")
    padded = _padded(size, spacing)
    if patch and not np.array_equal(padded, size):
        raise InputError(
            f"plan.patch={size.tolist()} cannot be halved as often as the network pools; the next "
            f"fitting patch is {padded.tolist()}"
        )
    strides, kernels = topology(tuple(int(n) for n in size), tuple(spacing.tolist()))
    return Plan(
        channels=channels,
        structures=tuple(structures),
        spacing_mm=target,
        view=View(tuple(padded.tolist()), context),
        strides=strides,
        kernels=kernels,
        batch=batch or max(2, patch_voxels // int(padded.prod())),
        structure_frequency=_structure_frequency(cases, len(structures)),
    )


def topology(
    patch: tuple[int, ...], spacing_mm: tuple[float, ...]
) -> tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
    """Strides and kernels per stage, the first stage at full resolution.

    An axis is halved while its edge stays long enough and its voxels are less than twice as long
    as the finest axis'; kernels grow from 1 to 3 once an axis is no longer that coarse.
    """
    size, spacing = np.array(patch), np.array(spacing_mm)
    kernel = np.ones(len(size), dtype=int)
    strides, kernels = [np.ones(len(size), dtype=int)], []
    while True:
        kernel = np.where(spacing / spacing.min() < 2, 3, kernel)
        kernels.append(kernel)
        long_enough = size >= 2 * SMALLEST_EDGE
        if not long_enough.any():
            break
        pooled = long_enough & (spacing / spacing[long_enough].min() < 2)
        if pooled.sum() == 1 and size[pooled][0] < 3 * SMALLEST_EDGE:
            break
        strides.append(np.where(pooled, 2, 1))
        size = np.where(pooled, -(-size // 2), size)
        spacing = np.where(pooled, spacing * 2, spacing)
    # MONAI's DynUNet has no fewer than three stages; a tiny patch gets unpooled ones.
    while len(strides) < 3:
        strides.append(np.ones(len(size), dtype=int))
        kernels.append(kernel)
    return _tuples(strides), _tuples(kernels)


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """The shape in voxels after resampling from `spacing_mm` to `target_mm`."""
    return tuple(
        max(round(n * old / new), 1)
        for n, old, new in zip(shape, spacing_mm, target_mm, strict=True)
    )


def check_channels(cases: Sequence[Case], headers: Sequence[Geometry], channels: int) -> None:
    """Raises InputError naming the first case that has another number of channels."""
    for case, header in zip(cases, headers, strict=True):
        if header.channels != channels:
            raise InputError(
                f"case {case.id!r} has {header.channels} channel(s), the training cases have "
                f"{channels}; all need the same"
            )


def _check_view(dimensions: int, context: int) -> None:
    if dimensions not in (2, 3):
        raise InputError(f"view.dimensions={dimensions}: a network sees 2 or 3 dimensions")
    if context < 0 or (context and dimensions == 3):
        raise InputError(f"view.context={context}: neighbouring slices belong to a 2D view only")


def _target_spacing(headers: Sequence[Geometry]) -> tuple[float, ...]:
    """The median; a far coarser axis takes its 10th percentile, so that fine cases keep detail."""
    spacings = np.array([h.spacing_mm for h in headers])
    target, shape = np.median(spacings, axis=0), np.median([h.shape for h in headers], axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = target[worst] > ANISOTROPY * target[others].max()
    if coarse and shape[worst] * ANISOTROPY < shape[others].min():
        finer = np.percentile(spacings[:, worst], 10)
        target[worst] = max(finer, target[others].max())
    return tuple(round(float(s), 6) for s in target)


def _fitting(size: np.ndarray, spacing_mm: np.ndarray, voxels: int) -> np.ndarray:
    """Take from the longest edge until the patch, padded for pooling, has at most `voxels`."""
    size = size.astype(int)
    # Padding only adds, so the unpadded patch has to fit first: the longest edges give way.
    edge = int(size.max())
    while np.minimum(size, edge).prod() > voxels and edge > SMALLEST_EDGE:
        edge -= max(edge // 50, 1)
    size = np.minimum(size, edge + max(edge // 50, 1))
    while _padded(size, spacing_mm).prod() > voxels and size.max() > SMALLEST_EDGE:
        size[np.argmax(size)] -= max(size.max() // 100, 1)
    return size


def _padded(size: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    """The next size that the topology of `size` can halve."""
    strides, _ = topology(tuple(int(n) for n in size), tuple(spacing_mm.tolist()))
    divisor = np.prod(strides, axis=0)
    return np.asarray(-(-size // divisor) * divisor)


def _structure_frequency(cases: Sequence[Case], structures: int) -> tuple[float, ...]:
    counts = np.zeros(structures + 1, dtype=np.int64)
    for case in cases:
        counts += np.bincount(load_label(case).ravel(), minlength=structures + 1)
    return tuple(float(share) for share in counts / counts.sum())


def _tuples(rows: Sequence[np.ndarray]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(n) for n in row) for row in rows)


def plan_from_dict(values: Mapping[str, Any]) -> Plan:
    """The plan that `dataclasses.asdict` wrote, also after a way through JSON."""
    view = View(tuple(values["view"]["patch"]), values["view"]["context"])
    rest = {key: _frozen(value) for key, value in values.items() if key != "view"}
    return Plan(view=view, **rest)


def _frozen(value: Any) -> Any:  # noqa: ANN401
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value
