"""Time and memory of every loss, forward and backward, against dice_ce on the same batch.

`python bench/losses.py [name ...] [--size 96] [--repeats 9]` takes the losses from conf/loss. The
batch is two patches with an organ, small lesions and a tube, and logits that are nearly right. A
repeat times dice_ce and then the loss, so a machine that drifts drifts for both; printed are the
medians and their ratios. Memory is the highest during one forward and backward, above that of the
resident batch: on a GPU by torch's allocator; on the CPU by the kernel's high-water mark of the
process (Linux), which also sees what NumPy and compiled code allocate.

Then our Boundary against MONAI's BoundaryLoss, which counts in voxels, and ours against SciPy.
"""

import argparse
import ctypes
import math
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.losses import BoundaryLoss
from omegaconf import DictConfig, OmegaConf
from scipy import ndimage

from segshift import build, environment
from segshift.losses import Boundary, signed_distance_mm

CONFIGS = {path.stem: path for path in sorted((build.conf_folder() / "loss").glob("*.yaml"))}
NAMES = [name for name in CONFIGS if name != "sum"]
STRUCTURES, BATCH, SPACING_MM = 3, 2, (1.5, 0.8, 0.8)
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def main(names: list[str], *, size: int, repeats: int) -> None:
    """Print both tables."""
    _give_back_what_is_freed()  # before anything large is there to be used again
    logits, label = example(size)
    threads = f"{torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if logits.is_cuda else threads
    print(
        f"batch {BATCH} of {size}x{size}x{size}, {STRUCTURES} structures, {where}, {repeats} pairs"
    )
    losses = {name: loss_of(name, label) for name in dict.fromkeys(["dice_ce", *names])}
    memory = {name: peak_mib(loss, logits, label) for name, loss in losses.items()}
    environment.keep_freed_memory()  # as in a run, and after memory was measured

    print("\n| loss | seconds | time / dice_ce | MiB | memory / dice_ce |\n|---|---|---|---|---|")
    for name in names:
        ours, base = paired_seconds(losses[name], losses["dice_ce"], logits, label, repeats)
        print(
            f"| `{name}` | {ours:.3f} | {ours / base:.2f} "
            f"| {memory[name]:.0f} | {memory[name] / memory['dice_ce']:.2f} |",
            flush=True,
        )

    boundary = Boundary(spacing_mm=SPACING_MM)
    monai = BoundaryLoss(include_background=False, to_onehot_y=True, softmax=True)
    theirs, ours = paired_seconds(monai, boundary, logits, label, repeats)
    distance, value = differences(boundary, logits, label)
    print("\n| Boundary alone | MONAI's | ratio | distances against SciPy | value against SciPy |")
    print("|---|---|---|---|---|")
    print(
        f"| {ours:.3f} s | {theirs:.3f} s | {theirs / ours:.2f} | {distance:.1e} mm | {value:.1e} |"
    )


def example(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, K, *S), nearly right, and label (B, 1, *S), on the GPU if there is one."""
    random = np.random.default_rng(0)
    label = np.stack([_patch(size, random) for _ in range(BATCH)])
    sharp = (label[:, None] == np.arange(STRUCTURES + 1)[:, None, None, None]).astype(np.float32)
    soft = ndimage.gaussian_filter(np.roll(sharp, 1, axis=-1), (0, 0, 1, 1, 1))
    logits = 8 * soft + random.normal(0, 0.3, soft.shape)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return (
        torch.tensor(logits, dtype=torch.float32, device=device, requires_grad=True),
        torch.tensor(label[:, None], dtype=torch.int64, device=device),
    )


def _patch(size: int, random: np.random.Generator) -> np.ndarray:
    """Class indices (*S): 1 an organ with a wavy surface, 2 balls within it, 3 a winding tube."""
    z, y, x = place = np.stack(np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij"))
    waves = ndimage.gaussian_filter(random.normal(size=(size,) * 3), size / 12)
    radius = np.sqrt(z**2 + (1.2 * y) ** 2 + (x - 0.15) ** 2)
    label = np.where(radius + 0.1 * waves / waves.std() < 0.6, 1, 0)
    for _ in range(5):
        centre = random.uniform(-0.35, 0.35, 3)[:, None, None, None]
        label[np.sqrt(((place - centre) ** 2).sum(0)) < random.uniform(0.06, 0.13)] = 2
    turn = random.uniform(3, 5)
    label[np.hypot(y - 0.5 * np.sin(turn * z), x + 0.7 + 0.1 * np.cos(turn * z)) < 0.08] = 3
    return label


def loss_of(name: str, label: torch.Tensor) -> Loss:
    """The loss of a YAML, what it leaves open filled in, on the label's device."""
    counts = torch.bincount(label.flatten(), minlength=STRUCTURES + 1)
    facts = {
        "spacing_mm": list(SPACING_MM),
        "structure_frequency": (counts / counts.sum()).tolist(),
    }
    config = OmegaConf.load(CONFIGS[name])
    assert isinstance(config, DictConfig)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, facts[key.split(".")[-1]])
    return build.instantiate(config).to(label.device)


