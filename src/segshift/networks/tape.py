"""What a network's layers do to space, recorded from one forward pass, and its receptive field.

A dispatch mode sees every operation below autograd, whatever module called it, so the layers are
the real ones. On the meta device nothing is computed. From one output voxel the tape is walked
backwards with exact intervals; statistics of a normalisation, which see the whole patch, are left
out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Interval = tuple[int, int]  # first and last voxel; empty if the first lies behind the last
Reach = Callable[[Interval, int], Interval]  # (of the output, axis) to that of every input

# That keep each voxel where it is, if the sizes agree; those that torch tags as pointwise do too.
IN_PLACE = {
    "_to_copy", "_unsafe_view", "alias", "cat", "clone", "detach", "expand", "lift_fresh",
    "native_dropout", "repeat", "view", "_reshape_alias", "native_group_norm", "native_batch_norm",
    "_native_batch_norm_legit", "_native_batch_norm_legit_no_training", "_batch_norm_no_update",
    "_batch_norm_with_update", "cudnn_batch_norm", "miopen_batch_norm",
}  # fmt: skip
POOLS = {"max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool2d", "avg_pool3d"}
PADS = {
    "constant_pad_nd", "reflection_pad2d", "reflection_pad3d", "replication_pad2d",
    "replication_pad3d",
}  # fmt: skip
LINEAR = {"upsample_bilinear2d", "upsample_trilinear3d"}
NEAREST = {"upsample_nearest2d", "upsample_nearest3d"}


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution, as it ran: kernel in voxels, output channels and size (*S) in voxels."""

    kernel: tuple[int, ...]
    channels: int
    size: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    inputs: tuple[int, ...]
    reach: Reach | None  # None: an output voxel may see everything
    size: tuple[int, ...]


