"""Slabs of members that see an image on different grids, cut alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segshift.inference import Slab, Spread
from segshift.plan import Scaled


@dataclass(frozen=True, slots=True)
class Stream:
    """The slabs of `members` that go through the image's windows together, and their spread.

    They were given the image at the scale `scaled`.
    """

    slabs: Iterator[Slab]
    members: int
    spread: Spread
    scaled: Scaled


def aligned(streams: Sequence[Iterator[Slab]]) -> Iterator[list[Slab]]:
    """Slabs of streams that are cut differently: those of the same slices, one of each stream."""
    heads = [next(stream) for stream in streams]
    start = 0
    while True:
        ends = [head.start + head.probability.shape[1] for head in heads]
        end = min(ends)
        yield [_cut(head, start, end) for head in heads]
        start = end
        try:
            heads = [
                next(stream) if stop == end else head
                for stream, head, stop in zip(streams, heads, ends, strict=True)
            ]
        except StopIteration:
            assert all(stop == end for stop in ends), "all streams tile the same grid"
            return


def _cut(slab: Slab, start: int, end: int) -> Slab:
    part = slice(start - slab.start, end - slab.start)
    doubt = None if slab.doubt is None else slab.doubt[part]
    return Slab(start, slab.probability[:, part], doubt)
