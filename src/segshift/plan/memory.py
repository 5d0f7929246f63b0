"""Patch and batch for a memory budget, by nnU-Net v2's rules, without running a network.

Memory is estimated by the voxels of all feature maps of nnU-Net's plain U-Net (two convolutions per
stage on either side). Its default planner, `ExperimentPlanner`, gives 8 GB to 560 million of them
per 3D patch at batch 2, or 85 million per slice at batch 12; other budgets are in proportion.
"""

import math
import os
import subprocess
from importlib import metadata

import numpy as np

from segshift.errors import InputError
from segshift.plan.pooling import SMALLEST_EDGE, divisors, padded, topology

DEVICE = "device"  # plan.memory_gb=device: the memory of the GPU that is trained on, if any
REFERENCE_GB = 8.0
REFERENCE_VOXELS = {2: 85_000_000, 3: 560_000_000}  # of the feature maps of one patch
REFERENCE_BATCH = {2: 12, 3: 2}
LARGEST = {2: 2048**2, 3: 256**3}  # voxels of the patch that the search starts from
FILTERS = 32  # of the first stage; they double with each stage
MOST_FILTERS = {2: 512, 3: 320}
LEAST_BATCH = 2
MOST_SEEN = 0.05  # share of all training voxels in one batch
# What training keeps for its backward: the outputs of a convolution and of its activation.
BYTES = 8  # per voxel of a feature map, in float32; half of it in bfloat16


def feature_voxels(size: np.ndarray, spacing_mm: np.ndarray, *, outputs: int) -> int:
    """Voxels times channels of all convolutions' outputs for one patch, as nnU-Net counts them.

    `size` (voxels) is that of the patch before it is padded for the pooling.
    """
    edges = padded(size, spacing_mm)
    total = outputs * int(edges.prod())
    strides, _ = topology(size, spacing_mm)
    for stage, stride in enumerate(strides):
        edges = -(-edges // np.array(stride))
        filters = min(FILTERS * 2**stage, MOST_FILTERS[len(size)])
        # Two of the encoder; below the top also two of the decoder and the upsampling before them.
        maps = 2 if stage == len(strides) - 1 else 5
        total += maps * filters * int(edges.prod())
    return total


def fitting_memory(
    median: np.ndarray, spacing_mm: np.ndarray, *, memory_gb: float, outputs: int
) -> np.ndarray:
    """The size (voxels, to be padded for the pooling) of a patch of which a batch of two fits.

    It starts as a cube in mm inside the median shape; the axis that is longest relative to the
    median shape gives way. Raises InputError if the smallest patch does not fit.
    """
    dimensions = len(median)
    edges = 1 / spacing_mm
    edges = np.round(edges * (LARGEST[dimensions] / edges.prod()) ** (1 / dimensions))
    size = np.minimum(np.maximum(edges, 1), median)
    most = _budget(dimensions, memory_gb) * REFERENCE_BATCH[dimensions] / LEAST_BATCH
    while feature_voxels(size, spacing_mm, outputs=outputs) > most:
        smaller = _shrunk(padded(size, spacing_mm), median, spacing_mm)
        if smaller is None:
            raise InputError(
                f"plan.memory_gb={memory_gb:g}: not even a patch of "
                f"{padded(size, spacing_mm).tolist()} fits; give more, or set plan.patch and "
                "plan.batch"
            )
        size = smaller
    return np.asarray(size)


def batch_for(
    size: np.ndarray, spacing_mm: np.ndarray, *, memory_gb: float, outputs: int, voxels: float
) -> int:
    """Patches that fit; at least 2, and at most 5 % of the training cases' `voxels`.

    `size` (voxels) is that of the patch before it is padded for the pooling.
    """
    dimensions = len(size)
    room = _budget(dimensions, memory_gb) / feature_voxels(size, spacing_mm, outputs=outputs)
    fitting = round(room * REFERENCE_BATCH[dimensions])
    seen = round(voxels * MOST_SEEN / int(padded(size, spacing_mm).prod()))
    return max(min(fitting, seen), LEAST_BATCH)


def checked_memory_gb(wanted: object, *, on_gpu: bool) -> float | None:
    """The budget in GB; None where patch and batch follow the number of voxels instead.

    `device` is the memory of the GPU where the network is trained `on_gpu` and one is here. Raises
    InputError for what is no positive number.
    """
    if wanted is None:
        return None
    if wanted == DEVICE:
        return device_memory_gb() if on_gpu else None
    if isinstance(wanted, bool) or not isinstance(wanted, int | float) or not 0 < wanted < math.inf:
        raise InputError(
            f"plan.memory_gb={wanted}: a number of GB above 0, {DEVICE} (the first GPU's memory; "
            "on a CPU as null), or null (plan.patch_voxels bounds the patch)"
        )
    return float(wanted)


def device_memory_gb() -> float | None:
    """Memory in GB (2^30 bytes) of the first GPU that torch may use, None without one.

    nvidia-smi and the package's metadata know it; torch, which takes seconds, is not imported.
    """
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        first = visible.split(",")[0].strip()
        if first in ("", "-1"):
            return None
        command.append(f"--id={first}")
    try:
        if metadata.version("torch").endswith("+cpu"):  # a build that sees no GPU
            return None
        told = subprocess.run(
            command, capture_output=True, encoding="utf-8", check=True, timeout=30
        )
        return float(told.stdout.split()[0]) / 1024
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _budget(dimensions: int, memory_gb: float) -> float:
    """Feature voxels of a patch of which the reference batch fits."""
    return REFERENCE_VOXELS[dimensions] * memory_gb / REFERENCE_GB


def _shrunk(patch: np.ndarray, median: np.ndarray, spacing_mm: np.ndarray) -> np.ndarray | None:
    """The next smaller size along the relatively longest axis that has one; None if none has."""
    axes = np.arange(len(patch))
    # Of axes alike the last gives way; to nnU-Net the coarsest of three is the first.
    first = np.argmax(spacing_mm) if len(patch) == 3 else 0
    longest_last = np.lexsort((axes, axes != first, patch / median))
    for axis in reversed(longest_last.tolist()):
        smaller = patch.copy()
        smaller[axis] -= divisors(patch, spacing_mm)[axis]
        # So short an axis may be pooled less often, and then sizes in between are valid too.
        step = divisors(smaller, spacing_mm)[axis]
        smaller[axis] = patch[axis] - step
        if smaller[axis] < SMALLEST_EDGE:
            continue
        if padded(smaller, spacing_mm).prod() < patch.prod():
            return smaller
    return None
