"""A network in numbers: memory against real tensors, the command, the page."""

import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT, composed
from report_inputs import DICE, STRUCTURES, fill
from rich.console import Console
from test_networks import MODELS, made
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from segshift import build, cli
from segshift.networks import UNet
from segshift.networks.summary import saved_bytes, summarise_network
from segshift.plan import Plan, View, topology
from segshift.report import network_numbers, print_network, write_network, write_report

STRIDES_2D = ((1, 1), (2, 2), (2, 1))
STRIDES_3D = ((1, 1, 1), (1, 2, 2), (2, 2, 2))
KERNELS_3D = ((1, 3, 3), (3, 3, 3), (3, 3, 3))


def unet(dimensions, **options):
    strides = STRIDES_2D if dimensions == 2 else STRIDES_3D
    kernels = ((3, 3),) * 3 if dimensions == 2 else KERNELS_3D
    defaults = {"in_channels": 1, "out_channels": 2, "filters": [2, 2, 3]}
    return UNet(strides=strides, kernels=kernels, **defaults | options)


PLAN = Plan(
    channels=1, structures=("a", "b"), spacing_mm=(3.0, 1.0, 1.0), view=View((8, 8)), strides=(),
    kernels=(), batch=1, structure_frequency=(0.8, 0.1, 0.1),
)  # fmt: skip


def of(network, patch, *, channels=1, batch=1):
    return summarise_network(
        network, replace(PLAN, view=View(tuple(patch)), channels=channels, batch=batch),
        precision="32-true", memory_format=torch.contiguous_format,
    )  # fmt: skip


def test_numbers_of_one_convolution():
    summary = of(nn.Conv2d(1, 4, 3, padding=1, bias=False), (8, 8), batch=2)
    assert summary.parameters == 36
    assert summary.forward_flops == 2 * 8 * 8 * 36
    assert summary.saved_bytes == 4 * 2 * 8 * 8  # the image; weights are not counted
    assert summary.receptive_field == (3, 3)


def test_stages():
    finest, middle, coarsest = of(unet(3), (4, 8, 8)).stages
    assert (finest.size, middle.size, coarsest.size) == ((4, 8, 8), (4, 4, 4), (2, 2, 2))
    assert [stage.channels for stage in (finest, middle, coarsest)] == [2, 2, 3]
    # Two down, one up, two after it; the head at the top.
    assert [stage.convolutions for stage in (finest, middle, coarsest)] == [6, 5, 2]
    assert finest.voxel_mm == (3.0, 1.0, 1.0)
    assert coarsest.voxel_mm == (6.0, 4.0, 4.0)
    # The decoder's blocks have the next coarser stage's kernels, as DynUNet's do.
    assert finest.kernels == ((3, 3, 3), (1, 3, 3), (1, 2, 2), (1, 1, 1))


def real_bytes(network, image, *, precision):
    """What `saved_bytes` estimates, of tensors that exist."""
    own = {p.untyped_storage().data_ptr() for p in (*network.parameters(), *network.buffers())}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    mixed = precision == "bf16-mixed"
    with (
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed),
        saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        network(image)
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize(
    "model", ["unet3d", "resunet2d", "attention_unet2d", "mednext", "swin_unetr"]
)
def test_memory_is_that_of_real_tensors(model, precision):
    network, plan = made(model, patch=(8, 16, 16))
    shape = (2, plan.in_channels, *plan.view.patch)
    expected = real_bytes(network.train(), torch.randn(shape), precision=precision)
    estimated = saved_bytes(
        network, shape=shape, precision=precision, memory_format=torch.contiguous_format,
    )  # fmt: skip
    # torch says that the statistics of a batch norm are kept in bfloat16; they are in float32.
    assert estimated == pytest.approx(expected, rel=0.01 if precision == "bf16-mixed" else 0)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_described_at_once(model):
    """The sizes as they are in the YAML; the patch needs padding where an axis is always pooled."""
    config = build.resolved(composed(f"model={model}"))
    axes = slice(3 - config.view.dimensions, 3)
    patch, spacing_mm = (8, 64, 64)[axes], (4.0, 1.0, 1.0)
    strides, kernels = topology(patch, spacing_mm[axes])
    plan = replace(
        PLAN, view=View(patch, config.view.context), spacing_mm=spacing_mm,
        strides=strides, kernels=kernels,
    )  # fmt: skip
    module = build.module_of(config, plan, precision="bf16-mixed")
    start = time.process_time()
    numbers = network_numbers(module, plan, precision="bf16-mixed")
    assert time.process_time() - start < 5
    assert (numbers["receptive_field"] is None) == (model == "swin_unetr")
    assert numbers["parameters"] > 1e6
    assert numbers["forward_flops"] > 1e8
    stages = numbers["stages"]
    assert all(edge >= n for edge, n in zip(stages[0]["size"], patch, strict=True))
    assert len(stages) == len({stage["voxel_mm"] for stage in stages})
    text = io.StringIO()
    print_network(json.loads(json.dumps(numbers)), console=Console(file=text, width=120))
    for word in ("parameters", "receptive field", "FLOP", "activations", "kernels", "3x3"):
        assert word in text.getvalue()


