"""Dice, HD95 and NSD of one case with three structures against MONAI's functions, side by side.

`python bench/metrics.py [--size 192 192 160] [--threads 2] [--repeats 5]`. The structures are blobs
with wavy surfaces, of the size of organs: 15, 4 and 0.4 % of the volume. The prediction is another
draw of their waves. A repeat times ours and then MONAI's on the same masks, so a machine that
drifts drifts for both; printed are the medians, their ratio and the largest difference of a value.

Both sides may use the same processors. MONAI gets masks as tensors (one-hot, as its functions want
them), made before the clock starts, and the same tolerance and spacing.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from segshift.metrics import Dice, HausdorffDistance95, MaskPair, SurfaceDice

SPACING_MM, TOLERANCE_MM = (1.0, 0.8, 0.8), 2.0
METRICS = (Dice(), HausdorffDistance95(), SurfaceDice(tolerance_mm=TOLERANCE_MM))
# Centre and half axes of each ellipsoid, of the volume's edges.
ORGANS = (
    ((0.45, 0.4, 0.35), (0.36, 0.33, 0.3)),
    ((0.5, 0.65, 0.72), (0.27, 0.17, 0.2)),
    ((0.3, 0.75, 0.3), (0.1, 0.09, 0.1)),
)
WAVES = 0.12  # of a half axis


def main(shape: list[int], *, threads: int, repeats: int) -> None:
    """Print both times, the ratio and the largest difference."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
    pred, ref = (drawn(shape, seed) for seed in (1, 2))
    shares = " ".join(f"{100 * mask.mean():.1f}" for mask in ref)
    print(
        f"case of {'x'.join(map(str, shape))}, {len(ORGANS)} structures of {shares} % of it, "
        f"{threads} threads, {repeats} pairs"
    )
    batch = [torch.from_numpy(masks[None]).float() for masks in (pred, ref)]
    own, monai = (lambda: ours(pred, ref)), (lambda: theirs(*batch))
    difference = np.abs(own() - monai()).max()  # which warms both up
    pairs = [(seconds(own), seconds(monai)) for _ in range(repeats)]
    fast, slow = (statistics.median(times) for times in zip(*pairs, strict=True))
    print("\n| segshift | MONAI | ratio | largest difference |\n|---|---|---|---|")
    print(f"| {fast:.3f} s | {slow:.3f} s | {slow / fast:.1f} | {difference:.1e} |")


def drawn(shape: list[int], seed: int) -> np.ndarray:
    """Masks bool (structures, D, H, W)."""
    random = np.random.default_rng(seed)
    place = np.meshgrid(*((np.arange(n) + 0.5) / n for n in shape), indexing="ij")
    waves = ndimage.gaussian_filter(random.normal(size=shape), [n / 16 for n in shape])
    waves *= WAVES / waves.std()
    masks = []
    for centre, half in ORGANS:
        radius = sum(((p - c) / h) ** 2 for p, c, h in zip(place, centre, half, strict=True)) ** 0.5
        masks.append(radius < 1 + waves)
    return np.stack(masks)


def ours(pred: np.ndarray, ref: np.ndarray) -> np.ndarray:
    """Values (metrics, structures)."""
    pairs = [MaskPair(*masks, SPACING_MM) for masks in zip(pred, ref, strict=True)]
    return np.array([[metric.of(pair) for pair in pairs] for metric in METRICS])


def theirs(pred: torch.Tensor, ref: torch.Tensor) -> np.ndarray:
    """The same of masks (1, structures, D, H, W)."""
    given = {"include_background": True, "spacing": SPACING_MM}
    tolerances = [TOLERANCE_MM] * pred.shape[1]
    values = (
        compute_dice(pred, ref, include_background=True),
        compute_hausdorff_distance(pred, ref, percentile=95, **given),
        compute_surface_dice(pred, ref, class_thresholds=tolerances, **given),
    )
    return np.stack([value[0].numpy() for value in values])


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, nargs=3, default=[192, 192, 160])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    main(given.size, threads=given.threads, repeats=given.repeats)