def step(loss: Loss, logits: torch.Tensor, label: torch.Tensor) -> None:
    """One forward and backward; the gradient is made anew."""
    logits.grad = None
    loss(logits, label).backward()
    if logits.is_cuda:
        torch.cuda.synchronize()


def paired_seconds(
    loss: Loss, other: Loss, logits: torch.Tensor, label: torch.Tensor, repeats: int
) -> tuple[float, float]:
    """Median seconds of each, taken in turn after one step of both that is not counted."""
    seconds: dict[Loss, list[float]] = {other: [], loss: []}
    for repeat in range(repeats + 1):
        for one in (other, loss):
            start = time.perf_counter()
            step(one, logits, label)
            if repeat:
                seconds[one].append(time.perf_counter() - start)
    return statistics.median(seconds[loss]), statistics.median(seconds[other])


def peak_mib(loss: Loss, logits: torch.Tensor, label: torch.Tensor) -> float:
    """Highest memory during a step, above what was held before it; NaN where it is not known."""
    step(loss, logits, label)  # loads code and makes caches
    logits.grad = None
    if logits.is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step(loss, logits, label)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not CLEAR.exists():
        return math.nan
    CLEAR.write_text(
        "5", encoding="utf-8"
    )  # proc_pid_clear_refs(5): the peak is what is resident now
    before = _kib("VmRSS")
    step(loss, logits, label)
    return (_kib("VmHWM") - before) / 2**10


def _give_back_what_is_freed() -> None:
    """Let arrays come from the system and return to it, or the peak depends on what ran before."""
    if platform.libc_ver()[0] == "glibc":
        mmap_threshold = -3  # the name of mallopt(3)
        ctypes.CDLL(None).mallopt(mmap_threshold, 2**16)


def _kib(entry: str) -> int:
    (line,) = [
        line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith(entry)
    ]
    return int(line.split()[1])


def differences(loss: Boundary, logits: torch.Tensor, label: torch.Tensor) -> tuple[float, float]:
    """Largest absolute differences of the distances, in mm, and of the value, from SciPy's."""
    masks = label == torch.arange(1, STRUCTURES + 1, device=label.device).view(1, -1, 1, 1, 1)
    distances = signed_distance_mm(masks, SPACING_MM).cpu().numpy()
    probability = logits.detach().double().softmax(1)[:, 1:].cpu().numpy()
    diagonal_mm = float(np.linalg.norm(np.multiply(label.shape[2:], SPACING_MM)))
    worst, means = 0.0, []
    for index in np.ndindex(*distances.shape[:2]):
        mask = masks[index].cpu().numpy()
        to_outside, to_inside = (
            ndimage.distance_transform_edt(one, sampling=SPACING_MM) for one in (mask, ~mask)
        )
        signed = to_inside - to_outside
        worst = max(worst, float(np.abs(distances[index] - signed).max()))
        means.append((probability[index] * signed / diagonal_mm).mean())
    return worst, abs(float(loss(logits.detach(), label)) - float(np.mean(means)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="name")
    parser.add_argument("--size", type=int, default=96, help="voxels along each axis of a patch")
    parser.add_argument("--repeats", type=int, default=9, help="pairs of timed steps")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(NAMES)):
        parser.error(f"there is no loss {unknown[0]}; known are {', '.join(NAMES)}")
    main(given.names, size=given.size, repeats=given.repeats)