def test_the_page_shows_it_if_it_is_there(tmp_path):
    folder = fill(tmp_path)  # as runs were before there was a network.json
    page = write_report(folder, structures=STRUCTURES, measure=DICE).read_text(encoding="utf-8")
    assert "receptive field" not in page
    module = SimpleNamespace(network=unet(2), memory_format=torch.contiguous_format)
    write_network(folder, module, PLAN, precision="32-true")
    page = write_report(folder, structures=STRUCTURES, measure=DICE).read_text(encoding="utf-8")
    for words in ("receptive field", "voxels", "3x3, 2x2, 1x1", "activations"):
        assert words in page


def test_the_network_itself_is_left_as_it_was():
    network, plan = made("unet2d", "model.norm=batch")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    of(network, plan.view.patch, channels=plan.in_channels)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.device.type == "cpu" for p in network.parameters())


def test_a_network_that_looks_at_values_trains_undescribed(tmp_path, capsys):
    class Looking(nn.Module):
        def forward(self, image):
            return image if float(image.sum()) > 0 else -image

    module = SimpleNamespace(network=Looking(), memory_format=torch.contiguous_format)
    write_network(tmp_path, module, PLAN, precision="32-true")
    assert not list(tmp_path.iterdir())
    assert "without a description" in capsys.readouterr().out


def test_the_command(phantom, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cli.main(["network", "model=unet2d", *phantom, "trainer.precision=32-true"])
    printed = capsys.readouterr().out
    for words in ("in_domain", "precision: 32-true", "receptive field:", "FLOP", "3x3, 2x2, 1x1"):
        assert words in printed
    assert not list(tmp_path.iterdir())  # nothing is a run


def test_the_command_sees_the_yaml_files_of_the_folder(phantom, tmp_path, monkeypatch, capsys):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("defaults: [basic_unet2d, _self_]\nskip: add\n")
    monkeypatch.chdir(tmp_path)
    cli.main(["network", "model=mine", *phantom])
    assert "receptive field:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model=unet4d"], ["unet4d", "resunet3d", "segresnet"]),
        (["model=mednext", "model.skip=none"], ["no option 'model.skip'", "expansion"]),
        (["model=swin_unetr", "model.deep_supervision=true"], ["deep_supervision", "window"]),
        (["model=unet2d", "model.norm=layer"], ["model.norm=layer", "instance, batch, group"]),
        (["trainer.compile=1"], ["trainer.compile=1", "true or false"]),
    ],
)
def test_the_command_answers_what_is_wrong(arguments, words):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["network", *arguments])
    for word in words:
        assert word in str(stopped.value)


def test_a_wrong_switch_is_answered_before_torch_is_there():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "segshift.cli", "network", "model.norm=layer"],
        cwd=ROOT, capture_output=True, encoding="utf-8", timeout=120, check=False,
    )  # fmt: skip
    assert "model.norm=layer" in done.stderr
    assert "Traceback" not in done.stderr
    assert " torch\n" not in done.stderr
