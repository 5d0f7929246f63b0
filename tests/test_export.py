"""Exported models give the run's labels on whole cases, and say how to prepare an image."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from conftest import TINY_TRAINING, composed
from monai.bundle import ConfigParser, load
from torch import nn

from segshift import build
from segshift.cohort import Annotation, Case
from segshift.cohort.images import read_image
from segshift.data.store import store_cases
from segshift.errors import InputError
from segshift.export import export
from segshift.export.bundle import write_bundle
from segshift.export.description import description
from segshift.inference import predict_case
from segshift.plan import Normalisation, plan_from_dict

SAME = 1e-4  # of a case's voxels may be at a tie that other kernels decide in another way
REGIONS = (
    "task=regions", "task.regions={organs: [liver, kidney, lesion], lesion: [lesion]}",
    "loss=bce",
)  # fmt: skip


class Opened(nn.Module):
    """An exported model where the run's code wants a network."""

    def __init__(self, probabilities):
        super().__init__()
        self.probabilities = lambda image: probabilities(image)  # no submodule to put into eval

    def forward(self, image):
        return self.probabilities(image)


def saved_run(folder: Path, phantom, *overrides: str, **plan: object) -> Path:
    """A checkpoint of an untrained network, which tells structures apart as well as any."""
    config = composed(*TINY_TRAINING, *phantom, "view.context=0", *overrides)
    parts = build.experiment(config)
    parts = replace(parts, plan=replace(parts.plan, **plan))
    module = build.module_of(parts.config, parts.plan, precision="32-true")
    content = {"state_dict": module.state_dict(), "segshift": build.description(parts, images={})}
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "it.ckpt")
    return folder / "it.ckpt"


def labels(network, run, image, **place):
    activation = run.module.task.activation if network is run.module.network else nn.Identity()
    return run.module.task.decode(
        predict_case(network.eval(), image, run.plan.view, activation=activation, **place)
    )


def noise(run, shape=(11, 37, 45)):
    random = np.random.default_rng(0)
    return torch.from_numpy(random.normal(size=(run.plan.channels, *shape)).astype(np.float32))


def opened_onnx(folder: Path) -> Opened:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    return Opened(lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0]))


@pytest.mark.parametrize(
    "choices",
    [
        ("model=unet2d", *REGIONS),
        ("model=unet25d", "view.context=2", "model.deep_supervision=true"),
        ("model=unet3d", "model.deep_supervision=true"),
    ],
    ids=["unet2d-regions", "unet25d", "unet3d"],
)
def test_exported_graphs_give_the_runs_labels(choices, phantom, tmp_path):
    checkpoint = saved_run(tmp_path, phantom, *choices)
    run = build.load(checkpoint)
    image = noise(run)
    expected = labels(run.module.network, run, image)
    assert len(np.unique(expected)) > 1
    (tmp_path / "torch").mkdir()  # an empty folder is filled
    export(checkpoint, tmp_path / "torch", to="torch_export")
    program = torch.export.load(tmp_path / "torch" / "model.pt2")
    np.testing.assert_array_equal(labels(Opened(program.module()), run, image), expected)
    export(checkpoint, tmp_path / "onnx", to="onnx")
    differing = labels(opened_onnx(tmp_path / "onnx"), run, image) != expected
    assert differing.mean() <= SAME


def test_what_a_user_must_know_is_beside_the_model_and_inside(phantom, tmp_path):
    checkpoint = saved_run(tmp_path, phantom, "model=unet25d", "view.context=1")
    run = build.load(checkpoint)
    export(checkpoint, tmp_path / "torch", to="torch_export")
    export(checkpoint, tmp_path / "onnx", to="onnx")
    beside = (tmp_path / "onnx" / "preprocessing.json").read_text()
    about = json.loads(beside)
    assert about["postprocessing"] == {}
    assert plan_from_dict(about["plan"]) == run.plan
    assert about["values"] == {"liver": 1, "kidney": 2, "lesion": 3}
    assert about["windows"]["overlap"] == run.module.prediction.overlap
    assert about["input"]["shape"] == ["batch", 3, *run.plan.view.patch]
    assert any("1 below to 1 above" in step for step in about["steps"])

    import onnxruntime

    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    assert session.get_modelmeta().custom_metadata_map["preprocessing.json"] == beside
    assert session.get_inputs()[0].shape == about["input"]["shape"]
    inside = {"preprocessing.json": ""}
    torch.export.load(tmp_path / "torch" / "model.pt2", extra_files=inside)
    assert inside["preprocessing.json"] == beside


def test_the_runs_post_processing_travels_too(phantom, tmp_path):
    checkpoint = saved_run(tmp_path / "checkpoints", phantom, "model=unet2d")
    numbers = {"value": None, "score_before": 0.5, "score_after": 0.6, "patients": 8}
    rules = {"liver": [{"rule": "largest_component", **numbers}]}
    record = {"rules": rules, "reasons": {}}
    (tmp_path / "postprocessing.json").write_text(json.dumps(record))
    export(checkpoint, tmp_path / "out", to="monai_bundle")
    about = json.loads((tmp_path / "out" / "configs" / "preprocessing.json").read_text())
    assert about["postprocessing"] == rules
    assert "not applied" in (tmp_path / "out" / "docs" / "README.md").read_text()


