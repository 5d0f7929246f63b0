"""Training cases to a plan, by nnU-Net's published rules.

Isensee et al., Nature Methods 18 (2021), and the rules that nnU-Net v2 documents. Only cases handed
in are read, and only training cases may be handed in: a plan that saw the held-out site leaks it.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segshift.cohort import Case
from segshift.cohort.case import SPACING, SPACING_KNOWN
from segshift.cohort.checks import IGNORED, check_headers, load_label
from segshift.cohort.images import Geometry
from segshift.errors import InputError
from segshift.plan.content import Plan, View, case_edges
from segshift.plan.cropping import (
    NONZERO,
    Box,
    box_shape,
    box_slices,
    check_crop,
    read_box,
    whole_box,
)
from segshift.plan.memory import checked_memory_gb
from segshift.plan.normalisation import plan_normalisation
from segshift.plan.scale import check_unsized, typical_scale
from segshift.plan.sizes import derived_sizes, resampled_shape, target_spacing_mm
from segshift.progress import threads, tracked
from segshift.units import Units

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
    headers: Sequence[Geometry] | None = None,
    scale: str | None = None,
) -> Plan:
    """Plan from the training cases' files; what is given overrides what is derived.

    A derived patch has at most `patch_voxels`; a derived batch has as many patches as fit into
    them, but at least 2. With `memory_gb` both follow the memory instead (`device`: of the GPU,
    `on_gpu`). Sizes are those after cropping; `box_of` says what is left of a case. `headers` are
    those of the cases, where they were read before. If one of the cases has no known spacing, all
    is in pixels, as they are in the files; a given `spacing_mm` then counts pixels. `scale` is one
    of scale.SCALES, for pictures without a physical size.
    Raises InputError for 2D images under a 3D view and for a patch that the pooling cannot halve.
    """
    _check_view(dimensions, context)
    check_crop(crop)
    headers = headers or [check_headers(case, raters=True) for case in cases]
    channels = headers[0].channels
    check_channels(cases, headers, channels)
    boxes = _boxes(cases, headers, box_of if crop == NONZERO else None)
    shapes = np.array([box_shape(box) for box in boxes])
    spacing_known = _is_known(cases, headers, given=bool(spacing_mm))
    typical, scaled = typical_scale(cases, headers, scale)
    own = [h.spacing_mm if spacing_known else (1.0, 1.0, 1.0) for h in headers]
    spacings = np.array([s.edges(edges) for s, edges in zip(scaled, own, strict=True)])
    target = tuple(spacing_mm) if spacing_mm else target_spacing_mm(spacings, shapes)
    if len(target) != 3 or min(target) <= 0:
        raise InputError(f"plan.spacing_mm={list(target)}: three positive numbers (z, y, x)")
    check_voxels(cases, headers, target, spacing_known=spacing_known)
    sizes = derived_sizes(
        [resampled_shape(*case, target) for case in zip(shapes, spacings, strict=True)],
        target,
        dimensions=dimensions,
        outputs=len(structures) + 1,
        patch_voxels=patch_voxels,
        memory_gb=checked_memory_gb(memory_gb, on_gpu=on_gpu),
        patch=patch,
    )
    return Plan(
        channels=channels,
        structures=tuple(structures),
        spacing_mm=target,
        view=View(sizes.patch, context),
        strides=sizes.strides,
        kernels=sizes.kernels,
        batch=batch or sizes.batch,
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
        spacing_known=spacing_known,
        scale=typical,
    )


def check_cases(cases: Iterable[Case], plan: Plan) -> dict[str, Geometry]:
    """What the headers say, by case. Raises InputError for wrong ones and for another plan's."""
    cases = list(cases)
    headers = [check_headers(case, raters=True) for case in cases]
    check_channels(cases, headers, plan.channels)
    check_voxels(cases, headers, plan.spacing_mm, spacing_known=plan.spacing_known)
    if plan.scale:
        check_unsized(cases, headers)
    return {case.id: header for case, header in zip(cases, headers, strict=True)}


def check_channels(cases: Sequence[Case], headers: Sequence[Geometry], channels: int) -> None:
    """Raises InputError naming the first case that has another number of channels."""
    for case, header in zip(cases, headers, strict=True):
        if header.channels != channels:
            raise InputError(
                f"case {case.id!r} has {header.channels} channel(s), the training cases have "
                f"{channels}; all need the same"
            )


def check_voxels(
    cases: Sequence[Case],
    headers: Sequence[Geometry],
    spacing_mm: Sequence[float],
    *,
    spacing_known: bool,
) -> None:
    """Raises InputError naming the first case that would grow a thousandfold when resampled.

    That is a file whose header has a wrong voxel size, such as 1 mm of a microscope.
    """
    for case, header in zip(cases, headers, strict=True):
        edges = case_edges(header.known_mm, spacing_mm, spacing_known=spacing_known)
        if not 1 / MOST_GROWTH <= np.prod(np.divide(edges, spacing_mm)) <= MOST_GROWTH:
            unit = Units(known=spacing_known).length
            raise InputError(
                f"case {case.id!r} has voxels of {_by(edges)} {unit}, the plan of "
                f"{_by(spacing_mm)} {unit}: is one of them wrong? Set {SPACING_KNOWN} to false in "
                "the manifest where the files' size is none, or train with another plan.spacing_mm"
            )


def _is_known(cases: Sequence[Case], headers: Sequence[Geometry], *, given: bool) -> bool:
    """Whether all cases have a known spacing. Raises InputError for a spacing given to some."""
    unsized = [c.id for c, h in zip(cases, headers, strict=True) if not h.spacing_known]
    if given and 0 < len(unsized) < len(cases):
        raise InputError(
            f"plan.spacing_mm is given, but {len(unsized)} of {len(cases)} training cases have no "
            f"physical size, such as {unsized[0]!r}; give it in the manifest's column {SPACING}, "
            "or leave plan.spacing_mm out: then all are taken as they are, in pixels"
        )
    return not unsized


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