class Tape(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records all that is computed from `image` (B, C, *S) while it is the active mode."""

    def __init__(self, image: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dimensions = image.ndim - 2
        self.convolutions: list[Convolution] = []
        self._steps = [_Step((), None, tuple(image.shape[2:]))]
        self._step_of = {id(image): 0}
        self._kept = [image]  # an id is a name only as long as its tensor lives

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        output = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        tracked = [tensor for tensor in tensors if id(tensor) in self._step_of]
        made = [x for x in tree_leaves(output) if isinstance(x, torch.Tensor)]
        if tracked and made:
            inputs = tuple(self._step_of[id(tensor)] for tensor in tracked)
            size = self._size(made[0])
            self._steps.append(_Step(inputs, self._reach(func, args, tracked, made[0]), size))
            self._step_of |= {id(tensor): len(self._steps) - 1 for tensor in made}
            self._kept += made
            if func.overloadpacket._qualified_op_name == "aten::convolution":
                self.convolutions.append(
                    Convolution(tuple(args[1].shape[2:]), int(made[0].shape[1]), size)
                )
        return output

    def receptive_field(self, output: torch.Tensor) -> tuple[int, ...] | None:
        """Voxels per axis that an output voxel depends on, for the voxel that sees furthest.

        None if an operation on the way mixes space in a way that is not followed (attention).
        """
        last = self._step_of[id(output)]
        extents = [self._extent(last, axis) for axis in range(self.dimensions)]
        return None if None in extents else tuple(extent for extent in extents if extent)

    def _extent(self, last: int, axis: int) -> int | None:
        """The largest extent over the positions of an output voxel within the coarsest voxel."""
        edges = [c.size[axis] for c in self.convolutions]
        phases = -(-max(edges) // min(edges)) if edges else 1
        extents = []
        for phase in range(phases):
            needed: list[Interval | None] = [None] * (last + 1)
            needed[last] = (phase, phase)
            for index in range(last, 0, -1):
                step, interval = self._steps[index], needed[index]
                if interval is None:
                    continue
                if step.reach is None:
                    return None
                below = step.reach(interval, axis)
                if below[0] <= below[1]:
                    for source in step.inputs:
                        needed[source] = _union(needed[source], below)
            first = needed[0]
            extents.append(first[1] - first[0] + 1 if first else 0)
        return max(extents)

    def _size(self, tensor: torch.Tensor) -> tuple[int, ...]:
        return tuple(tensor.shape[tensor.ndim - self.dimensions :])

    def _reach(
        self,
        func: Any,  # noqa: ANN401
        args: Sequence[Any],
        tracked: Sequence[torch.Tensor],
        made: torch.Tensor,
    ) -> Reach | None:
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        n, sizes = self.dimensions, [self._size(tensor) for tensor in tracked]
        if name == "convolution":
            stride, padding, dilation = (_each(args[i], n) for i in (3, 4, 5))
            kernel = tuple(args[1].shape[2:])
            across = _gathers if not args[6] else _scatters
            return across(kernel, stride, padding, dilation)
        if name in POOLS:
            kernel = _each(args[1], n)
            stride = _each(args[2], n) if len(args) > 2 and args[2] else kernel
            padding = _each(args[3], n) if len(args) > 3 else (0,) * n
            return _gathers(kernel, stride, padding, (1,) * n)
        if name in LINEAR and not args[2]:
            return _interpolates(sizes[0], self._size(made), linear=True)
        if name in NEAREST:
            return _interpolates(sizes[0], self._size(made), linear=False)
        if name in PADS:
            before = [*args[1][-2::-2]][-n:]
            return _moves([0] * (n - len(before)) + [-b for b in before])
        if name == "slice":
            dim, start, step = (args[1] if len(args) > 1 else 0) - made.ndim + n, 0, 1
            if len(args) > 2 and args[2]:
                start = args[2]
            if len(args) > 4:
                step = args[4]
            return _moves([start * (axis == dim) for axis in range(n)]) if step == 1 else None
        alike = all(size == self._size(made) for size in sizes)
        pointwise = torch.Tag.pointwise in func.tags
        return _stays if alike and (pointwise or name.rstrip("_") in IN_PLACE) else None


def _union(one: Interval | None, other: Interval) -> Interval:
    return (min(one[0], other[0]), max(one[1], other[1])) if one else other


def _each(values: Any, dimensions: int) -> tuple[int, ...]:  # noqa: ANN401
    """Torch's short forms of one number for all axes, written out."""
    values = [values] if isinstance(values, int) else list(values)
    return tuple(values * dimensions if len(values) == 1 else values)


def _stays(interval: Interval, axis: int) -> Interval:
    return interval


def _moves(offset: Sequence[int]) -> Reach:
    return lambda interval, axis: (interval[0] + offset[axis], interval[1] + offset[axis])


def _gathers(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Reach:
    """A convolution or a pooling."""

    def reach(interval: Interval, axis: int) -> Interval:
        first, last = (edge * stride[axis] - padding[axis] for edge in interval)
        return first, last + dilation[axis] * (kernel[axis] - 1)

    return reach


def _scatters(
    kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Reach:
    """A transposed convolution: input i writes from i * stride - padding on, a kernel long."""

    def reach(interval: Interval, axis: int) -> Interval:
        extent = dilation[axis] * (kernel[axis] - 1)
        first, last = (edge + padding[axis] for edge in interval)
        return -((extent - first) // stride[axis]), last // stride[axis]

    return reach


def _interpolates(small: Sequence[int], large: Sequence[int], *, linear: bool) -> Reach | None:
    """Upsampling by whole factors, centres aligned; the clamping at the border is left out."""
    if any(fine % coarse for coarse, fine in zip(small, large, strict=True)):
        return None
    factors = [fine // coarse for coarse, fine in zip(small, large, strict=True)]

    def reach(interval: Interval, axis: int) -> Interval:
        factor = factors[axis]
        if not linear:
            return interval[0] // factor, interval[1] // factor
        # The source of voxel o is (2 o + 1 - factor) / (2 factor), between two voxels or on one.
        first, last = (2 * edge + 1 - factor for edge in interval)
        return first // (2 * factor), -(-last // (2 * factor))

    return reach
