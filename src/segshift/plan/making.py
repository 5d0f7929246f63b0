"""Training cases to a plan, by nnU-Net's published rules.

Isensee et al., Nature Methods 18 (2021), and the rules that nnU-Net v2 documents. Only cases handed
in are read, and only training cases may be handed in: a plan that saw the held-out site leaks it.
It differs from nnU-Net in that the patch is bounded by a number of voxels unless `memory_gb` says
how much memory there is, and in that slices of a 2D view are always cut along z.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segshift.cohort import Case
from segshift.cohort.checks import IGNORED, check_headers, load_label
from segshift.cohort.images import Geometry
from segshift.errors import InputError
from segshift.plan.content import Plan, View
from segshift.plan.cropping import (
    NONZERO,
    Box,
    box_shape,
    box_slices,
    check_crop,
    read_box,
    whole_box,
)
from segshift.plan.memory import batch_for, checked_memory_gb, fitting_memory
from segshift.plan.normalisation import plan_normalisation
from segshift.plan.pooling import ANISOTROPY, SMALLEST_EDGE, padded, topology
from segshift.plan.scale import check_unsized, typical_scale
from segshift.progress import threads, tracked

MOST_GROWTH = 1000  # of the number of voxels, by resampling


def make_plan(
    cases: Sequence[Case],
    *,
    structures: Sequence[str],
    dimensions: int,
    context: int,
    patch_voxels: int,
    memory_gb: float | str | None = None,
    on_gpu: bool = False,
    batch: int | None = None,
    patch: Sequence[int] | None = None,
    spacing_mm: Sequence[float] | None = None,
    normalisation: str | Sequence[str] | None = None,
    interpolation: str = "linear",
    channel_names: Sequence[str] = (),
    crop: str = NONZERO,
    box_of: Callable[[Case], Box] = read_box,
    scale: str | None = None,
) -> Plan:
    """Plan from the training cases' files; what is given overrides what is derived.

    A derived patch has at most `patch_voxels`; a derived batch has as many patches as fit into
    them, but at least 2. With `memory_gb` both follow the memory instead (`device`: of the GPU,
    `on_gpu`). Sizes are those after cropping; `box_of` says what is left of a case. `scale` is one
    of scale.SCALES, for pictures without a physical size.
    Raises InputError for 2D images under a 3D view and for a patch that the pooling cannot halve.
    """
    _check_view(dimensions, context)
    check_crop(crop)
    memory = checked_memory_gb(memory_gb, on_gpu=on_gpu)
    headers = [check_headers(case, raters=True) for case in cases]
    channels = headers[0].channels
    check_channels(cases, headers, channels)
    boxes = _boxes(cases, headers, box_of if crop == NONZERO else None)
    shapes = np.array([box_shape(box) for box in boxes])
    typical, scaled = typical_scale(cases, scale)
    spacings = np.array([s.spacing_mm(h.spacing_mm) for s, h in zip(scaled, headers, strict=True)])
    target = tuple(spacing_mm) if spacing_mm else _target_spacing(spacings, shapes)
    if len(target) != 3 or min(target) <= 0:
        raise InputError(f"plan.spacing_mm={list(target)}: three positive numbers (z, y, x)")
    check_voxels(cases, headers, target)
    resampled = [resampled_shape(*case, target) for case in zip(shapes, spacings, strict=True)]
    shape = np.median(resampled, axis=0)
    median = shape[3 - dimensions :]
    if dimensions == 3 and median[0] < SMALLEST_EDGE:
        raise InputError(
            f"the training cases have a median of {median[0]:g} slices, too few for a 3D network; "
            "take model=unet2d or model=unet25d"
        )
    spacing = np.array(target[3 - dimensions :])
    outputs = len(structures) + 1
    if patch:
        size = _checked_patch(np.array(patch), spacing)
    elif memory:
        size = fitting_memory(np.ceil(median), spacing, memory_gb=memory, outputs=outputs)
    else:
        size = fitting_voxels(np.ceil(median), spacing, patch_voxels)
    if memory:
        voxels = float(shape.prod() * len(cases))
        derived = batch_for(size, spacing, memory_gb=memory, outputs=outputs, voxels=voxels)
    else:
        derived = max(2, patch_voxels // int(padded(size, spacing).prod()))
    strides, kernels = topology(tuple(int(n) for n in size), tuple(spacing.tolist()))
    return Plan(
        channels=channels,
        structures=tuple(structures),
        spacing_mm=target,
        view=View(tuple(padded(size, spacing).tolist()), context),
        strides=strides,
        kernels=kernels,
        batch=batch or derived,
        structure_frequency=_structure_frequency(cases, boxes, len(structures)),
        normalisation=plan_normalisation(
            cases,
            channels=channels,
            channel_names=channel_names,
            wanted=normalisation,
            kept=float(np.median(shapes.prod(1) / np.prod([h.shape for h in headers], axis=1))),
        ),
        interpolation=interpolation,
        crop=crop,
        scale=typical,
    )


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """The shape in voxels after resampling from `spacing_mm` to `target_mm`."""
    return tuple(
        max(round(n * old / new), 1)
        for n, old, new in zip(shape, spacing_mm, target_mm, strict=True)
    )


def check_cases(cases: Iterable[Case], plan: Plan) -> None:
    """Raises InputError for a case whose headers are wrong or do not go with the plan."""
    cases = list(cases)
    headers = [check_headers(case, raters=True) for case in cases]
    check_channels(cases, headers, plan.channels)
    check_voxels(cases, headers, plan.spacing_mm)
    if plan.scale:
        check_unsized(cases)


def check_channels(cases: Sequence[Case], headers: Sequence[Geometry], channels: int) -> None:
    """Raises InputError naming the first case that has another number of channels."""
    for case, header in zip(cases, headers, strict=True):
        if header.channels != channels:
            raise InputError(
                f"case {case.id!r} has {header.channels} channel(s), the training cases have "
                f"{channels}; all need the same"
            )


def check_voxels(
    cases: Sequence[Case], headers: Sequence[Geometry], spacing_mm: Sequence[float]
) -> None:
    """Raises InputError naming the first case that would grow a thousandfold when resampled.

    That is a file without a voxel size, read as 1 mm, among files that have one.
    """
    for case, header in zip(cases, headers, strict=True):
        grown = np.prod(np.divide(header.spacing_mm, spacing_mm))
        if not 1 / MOST_GROWTH <= grown <= MOST_GROWTH:
            raise InputError(
                f"case {case.id!r} has voxels of {_by(header.spacing_mm)} mm, the plan of "
                f"{_by(spacing_mm)} mm: does one of them lack its size? Give it in the manifest's "
                "column spacing_mm, or train with another plan.spacing_mm"
            )


def _by(edges: Sequence[float]) -> str:
    return " x ".join(f"{edge:g}" for edge in edges)


def _check_view(dimensions: int, context: int) -> None:
    if dimensions not in (2, 3):
        raise InputError(f"view.dimensions={dimensions}: a network sees 2 or 3 dimensions")
    if context < 0 or (context and dimensions == 3):
        raise InputError(f"view.context={context}: neighbouring slices belong to a 2D view only")


def _boxes(
    cases: Sequence[Case], headers: Sequence[Geometry], box_of: Callable[[Case], Box] | None
) -> list[Box]:
    """What is left of each case; all of it without `box_of`."""
    if box_of is None:
        return [whole_box(header.shape) for header in headers]
    with ThreadPoolExecutor(threads()) as pool:
        return list(tracked(pool.map(box_of, cases), "images", total=len(cases)))


def _target_spacing(spacings: np.ndarray, shapes: np.ndarray) -> tuple[float, ...]:
    """The median; a far coarser axis takes its 10th percentile, so that fine cases keep detail."""
    target, shape = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    coarse = target[worst] > ANISOTROPY * target[others].max()
    if coarse and shape[worst] * ANISOTROPY < shape[others].min():
        finer = np.percentile(spacings[:, worst], 10)
        target[worst] = max(finer, target[others].max())
    return tuple(float(f"{s:.7g}") for s in target)  # digits, not decimals: voxels may be tiny


def fitting_voxels(size: np.ndarray, spacing_mm: np.ndarray, voxels: int) -> np.ndarray:
    """Take from the longest edge until the patch, padded for pooling, has at most `voxels`."""
    size = size.astype(int)
    # Padding only adds, so the unpadded patch has to fit first: the longest edges give way.
    edge = int(size.max())
    while np.minimum(size, edge).prod() > voxels and edge > SMALLEST_EDGE:
        edge -= max(edge // 50, 1)
    size = np.minimum(size, edge + max(edge // 50, 1))
    while padded(size, spacing_mm).prod() > voxels and size.max() > SMALLEST_EDGE:
        size[np.argmax(size)] -= max(size.max() // 100, 1)
    return size


def _checked_patch(size: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray:
    if len(size) != len(spacing_mm) or min(size) < 1:
        raise InputError(
            f"plan.patch={size.tolist()}: the view needs {len(spacing_mm)} positive edges"
        )
    fitting = padded(size, spacing_mm)
    if not np.array_equal(fitting, size):
        raise InputError(
            f"plan.patch={size.tolist()} cannot be halved as often as the network pools; the next "
            f"fitting patch is {fitting.tolist()}"
        )
    return size


def _structure_frequency(
    cases: Sequence[Case], boxes: Sequence[Box], structures: int
) -> tuple[float, ...]:
    """Shares of the voxels that somebody decided on, each among the cases that annotate it."""
    counts, voxels = np.zeros((2, structures + 1), dtype=np.int64)
    with ThreadPoolExecutor(threads()) as pool:
        found = pool.map(_voxel_counts, cases, boxes)
        for case, here in zip(cases, tracked(found, "labels", total=len(cases)), strict=True):
            counts += here[: structures + 1]
            voxels += np.array([True, *case.annotation.annotated]) * here[:IGNORED].sum()
    shares = counts / np.maximum(voxels, 1)
    total = shares.sum() if (voxels < voxels[0]).any() else 1.0
    return tuple(float(share) for share in shares / total)


def _voxel_counts(case: Case, box: Box) -> np.ndarray:
    return np.bincount(load_label(case)[box_slices(box)].ravel(), minlength=IGNORED + 1)
