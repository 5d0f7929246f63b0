"""Ask the system for the part of a file that is about to be read, and for no more.

Left alone, page faults of a memory map read one after the other and far beyond a patch's rows.
"""

import os
from collections.abc import Sequence

import numpy as np


def prefetch(array: np.ndarray, low: Sequence[int], high: Sequence[int]) -> None:
    """Start reading the box [low, high) of a mapped (C, D, H, W), if it is not yet in memory."""
    if not (
        isinstance(array, np.memmap) and array.flags.c_contiguous and hasattr(os, "RWF_NOWAIT")
    ):
        return
    channel, plane, row, _ = array.strides
    first = array.offset + low[0] * plane + low[1] * row
    file = os.open(str(array.filename), os.O_RDONLY)
    try:
        if _in_memory(file, first + (high[0] - low[0]) // 2 * plane):
            return
        for c in range(array.shape[0]):
            for z in range(high[0] - low[0]):
                begin = first + c * channel + z * plane
                os.posix_fadvise(file, begin, (high[1] - low[1]) * row, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(file)


def _in_memory(file: int, place: int) -> bool:
    """Whether one byte can be had without waiting; asking costs a microsecond."""
    try:
        os.preadv(file, [bytearray(1)], place, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:  # a file system that cannot tell
        return True
    return True
