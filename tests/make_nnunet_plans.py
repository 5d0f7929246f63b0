"""Asks nnU-Net's own planner for plans of drawn fingerprints: writes nnunet_plans.json beside this.

Run where nnunetv2 2.8.1 is installed, in an environment of its own (one core, a few minutes):

    python tests/make_nnunet_plans.py

It runs `ExperimentPlanner(...).plan_experiment()` whole, on a data set's folder without voxels. Two
things are set: no low-resolution configuration is looked for, and networks are made on torch's
`meta` device, since only the sizes of their feature maps are asked for.
"""

import contextlib
import io
import json
import os
import platform
import signal
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

SEED, DRAWN = 0, 260
ANSWERS = Path(__file__).with_name("nnunet_plans.json")
VERSIONS = ("nnunetv2", "dynamic-network-architectures", "torch", "numpy")
PATIENCE_S = 120  # the planner's loop need not end
MEMORY_GB = (2.0, 4.0, 6.0, 8.0, 11.0, 16.0, 24.0, 40.0, 80.0)
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")

# Ranges of spacing in mm and of shape in voxels per axis (z, y, x).
KINDS: dict[str, tuple[list[tuple[float, float]], list[tuple[int, int]]]] = {
    "isotropic": ([(0.5, 2.0)], [(20, 400)] * 3),
    "tiny": ([(0.5, 3.0)] * 3, [(5, 30)] * 3),
    "any": ([(0.3, 3.0)] * 3, [(10, 500)] * 3),
    "thick": ([(2.0, 12.0), (0.3, 1.5)], [(6, 60), (100, 900), (100, 900)]),
    "thin stack": ([(2.0, 12.0), (0.3, 1.5)], [(4, 9), (40, 700), (40, 700)]),
    "coronal": ([(0.5, 1.2), (2.5, 8.0), (0.5, 1.2)], [(100, 500), (10, 60), (100, 500)]),
    "sagittal": ([(0.4, 1.2), (0.4, 1.2), (2.5, 8.0)], [(100, 500), (100, 500), (8, 60)]),
    "two coarse": ([(2.0, 6.0), (2.0, 6.0), (0.3, 1.0)], [(20, 120), (20, 120), (100, 600)]),
    "CT": ([(0.7, 5.0), (0.6, 0.98)], [(80, 1000), (512, 512), (512, 512)]),
    "pictures": ([(3.0, 3.0), (0.2, 2.0)], [(1, 1), (30, 2500), (30, 2500)]),
    "rectangles": ([(3.0, 3.0), (0.2, 1.0), (0.2, 1.0)], [(1, 1), (20, 300), (300, 2500)]),
    "microscopy": ([(1e-3, 5e-3), (2e-4, 1e-3)], [(10, 100), (200, 2000), (200, 2000)]),
    "slices": ([(1.0, 8.0), (0.2, 1.0)], [(20, 80), (256, 2048), (256, 2048)]),
}
# Numbers with many ties between axes, and ratios that are exactly a rule's.
ROUND_MM = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)
ROUND_EDGES = (12, 32, 48, 64, 96, 128, 160, 256, 320, 512)
# Shapes, spacing, memory in GB, structures, repeats.
NAMED: dict[str, tuple[list[list[int]], list[float], float, int, int]] = {
    "slices of 1024x1024": ([[40, 1024, 1024]], [3.0, 0.7, 0.7], 8.0, 2, 50),
    "hippocampus": ([[36, 50, 35]], [1.0, 1.0, 1.0], 8.0, 2, 260),
    "cube": ([[256, 256, 256]], [1.0, 1.0, 1.0], 8.0, 1, 20),
    "pictures of 512x512": ([[1, 512, 512]], [3.0, 1.0, 1.0], 8.0, 1, 100),
}


def drawn(number: int) -> dict[str, Any]:
    """A fingerprint: a few cases, all of them `repeats` times; the kinds take turns."""
    random = np.random.default_rng([SEED, number])
    kind = [*KINDS, "round numbers"][number % (len(KINDS) + 1)]
    shapes, spacings_mm = _in_ranges(kind, random) if kind in KINDS else _round_numbers(random)
    return {
        "kind": kind,
        "shapes": shapes.tolist(),
        "spacings_mm": [[float(f"{edge:.4g}") for edge in one] for one in spacings_mm],
        "repeats": int(random.choice([1, 4, 20, 100])),
        "structures": int(random.integers(1, 9)),
        "memory_gb": float(random.choice(MEMORY_GB)),
    }


