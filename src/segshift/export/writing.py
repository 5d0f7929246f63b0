"""From a checkpoint to a folder that is written whole or not at all.

A wrong option is refused before torch is imported.
"""

import shutil
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from segshift.errors import InputError
from segshift.postprocessing import read_rules

if TYPE_CHECKING:
    from segshift.build import LoadedRun

FORMATS = ("torch_export", "onnx", "monai_bundle")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # the extra `export`


def export(checkpoint: str | Path, folder: Path, *, to: str) -> None:
    """Write a run's network as one of FORMATS into a new or empty folder.

    Raises InputError for an unknown format, a folder that holds something, a checkpoint that
    cannot be read, and missing packages.
    """
    if to not in FORMATS:
        raise InputError(f"--format {to}: known are {', '.join(FORMATS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} holds something; name a new or an empty folder")
    missing = [name for name in PACKAGES if find_spec(name) is None] if to == "onnx" else []
    if missing:
        raise InputError(
            f"--format onnx needs {', '.join(missing)}: pip install 'segshift[export]'"
        )

    from segshift import build
    from segshift.export.description import description

    file = build.checkpoint_file(checkpoint)
    run = build.load(file)
    if run.plan.scale and to == "monai_bundle":
        raise InputError(
            f"{checkpoint} was trained with data.scale={run.plan.scale.by}, on pictures without a "
            "physical size; a MONAI bundle reads NIfTI, which has one. Take --format torch_export "
            "or onnx, whose preprocessing.json says how to scale a picture"
        )
    chosen = {n: [asdict(rule) for rule in each] for n, each in read_rules(file).items() if each}
    # Beside it and renamed, so that an export that fails leaves no half of one.
    draft = folder.resolve().with_name(f"{folder.resolve().name}.{uuid4().hex[:8]}.draft")
    draft.mkdir(parents=True)
    try:
        about = {**description(run), "postprocessing": chosen}
        _write(run, about, draft, to=to, name=folder.resolve().name)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(file)


def _write(run: "LoadedRun", about: dict[str, Any], folder: Path, *, to: str, name: str) -> None:
    from segshift.export.bundle import write_bundle
    from segshift.export.graph import write_onnx, write_torch_export

    if to == "monai_bundle":
        write_bundle(run, about, folder, name=name)
        return
    difference = {"torch_export": write_torch_export, "onnx": write_onnx}[to](run, about, folder)
    print(f"largest difference of a probability on a random window: {difference:.1e}")
