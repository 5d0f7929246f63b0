"""A run as a MONAI bundle: a folder of weights and configs that `monai.bundle` loads and runs.

The layout is MONAI's specification (docs.monai.io, "MONAI Bundle Specification"). Transforms are
MONAI's where they do what the run did, and `export.transforms` where not, so it needs segshift.
"""

import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from segshift import __version__
from segshift.build import LoadedRun, network_definition
from segshift.errors import InputError
from segshift.tasks import Regions, Semantic

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)
RUNNERS = {"pytorch-ignite": "0.5.5", "fire": "0.7.1"}  # of `python -m monai.bundle run`

README = """# {name}

A segmentation network trained with segshift {version}, as a MONAI bundle. Not a medical device.

- Input: {channels} channel(s) of one image file each; any spacing and orientation that NIfTI knows.
- Output: {structures}; {decoding}.
- `configs/preprocessing.json` says in sentences how an image is prepared and labels are made.

    pip install segshift=={version} pytorch-ignite fire
    cd THIS_FOLDER
    python -m monai.bundle run --config_file configs/inference.json --dataset_dir IMAGES

IMAGES holds {layout}. Labels are written to `eval/`, on the grids of the images.

In Python: `monai.bundle.load(NAME, bundle_dir=PARENT, workflow_type="inference")` is the network;
it gives logits.
{postprocessing}"""
UNAPPLIED = """
The run chose a post-processing on its validation cases (`postprocessing` in
`configs/preprocessing.json`). It is not applied by `configs/inference.json`.
"""
LICENSE = """The weights in models/ belong to those who trained them, under the terms of the data
that they were trained on. This file grants no licence: whoever passes the bundle on puts the terms
here.

The code of the transforms and of the network is not part of this bundle; segshift and MONAI, which
it needs, are under the Apache License 2.0.
"""


def write_bundle(run: LoadedRun, about: dict[str, Any], folder: Path, *, name: str) -> None:
    """Write the bundle into an empty folder; `about` is the model's description.

    Raises InputError for a task whose decoding MONAI has no operator for.
    """
    task = run.module.task
    if not isinstance(task, Semantic | Regions):
        raise InputError(
            f"a MONAI bundle cannot decode the task {type(task).__qualname__}, only Semantic and "
            "Regions; export it with --format torch_export or onnx"
        )
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir()
    contents = {
        "metadata": _metadata(about, name),
        "inference": _inference(run),
        "preprocessing": about,
    }
    for part, content in contents.items():
        text = json.dumps(content, indent=1, allow_nan=False) + "\n"
        (folder / "configs" / f"{part}.json").write_text(text, encoding="utf-8")
    weights = run.module.network.state_dict()
    torch.save(weights, folder / "models" / "model.pt")
    several = run.plan.channels > 1
    readme = README.format(
        name="Segmentation of " + ", ".join(task.structures),
        version=__version__,
        channels=run.plan.channels,
        structures=", ".join(f"{key} = {value}" for key, value in about["values"].items()),
        decoding=about["decoding"],
        postprocessing=UNAPPLIED if about.get("postprocessing") else "",
        layout="a folder for each case, with a .nii.gz for each channel in alphabetical order"
        if several
        else "a .nii.gz for each case",
    )
    (folder / "docs" / "README.md").write_text(readme, encoding="utf-8")
    (folder / "LICENSE").write_text(LICENSE, encoding="utf-8")


def _metadata(about: dict[str, Any], name: str) -> dict[str, Any]:
    shapes = {"input": about["input"]["shape"], "output": about["output"]["shape"]}
    inputs = {str(index): f"input channel {index}" for index in range(shapes["input"][1])}
    outputs = {str(index): channel for index, channel in enumerate(about["channels"])}

    def tensor(kind: str, shape: list[Any], channels: dict[str, str]) -> dict[str, Any]:
        return {
            "type": "image",
            "format": kind,
            "num_channels": shape[1],
            "spatial_shape": shape[2:],
            "dtype": "float32",
            "value_range": [0, 1] if kind == "segmentation" else [],
            "is_patch_data": True,
            "channel_def": channels,
        }

    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported by segshift {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").partition("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {
            "segshift": __version__,
            "nibabel": version("nibabel"),
            **RUNNERS,
        },
        "name": name,
        "task": f"{about['task']} segmentation of {', '.join(about['values'])}",
        "description": f"Trained with segshift {__version__}; see configs/preprocessing.json.",
        "authors": "those who trained it",
        "copyright": "see LICENSE",
        "network_data_format": {
            "inputs": {"image": tensor("magnitude", shapes["input"], inputs)},
            "outputs": {"pred": tensor("segmentation", shapes["output"], outputs)},
        },
    }


def _inference(run: LoadedRun) -> dict[str, Any]:
    plan, task = run.plan, run.module.task
    files = "glob.glob(@dataset_dir + '/*.nii.gz')"
    if plan.channels > 1:
        cases = "sorted(glob.glob(@dataset_dir + '/*/'))"
        files = f"[sorted(glob.glob(case + '*.nii.gz')) for case in {cases}]"
    activation = "Sigmoid()" if isinstance(task, Regions) else "Softmax(dim=1)"
    discrete = {"threshold": 0.5} if isinstance(task, Regions) else {"argmax": True}
    crop = {
        "_target_": "CropForegroundd", "keys": "image", "source_key": "image",
        "select_fn": "$lambda image: image != 0", "allow_smaller": True,
    }  # fmt: skip
    options = run.module.prediction
    inferer = {
        "_target_": "segshift.export.transforms.PlanInferer", "patch": list(plan.view.patch),
        "context": plan.view.context, "overlap": options.overlap,
        "mirror_axes": list(options.mirror), "exclusive": isinstance(task, Semantic),
    }  # fmt: skip
    return {
        "imports": ["$import glob", "$import numpy", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "data": f"$[{{'image': files}} for files in sorted({files})]",
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": network_definition(run),
        "weights": "$torch.load(@bundle_root + '/models/model.pt', map_location='cpu', "
        "weights_only=True)",
        # Windows are averaged as probabilities, so that the activation comes before the inferer.
        "network": f"$torch.nn.Sequential(@network_def, torch.nn.{activation}).to(@device).eval()",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image"},
                {"_target_": "EnsureChannelFirstd", "keys": "image"},
                # The axes in the order z, y, x: what the network was trained on.
                {"_target_": "Orientationd", "keys": "image", "axcodes": "SAR"},
                *([crop] if plan.crop == "nonzero" else []),
                {
                    "_target_": "segshift.export.transforms.OntoPlan",
                    "keys": "image",
                    "plan": asdict(plan),
                },
            ],
        },
        "dataset": {
            "_target_": "Dataset", "data": "@data", "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": inferer,
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "Invertd", "keys": "pred", "orig_keys": "image",
                    "transform": "@preprocessing", "nearest_interp": False, "to_tensor": True,
                },
                {"_target_": "AsDiscreted", "keys": "pred", **discrete},
                {
                    "_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir",
                    "output_postfix": "seg", "output_dtype": "$numpy.uint8",
                    "separate_folder": False, "resample": False,
                },
            ],
        },
        "evaluator": {
            "_target_": "SupervisedEvaluator", "device": "@device", "network": "@network",
            "val_data_loader": "@dataloader", "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@network_def.load_state_dict(@weights)", "$@evaluator.run()"],
    }  # fmt: skip
