"""torch.compile in place: same keys, same numbers, a bounded number of graphs.

The graphs are run as captured: what a C++ compiler makes of them is torch's affair.
"""

import os
import shutil

import pytest
import torch
import torch._dynamo
from conftest import TINY_TRAINING, composed
from test_networks import configured, image_for, made, without_gradient
from torch import nn

from segshift import build, options, run
from segshift.errors import InputError


@pytest.fixture
def compiled_in_python(monkeypatch):
    """torch.compile without a compiler: graphs are captured and guarded, then run as they are."""
    compile_, calls = nn.Module.compile, []

    def traced(self, *args, **kwargs):
        calls.append(self)
        compile_(self, *args, **{**kwargs, "backend": "eager"})

    monkeypatch.setattr(nn.Module, "compile", traced)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield calls
    torch._dynamo.reset()


def test_compiling_changes_no_key_and_no_number(compiled_in_python):
    network, plan = made("unet2d", "model.deep_supervision=true")
    keys, image = list(network.state_dict()), image_for(plan)
    expected = network(image)
    network.compile()
    assert list(network.state_dict()) == keys
    output = network(image)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(output, expected, strict=True))
    assert not without_gradient(network, output)


@pytest.mark.parametrize("model", ["unet3d", "resunet2d", "attention_unet2d", "mednext"])
def test_a_network_is_one_graph(model, compiled_in_python):
    network, plan = made(model, "model.deep_supervision=true")
    network.compile(fullgraph=True)
    network(image_for(plan))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_a_run_compiles_if_it_is_told_to(compiled_in_python, phantom, tmp_path):
    """Training, and windows in batches of any number: few graphs, a checkpoint like any other."""
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("no g++, for which trainer.compile looks before a run starts")
    config = composed(
        *TINY_TRAINING, *phantom, "model=unet2d", "trainer.compile=true",
        "trainer.steps_per_epoch=3", "trainer.accelerator=cpu",
    )  # fmt: skip
    run.train(config, tmp_path, command="", choices={})
    assert len(compiled_in_python) == 1
    assert 0 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    loaded = build.load(tmp_path)
    state = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert not any("_orig_mod" in key for key in state)
    assert loaded.module.network(torch.zeros(1, 1, 32, 32)).shape == (1, 4, 32, 32)
    assert "receptive field" in (tmp_path / "report.html").read_text()


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"no-such-compiler.*trainer\.compile=false"):
        options.check_options(configured("unet2d", "trainer.compile=true"))