def oblique_case(folder: Path) -> Case:
    """Air around a body, stored with other axes, signs and voxels than the plan's."""
    random = np.random.default_rng(1)
    image = np.zeros((34, 30, 14), np.float32)
    image[3:30, 2:27, 1:13] = random.normal(100, 20, (27, 25, 12))
    image[2, 2:27, 1:13] = -5  # not zero either
    image[18:30, 15:27, 6:13] = 0  # air within the box
    image[10:12, 10:12, 5:7] = 0  # a hole belongs to the body
    affine = np.array([[0, 0, 9.0, -70], [0, -11, 0, 3], [14, 0, 0, 0], [0, 0, 0, 1]])
    for name, array in (("image", image), ("label", (image > 100).astype(np.uint8))):
        nib.save(nib.Nifti1Image(array, affine), folder / f"{name}.nii.gz")
    return Case(
        id="a", patient="a", site="x", images=(folder / "image.nii.gz",),
        annotation=Annotation(folder / "label.nii.gz", (1, 2, 3)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("choices", "plan"),
    [
        (("model=unet3d",), {}),
        (
            ("model=unet25d", "view.context=1", "model.deep_supervision=true"),
            {"interpolation": "spline", "normalisation": (Normalisation("zscore", nonzero=True),)},
        ),
        (
            ("model=unet2d", *REGIONS),
            {"crop": "none", "normalisation": (Normalisation("clip_global", 60, 140, 100, 20),)},
        ),
    ],
    ids=["unet3d", "unet25d", "regions"],
)
def test_a_monai_bundle_writes_the_runs_labels(choices, plan, phantom, tmp_path):
    run = build.load(checkpoint := saved_run(tmp_path, phantom, *choices, **plan))
    export(checkpoint, tmp_path / "bundle", to="monai_bundle")
    case = oblique_case(tmp_path)
    (stored,) = store_cases([case], run.plan, folder=tmp_path / "store", quiet=True)
    expected = labels(
        run.module.network, run, torch.from_numpy(np.array(stored.image())),
        shape=stored.reference().shape, box=stored.box(), exclusive="regions" not in str(choices),
    )  # fmt: skip

    parser = ConfigParser()
    parser.read_config(tmp_path / "bundle" / "configs" / "inference.json")
    parser["bundle_root"], parser["device"] = str(tmp_path / "bundle"), "cpu"
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(parser.get_parsed_content("weights"))
    item = parser.get_parsed_content("preprocessing")({"image": str(case.images[0])})
    np.testing.assert_allclose(item["image"].numpy(), stored.image(), atol=1e-6)
    inferer, probabilities = map(parser.get_parsed_content, ("inferer", "network"))
    item["pred"] = inferer(item["image"][None], probabilities)[0]
    channels = parser.get_parsed_content("postprocessing")(item)["pred"]
    written = tmp_path / "bundle" / "eval" / "image_seg.nii.gz"
    np.testing.assert_allclose(nib.load(written).affine, nib.load(case.images[0]).affine)
    assert len(np.unique(expected)) > 1
    if len(channels) == 1:
        assert (read_image(written)[0] != expected).mean() <= SAME
    else:
        found = read_image(written)
        bits = sum(mask.astype(int) << bit for bit, mask in enumerate(found))
        assert (bits != expected).mean() <= SAME


def test_a_bundle_is_what_monai_expects(phantom, tmp_path):
    checkpoint = saved_run(tmp_path, phantom, "model=unet3d")
    export(checkpoint, tmp_path / "mine", to="monai_bundle")
    files = {str(p.relative_to(tmp_path / "mine")) for p in (tmp_path / "mine").rglob("*.*")}
    assert files >= {
        "configs/metadata.json", "configs/inference.json", "models/model.pt", "docs/README.md",
    }  # fmt: skip
    assert (tmp_path / "mine" / "LICENSE").is_file()
    about = json.loads((tmp_path / "mine" / "configs" / "metadata.json").read_text())
    # Required by MONAI's schema of 2024-07-25.
    assert about.keys() >= {
        "schema", "version", "changelog", "monai_version", "pytorch_version", "numpy_version",
        "required_packages_version", "task", "description", "authors", "copyright",
        "network_data_format",
    }  # fmt: skip
    output = about["network_data_format"]["outputs"]["pred"]
    assert output["channel_def"] == {"0": "background", "1": "liver", "2": "kidney", "3": "lesion"}
    network = load(
        "mine", bundle_dir=tmp_path, workflow_type="inference", device="cpu", source="github"
    )
    run = build.load(checkpoint)
    window = torch.randn(1, run.plan.in_channels, *run.plan.view.patch)
    expected = run.module.network.eval()(window)
    torch.testing.assert_close(network.eval()(window), expected, rtol=0, atol=0)


def test_wrong_input_is_told_and_leaves_nothing(phantom, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--format tensorrt: known are torch_export, onnx, monai"):
        export("nowhere", tmp_path / "out", to="tensorrt")
    with pytest.raises(InputError, match="no checkpoint at nowhere"):
        export("nowhere", tmp_path / "out", to="torch_export")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(InputError, match="full holds something"):
        export("nowhere", tmp_path / "full", to="torch_export")
    monkeypatch.setattr("segshift.export.writing.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'segshift\[export\]'"):
        export("nowhere", tmp_path / "out", to="onnx")

    checkpoint = saved_run(tmp_path / "run", phantom, "model=unet2d")
    monkeypatch.setattr("segshift.export.graph.TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="differs from the network"):
        export(checkpoint, tmp_path / "out", to="torch_export")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "run"]


def test_a_bundle_refuses_a_task_that_monai_cannot_decode(phantom, tmp_path):
    run = build.load(saved_run(tmp_path, phantom, "model=unet2d"))

    class Distances:
        structures, channels = ("liver",), 1

    run.module.task = Distances()
    with pytest.raises(InputError, match="the task .*Distances, only Semantic and Regions; .*onnx"):
        write_bundle(run, description(run), tmp_path, name="it")
    assert description(run)["channels"] == ["liver"]
