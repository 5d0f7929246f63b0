"""Random patches out of the store, against nnU-Net's own reader, and the memory that it takes.

`python bench/store.py [--edge=256] [--volumes=20] [--rounds=5]` writes volumes of edge^3 (float32
image, uint8 label) in a temporary folder and reads patches of half the edge on one thread, ours and
nnU-Net's in turn, with a warm and with a dropped page cache. Ours is what training reads: case,
corner, image, int64 label. nnU-Net's is its dataset class and the crop of its loader, at corners
that are drawn before. `pip install nnunetv2` first; without it only ours is measured.
"""

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from segshift.cohort import Case
from segshift.data.patches import PatchDataset
from segshift.data.stored import StoredCase
from segshift.plan import Plan, View

READS = 40  # patches per round and reader
MEMORY_EDGE = 48
Reader = Callable[[int], object]


def volume(edge: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Image (1, D, H, W) and label (D, H, W): a noisy ball of 12-bit grey levels, air outside."""
    random = np.random.default_rng(number)
    axis = np.linspace(-1, 1, edge, dtype=np.float32)
    radius = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    coarse = random.normal(size=(8, 8, 8)).astype(np.float32)
    field = ndimage.zoom(coarse, edge / 8, order=1)[:edge, :edge, :edge]
    grey = 1000 + 200 * field + 30 * random.standard_normal(field.shape, dtype=np.float32)
    image = np.where(radius < 0.9, np.rint(grey), 0)
    label = ((radius < 0.5) + (radius < 0.2)).astype(np.uint8)
    return ((image - image.mean()) / image.std())[None].astype(np.float32), label


def stored(folder: Path, edge: int, number: int) -> StoredCase:
    """One volume as an entry of the store."""
    entry = folder / f"c{number}"
    entry.mkdir()
    image, label = volume(edge, number)
    np.save(entry / "image.npy", image)
    np.save(entry / "label.npy", label)
    inside = np.argwhere(label)[:: max(edge**3 // 10000, 1)]
    np.save(entry / "landmarks.npy", np.column_stack([label[tuple(inside.T)], inside]))
    plan = Plan(1, ("outer", "inner"), (1, 1, 1), View((edge // 2,) * 3), (), (), 1, ())
    return StoredCase(Case(entry.name, entry.name, "here", ()), entry, plan)


def ours(cases: list[StoredCase], edge: int) -> Reader:
    """What training reads; a third of it centred on a structure."""
    return PatchDataset(cases, View((edge // 2,) * 3), 0.33, 0).__getitem__


def nnunets(cases: list[StoredCase], folder: Path, edge: int) -> Reader:
    """nnU-Net's files, written with its own block sizes, and its way from them to tensors."""
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    window = edge // 2
    for case in cases:
        image, label = np.array(case.image()), np.array(case.label())[None].astype(np.int16)
        blocks, chunks = comp_blosc2_params(image.shape, (window,) * 3, image.itemsize)
        blocks_seg, chunks_seg = comp_blosc2_params(image.shape, (window,) * 3, label.itemsize)
        nnUNetDatasetBlosc2.save_case(
            image, label, {}, str(folder / case.case.id), chunks=chunks, blocks=blocks,
            chunks_seg=chunks_seg, blocks_seg=blocks_seg,
        )  # fmt: skip
    dataset = nnUNetDatasetBlosc2(str(folder), [case.case.id for case in cases])
    names = list(dataset.identifiers)

    def read(sample: int) -> object:
        random = np.random.default_rng(sample)
        low = random.integers(0, edge - window, 3, endpoint=True)
        box = [[int(n), int(n) + window] for n in low]
        data, seg, _, _ = dataset.load_case(names[random.integers(len(names))])
        return (
            torch.from_numpy(crop_and_pad_nd(data, box, 0)).float(),
            torch.from_numpy(crop_and_pad_nd(seg, box, -1)).to(torch.int16),
        )

    return read


def drop_cache(folder: Path) -> None:
    """Ask the kernel to forget what it has read of a folder's files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rate(read: Reader, first: int, reads: int, before: Callable[[], None] | None = None) -> float:
    """Patches per second; what `before` does is not counted."""
    seconds = 0.0
    for sample in range(first, first + reads):
        if before:
            before()
        start = time.perf_counter()
        read(sample)
        seconds += time.perf_counter() - start
    return reads / seconds


def memory_mb(
    cases: list[StoredCase], reads: int, result: "multiprocessing.Queue[tuple[float, float]]"
) -> None:
    """Put this process' largest resident size before and after it reads from the cases."""
    torch.set_num_threads(1)
    read = ours(cases, MEMORY_EDGE)
    read(0)
    before = _peak_mb()
    for sample in range(reads):
        read(sample)
    result.put((before, _peak_mb()))


def _peak_mb() -> float:
    # Not ru_maxrss, which a process inherits from the one that started it.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edge", type=int, default=256)
    parser.add_argument("--volumes", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", type=int, nargs="*", default=[50, 500])
    parser.add_argument("--reads", type=int, default=4000)  # of those cases
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        store, other = Path(place, "ours"), Path(place, "nnunet")
        store.mkdir()
        other.mkdir()
        cases = [stored(store, options.edge, n) for n in range(options.volumes)]
        readers = {"segshift": (ours(cases, options.edge), store)}
        if importlib.util.find_spec("nnunetv2"):
            readers["nnU-Net"] = (nnunets(cases, other, options.edge), other)
        print("| reader | GB | warm, patches/s | cold, patches/s |\n|---|---|---|---|")
        rates: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in readers}
        for read, _ in readers.values():
            rate(read, 0, READS)
        for turn in range(options.rounds):
            for name, (read, _) in readers.items():
                rates[name][0].append(rate(read, turn * READS, READS))
        for turn in range(options.rounds):
            for name, (read, folder) in readers.items():
                cold = rate(read, turn * READS, READS // 8, before=lambda f=folder: drop_cache(f))
                rates[name][1].append(cold)
        for name, (_, folder) in readers.items():
            size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e9
            warm, cold = (statistics.median(values) for values in rates[name])
            print(f"| {name} | {size:.2f} | {warm:.1f} | {cold:.1f} |")
    print(f"\n| cases of {MEMORY_EDGE}^3 | resident, MB | after {options.reads} patches |")
    print("|---|---|---|")
    context = multiprocessing.get_context("spawn")
    for number in options.cases:
        with tempfile.TemporaryDirectory() as place:
            cases = [stored(Path(place), MEMORY_EDGE, n) for n in range(number)]
            queue: multiprocessing.Queue[tuple[float, float]] = context.Queue()
            process = context.Process(target=memory_mb, args=(cases, options.reads, queue))
            process.start()
            before, after = queue.get()
            process.join()
        print(f"| {number} | {before:.0f} | {after:.0f} |")


if __name__ == "__main__":
    main()
