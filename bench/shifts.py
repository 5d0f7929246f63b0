"""What a shift costs: seconds for a volume, against preprocessing that volume.

`OMP_NUM_THREADS=1 python bench/shifts.py [--edge=128] [--repeats=3]` prints a table: the median
over repeats at severity 3, of a volume of edge^3 with one channel (`stain`: one slice, RGB).
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

from segshift import shifts
from segshift.data.preprocessing import preprocessed_image
from segshift.plan import Plan, View
from segshift.shifts import Acquisition, Graded

SEVERITY = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    edge, random = options.edge, np.random.default_rng(0)
    volume = random.integers(0, 1000, (1, edge, edge, edge)).astype(np.float32)
    plane = random.integers(0, 255, (3, 1, 4 * edge, 4 * edge)).astype(np.float32)
    maps = np.stack([volume[0] / 1000, volume[0] + 100, volume[0] / 10 + 10])
    acquisition = Acquisition((1.0, 1.0, 1.0), {"tr_ms": "500", "te_ms": "12"}, maps)
    plan = Plan(1, ("x",), (0.9, 0.9, 0.9), View((8, 8, 8)), (), (), 1, (0.5, 0.5))

    def preprocess() -> object:
        return preprocessed_image(volume, plan, spacing_mm=(1.0, 1.0, 1.0))

    reference_s = seconds(preprocess, options.repeats)
    print("| shift | seconds | of preprocessing |\n|---|---|---|")
    print(f"| (preprocessing) | {reference_s:.3f} | 1 |")
    parts = [getattr(shifts, name) for name in shifts.__all__]
    for part in parts:
        if not (isinstance(part, type) and issubclass(part, Graded) and part is not Graded):
            continue
        shift, image = part(SEVERITY), plane if part is shifts.Stain else volume

        def change(shift: Graded = shift, image: np.ndarray = image) -> object:
            return shift(image, acquisition=acquisition, random=np.random.default_rng(0))

        took_s = seconds(change, options.repeats)
        print(f"| `{shift.name}` | {took_s:.3f} | {took_s / reference_s:.2f} |")


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
