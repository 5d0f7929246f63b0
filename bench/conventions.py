"""HD95 and ASSD of random pairs of masks against MONAI, medpy and DeepMind: whose numbers are ours?

`python bench/conventions.py [--pairs 300] [--seed 0]`. The reference is smoothed noise above a
threshold in 8 to 24 slices of 24 to 48 voxels, 0.5 to 3 mm apart; the prediction is that of the
same noise mixed with other noise. Printed are how many pairs differ by more than 0.001 mm and by
more than 0.5 mm, the median and the largest difference, and how often ours is the larger value.
medpy is no dependency: `pip install medpy` before, or its lines are left out.
"""

import argparse
import importlib.util
import warnings
from collections.abc import Callable, Iterator

import numpy as np
import surface_distance
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from numpy.typing import NDArray
from scipy import ndimage

from segshift.metrics import AverageSurfaceDistance, HausdorffDistance95

Mask = NDArray[np.bool_]
Spacing = tuple[float, ...]
Values = tuple[float, float]  # HD95 and ASSD in mm
METRICS = {"HD95": HausdorffDistance95(), "ASSD": AverageSurfaceDistance()}
SAME_MM, CLEAR_MM = 1e-3, 0.5


def main(pairs: int, *, seed: int) -> None:
    """Print a line for each metric and library."""
    warnings.filterwarnings("ignore")  # of MONAI, about functions to come
    theirs: dict[str, Callable[[Mask, Mask, Spacing], Values]] = {
        "MONAI": monai,
        "DeepMind's surface-distance": deepmind,
    }
    if importlib.util.find_spec("medpy"):
        theirs["medpy"] = medpy
    else:
        print("medpy is not installed; its lines are left out")
    masks = list(drawn(pairs, seed))
    ours = np.array([[metric(*each) for metric in METRICS.values()] for each in masks])
    print(
        f"\n| {pairs} pairs | differ | by more than {CLEAR_MM} mm | median, largest difference "
        "| ours is the larger |\n|---|---|---|---|---|"
    )
    for name, values_of in theirs.items():
        apart = ours - np.array([values_of(*each) for each in masks])
        for metric, own in zip(METRICS, apart.T, strict=True):
            far = np.abs(own)
            shares = (far > SAME_MM, far > CLEAR_MM, own > SAME_MM)
            differ, clear, above = (f"{100 * np.mean(share):.0f} %" for share in shares)
            sizes = f"{np.median(far):.2f}, {far.max():.2f} mm"
            print(f"| {metric}, {name} | {differ} | {clear} | {sizes} | {above} |")


def drawn(pairs: int, seed: int) -> Iterator[tuple[Mask, Mask, Spacing]]:
    """Prediction and reference (D, H, W), neither empty, and the spacing in mm."""
    random = np.random.default_rng(seed)
    for _ in range(pairs):
        shape = (random.integers(8, 25), *random.integers(24, 49, 2))
        inplane = random.uniform(0.5, 1.5)
        spacing = (random.uniform(1.0, 3.0), inplane, inplane)
        noise, other = ndimage.gaussian_filter(random.normal(size=(2, *shape)), (0, 2, 4, 4))
        mixed = noise + random.uniform(0.1, 1.0) * other
        quantile = random.uniform(0.7, 0.95)
        pred, ref = (each > np.quantile(each, quantile) for each in (mixed, noise))
        yield pred, ref, spacing


def monai(pred: Mask, ref: Mask, spacing: Spacing) -> Values:
    """MONAI's values."""
    masks = [torch.from_numpy(mask)[None, None].double() for mask in (pred, ref)]
    given = {"include_background": True, "spacing": list(spacing)}
    hd95 = compute_hausdorff_distance(*masks, percentile=95, **given).item()
    return hd95, compute_average_surface_distance(*masks, symmetric=True, **given).item()


def deepmind(pred: Mask, ref: Mask, spacing: Spacing) -> Values:
    """DeepMind's values; of its two mean distances, which it does not pool, the mean."""
    distances = surface_distance.compute_surface_distances(ref, pred, spacing)
    means = surface_distance.compute_average_surface_distance(distances)
    return surface_distance.compute_robust_hausdorff(distances, 95), float(np.mean(means))


def medpy(pred: Mask, ref: Mask, spacing: Spacing) -> Values:
    """Medpy's values."""
    from medpy.metric import binary

    return binary.hd95(pred, ref, spacing), binary.assd(pred, ref, spacing)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    main(given.pairs, seed=given.seed)