def _in_ranges(kind: str, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shapes and spacings (cases, 3); the last range is for all axes that have none."""
    spacing_ranges, shape_ranges = KINDS[kind]
    cases, spread = int(random.integers(1, 6)), float(random.choice([0.0, 0.05, 0.3]))
    base = np.array([random.integers(low, high + 1) for low, high in shape_ranges])
    shapes = np.rint(base * (1 + spread * random.uniform(-1, 1, (cases, 3))))
    shapes = np.maximum(shapes, 1).astype(int)
    drawn_mm = [random.uniform(*each) for each in spacing_ranges]
    base_mm = np.array(drawn_mm + [drawn_mm[-1]] * (3 - len(drawn_mm)))
    spread_mm = float(random.choice([0.0, 0.2]))
    spacings_mm = base_mm * (1 + spread_mm * random.uniform(-1, 1, (cases, 3)))
    if base[0] == 1:  # pictures: the coarsest, so that nnU-Net takes it for the axis of slices
        shapes[:, 0], spacings_mm[:, 0] = 1, 3.0
    elif random.random() < 0.25:  # stacks of any thickness among them
        spacings_mm[:, 0] = base_mm[0] * random.uniform(0.05, 3.0, cases)
    return shapes, spacings_mm


def _round_numbers(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    cases = int(random.integers(1, 3))
    shapes = np.tile(random.choice(ROUND_EDGES, 3), (cases, 1))
    return shapes, np.tile(random.choice(ROUND_MM, 3), (cases, 1))


def fingerprints() -> list[dict[str, Any]]:
    """The named ones, then DRAWN of all kinds in turn."""
    named = [
        {
            "kind": name,
            "shapes": shapes,
            "spacings_mm": [spacing_mm] * len(shapes),
            "repeats": repeats,
            "structures": structures,
            "memory_gb": memory_gb,
        }
        for name, (shapes, spacing_mm, memory_gb, structures, repeats) in NAMED.items()
    ]
    return named + [drawn(number) for number in range(DRAWN)]


def answer(asked: dict[str, Any], number: int, folder: Path) -> dict[str, Any]:
    """What nnU-Net plans: of `2d` and `3d` (None for pictures); axes as it has turned them.

    Each data set has a `number` of its own, because plans that are there already are added to.
    """
    import torch
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (
        ExperimentPlanner,
    )

    raw, preprocessed = (folder / name / f"Dataset{number:03}_Drawn" for name in FOLDERS[:2])
    for part in (raw / "imagesTr", raw / "labelsTr", preprocessed):
        part.mkdir(parents=True, exist_ok=True)
    (raw / "imagesTr" / "case_0000.nii.gz").touch()
    (raw / "labelsTr" / "case.nii.gz").touch()
    numbers = range(1, asked["structures"] + 1)
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, **{f"structure {number}": number for number in numbers}},
        "numTraining": len(asked["shapes"]) * asked["repeats"],
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }
    (raw / "dataset.json").write_text(json.dumps(content))
    found = {
        "spacings": asked["spacings_mm"] * asked["repeats"],
        "shapes_after_crop": asked["shapes"] * asked["repeats"],
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(found))
    planner = ExperimentPlanner(number, gpu_memory_target_in_gb=asked["memory_gb"])
    planner.lowres_creation_threshold = 0
    with contextlib.redirect_stdout(io.StringIO()), torch.device("meta"):
        plans = planner.plan_experiment()
    known = plans["configurations"]
    return {
        "transpose": plans["transpose_forward"],
        "2d": described(known["2d"]),
        "3d": described(known["3d_fullres"]) if "3d_fullres" in known else None,
    }


def described(plan: dict[str, Any]) -> dict[str, Any]:
    """The parts of a configuration that are compared."""
    options = plan["architecture"]["arch_kwargs"]
    return {
        "spacing_mm": [float(f"{edge:.7g}") for edge in plan["spacing"]],
        "patch": [int(edge) for edge in plan["patch_size"]],
        "batch": int(plan["batch_size"]),
        "strides": [list(map(int, stage)) for stage in options["strides"]],
        "kernels": [list(map(int, stage)) for stage in options["kernel_sizes"]],
    }


def interrupted(*_: object) -> None:
    """Ends a planner that does not come to an end."""
    raise TimeoutError(f"no plan within {PATIENCE_S} s")


def main() -> None:
    """Ask for all, and write one line each. What the planner fails at is written with its error."""
    lines = []
    signal.signal(signal.SIGALRM, interrupted)
    with tempfile.TemporaryDirectory() as folder:
        for name in FOLDERS:  # read by nnunetv2 when it is imported
            os.environ[name] = str(Path(folder) / name)
        for number, asked in enumerate(fingerprints(), 1):
            signal.alarm(PATIENCE_S)
            try:
                answered = answer(asked, number, Path(folder))
            except Exception as error:
                answered = {"error": f"{type(error).__name__}: {error}"}
            signal.alarm(0)
            lines.append(json.dumps({**asked, **answered}))
            print(f"{number} {asked['kind']}: {answered.get('error', '')}", file=sys.stderr)
    versions = {name: metadata.version(name) for name in VERSIONS}
    about = {"versions": {**versions, "python": platform.python_version()}, "seed": SEED}
    head = json.dumps(about)[:-1]
    ANSWERS.write_text(f'{head}, "plans": [\n' + ",\n".join(lines) + "\n]}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
