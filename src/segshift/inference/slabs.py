"""A whole case, slab after slab along z, on its own grid.

At any time there is no more of a prediction than the windows that are being predicted, a window's
depth on the plan's grid and one slab on the case's own: memory grows neither with the number of
slices nor with that of networks and mirrors.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from segshift.inference.members import Members, Said, Spread, mirror_flips
from segshift.inference.windows import Windows, windows_of
from segshift.plan import View, box_shape, box_slices
from segshift.plan.cropping import whole_box

FLOAT_BYTES = 4
SLAB_COPIES = 4  # a slab, and what whoever gets it makes of it
SLAB_SHARE = 8  # an eighth of the budget is for slabs, the rest for windows
WINDOW_COPIES = 3  # the mean of a batch of windows, a member's logits and its probabilities
WINDOW_VOXELS = 2**16  # more at once save less time than they take memory: bench/README.md
SPREAD_COPIES = 2  # the mean square, and what is made of it to be counted


@dataclass(frozen=True, slots=True)
class Slab:
    """Slices from `start` on, of the case's own grid, on the CPU.

    `probability` is float32 (K, d, H, W), the mean over members (networks and mirrors). `doubt`
    (d, H, W) is the mean of their entropies, if asked for.
    """

    start: int
    probability: torch.Tensor
    doubt: torch.Tensor | None


@torch.no_grad()
def predict_slabs(
    networks: Sequence[nn.Module],
    image: torch.Tensor,
    view: View,
    *,
    activation: Callable[[torch.Tensor], torch.Tensor],
    shape: Sequence[int] | None = None,
    box: Sequence[Sequence[int]] | None = None,
    exclusive: bool = True,
    overlap: float = 0.25,
    mirror_axes: Sequence[int] = (),
    budget_gb: float = 3.0,
    window_batch: int | None = None,
    autocast: torch.dtype | None = None,
    doubts: bool = False,
    spread: Spread | None = None,
) -> Iterator[Slab]:
    """Slabs in the order of z that tile a grid (D, H, W) of `shape`, the image's own if not given.

    `image` (C, D', H', W') on the plan's grid shows what lies in `box` ((low, high) per axis) of
    that grid, all of it if not given. Windows of the training patch's size are averaged with
    Gaussian weights (Isensee et al. 2021), over all networks (in evaluation mode) and all mirrors
    along `mirror_axes` (0 z, 1 y, 2 x); the work grows with both.

    Where channels are `exclusive`, the first is the background and 1 outside the box; otherwise all
    are 0 there. `budget_gb` bounds what is held of the prediction; if a window's depth of it does
    not fit, windows are predicted more than once. Networks see `window_batch` windows at once, by
    default as many as have WINDOW_VOXELS voxels or more. `autocast` is the networks' type; without
    it the caller's autocast holds. Slabs have `doubts` if asked for; a `spread` has counted all
    windows when the last slab came. Raises InputError for mirrors that the view does not have.
    """
    flips = mirror_flips(mirror_axes, dimensions=view.dimensions)
    members = Members(
        networks, activation, flips, exclusive, autocast, doubts, squares=spread is not None
    )
    shape = tuple(image.shape[1:]) if shape is None else tuple(shape)
    box = whole_box(shape) if box is None else box
    budget = int(budget_gb * 1e9)
    windows = windows_of(image, view, overlap=overlap)
    batch = window_batch or math.ceil(WINDOW_VOXELS / math.prod(view.patch))
    rows = _rows(windows, members, image.shape[1:], budget - budget // SLAB_SHARE, batch, spread)
    rows = _resampled(rows, image.shape[1], box_shape(box))
    for start, slab in _gathered(rows, shape, box, exclusive, budget // SLAB_SHARE):
        yield Slab(start, slab[:-1], slab[-1]) if doubts else Slab(start, slab, None)


def predict_case(
    networks: nn.Module | Sequence[nn.Module],
    image: torch.Tensor,
    view: View,
    *,
    activation: Callable[[torch.Tensor], torch.Tensor],
    **options: object,
) -> torch.Tensor:
    """All slabs of `predict_slabs` in one: (K, D, H, W), float32, on the CPU; for small cases."""
    networks = [networks] if isinstance(networks, nn.Module) else networks
    slabs = predict_slabs(networks, image, view, activation=activation, **options)  # type: ignore[arg-type]
    return torch.cat([slab.probability for slab in slabs], 1)


def _rows(
    windows: Windows,
    members: Members,
    shape: Sequence[int],
    budget: int,
    batch: int,
    spread: Spread | None,
) -> Iterator[torch.Tensor]:
    """Finished slices (K, H, W) of the image's grid in the order of z.

    They are summed up in a ring as deep as a window. If it does not fit, it is less deep, and the
    windows that reach beyond its slices are predicted again for the next ones. The first batch of
    all tells how much a window takes; after it, no more are seen at once than fit beside the ring.
    """
    depth, (before, *inside) = windows.size[0], windows.before
    plane = [(low, low + n) for low, n in zip(inside, shape[1:], strict=True)]
    first, end = before, before + shape[0]
    ring: torch.Tensor | None = None
    fits = batch
    while first < end:
        done, last = first, end if ring is None else min(first + len(ring), end)
        touching = [c for c in windows.corners if c[0] + depth > first and c[0] < last]
        at = 0
        while at < len(touching):
            some = touching[at : at + _even_batch(len(touching) - at, fits)]
            at += len(some)
            said = members(torch.stack([windows.seen(corner) for corner in some]))
            if ring is None:
                one = _window_bytes(said)
                ring = _ring(windows, said, budget=max(budget - one, budget // 2))
                last = end if len(ring) == depth else min(first + len(ring), end)
                fits = min(max((budget - ring.nbytes) // one, 1), batch)
                touching = [corner for corner in touching if corner[0] < last]
            for place, corner in enumerate(some):
                if corner[0] >= last:  # it was seen before the ring's depth was known
                    break
                for z in range(done, min(corner[0], last)):
                    yield _taken(ring, z)[:, *box_slices(plane)]
                    done = z + 1
                window = said.probability[place]
                _add(ring, corner, window, windows, low=first, high=last)
                if spread is not None and said.square is not None:
                    square, part = said.square[place], windows.part(corner, [(first, last), *plane])
                    share = windows.share(corner)[part]
                    spread.add(window[: len(square), *part], square[:, *part], share)
        assert ring is not None
        for z in range(done, last):
            yield _taken(ring, z)[:, *box_slices(plane)]
        first = last


def _even_batch(left: int, most: int) -> int:
    """How many of the windows that are left to take: batches differ by one at most."""
    return math.ceil(left / math.ceil(left / most))


def _ring(windows: Windows, said: Said, *, budget: int) -> torch.Tensor:
    """Zeros (d, channels + 1, H, W): weighted sums of a slice and, last, the sum of the weights."""
    image = windows.image
    plane = (said.probability.shape[1] + 1, *image.shape[2:])
    fits = budget // (FLOAT_BYTES * int(torch.Size(plane).numel()))
    depth = max(min(windows.size[0], fits), 1)
    return torch.zeros(depth, *plane, device=image.device)


def _window_bytes(said: Said) -> int:
    """What is held at once of the prediction of one window."""
    copies = WINDOW_COPIES if said.square is None else WINDOW_COPIES + SPREAD_COPIES
    return copies * said.probability[0].nbytes


def _add(
    ring: torch.Tensor,
    corner: tuple[int, int, int],
    window: torch.Tensor,
    windows: Windows,
    *,
    low: int,
    high: int,
) -> None:
    """Add a window (K, d, h, w) with its weights, as far as it lies in slices `low` to `high`."""
    z, *place = corner
    inside = box_slices([(n, n + edge) for n, edge in zip(place, windows.size[1:], strict=True)])
    weight = windows.weight
    begin, stop = max(z, low), min(z + len(weight), high)
    while begin < stop:  # once, or twice where the ring begins anew
        at = begin % len(ring)
        count = min(len(ring) - at, stop - begin)
        part = slice(begin - z, begin - z + count)
        target = ring[at : at + count, :, *inside]
        target[:, :-1].addcmul_(window[:, part].transpose(0, 1), weight[part, None])
        target[:, -1] += weight[part]
        begin += count


def _taken(ring: torch.Tensor, z: int) -> torch.Tensor:
    """The mean (K, H, W) of slice z, whose place in the ring is then free for a later one."""
    place = ring[z % len(ring)]
    mean = (place[:-1] / place[-1]).clamp_(max=1)  # the mean of ones may be a last bit above
    place.zero_()
    return mean


def _resampled(
    rows: Iterator[torch.Tensor], depth: int, shape: Sequence[int]
) -> Iterator[torch.Tensor]:
    """Trilinear, from `depth` slices (K, h, w) to `shape`, as if all were interpolated at once."""
    edges = tuple(shape[1:])

    def fitted(row: torch.Tensor) -> torch.Tensor:
        if row.shape[1:] == edges:
            return row
        return functional.interpolate(row[None], size=edges, mode="bilinear")[0]

    if depth == shape[0]:
        yield from map(fitted, rows)
        return
    source = rows
    # Of fewer slices: of those that come, or of those that go.
    fit_first = depth < shape[0]
    if fit_first:
        rows = map(fitted, rows)
    steps = torch.arange(depth, dtype=torch.float32)[None, None]
    positions = functional.interpolate(steps, size=shape[0], mode="linear")[0, 0].tolist()
    below = above = next(rows)
    taken = 1
    for number, position in enumerate(positions, start=1):
        for _ in range(taken, min(int(position) + 2, depth)):
            below, above = above, next(rows)
            taken += 1
        share = position - (taken - 2) if taken > 1 else 0.0
        row = torch.lerp(below, above, share)
        if number == len(positions):
            for _ in source:  # slices that no other needs: a spread counts them all the same
                pass
        yield row if fit_first else fitted(row)


def _gathered(
    rows: Iterator[torch.Tensor],
    shape: Sequence[int],
    box: Sequence[Sequence[int]],
    exclusive: bool,
    budget: int,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Slabs (K, d, H, W) of the whole grid with their start, from the slices (K, h, w) in a box."""
    row = next(rows)
    rows = itertools.chain([row], rows)
    depth, height, width = shape
    thick = max(budget // (SLAB_COPIES * FLOAT_BYTES * len(row) * height * width), 1)
    (low, high), *inside = box
    place = box_slices(inside)
    for start in range(0, depth, thick):
        slab = torch.zeros(len(row), min(thick, depth - start), height, width)
        if exclusive:
            slab[0] = 1
        for z in range(max(start, low), min(start + slab.shape[1], high)):
            slab[:, z - start, place[0], place[1]] = next(rows).cpu()
        yield start, slab
