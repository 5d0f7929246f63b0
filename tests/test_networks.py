"""Networks: one contract for every YAML in conf/model, and what each switch of them does."""

import copy
import functools
import itertools
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, TINY_MODELS, TINY_TRAINING, composed
from hydra.errors import ConfigCompositionException
from monai.networks.nets import DynUNet
from torch import nn

from segshift import build, options
from segshift.errors import InputError
from segshift.networks import UNet, exact_on_small_maps
from segshift.networks.contract import padded
from segshift.networks.options import DOWNSAMPLES, NORMS, SKIPS, UPSAMPLES
from segshift.plan import Plan, View, topology

MODELS = sorted(path.stem for path in (ROOT / "conf" / "model").glob("*.yaml"))
UNETS = [f"{family}3d" for family in ("unet", "resunet", "attention_unet", "basic_unet")]
SWITCHES = {"norm": NORMS, "downsample": DOWNSAMPLES, "upsample": UPSAMPLES, "skip": SKIPS}
VALUES = [(switch, value) for switch, options in SWITCHES.items() for value in options]
ANISOTROPIC = {"patch": (8, 16, 16), "spacing_mm": (4.0, 1.0, 1.0)}


@functools.cache  # composing takes longer than any of these networks
def configured(model, *overrides):
    """The resolved config of a thin network of that kind."""
    tiny = (TINY_TRAINING[0], *TINY_MODELS.get(model, ()))
    return build.resolved(composed(f"model={model}", *tiny, *overrides))


def made(model, *overrides, patch=(16, 16, 16), spacing_mm=(1.0, 1.0, 1.0)):
    """A thin network as a run builds it, and the plan; patch and spacing are (z, y, x)."""
    config = configured(model, *overrides)
    axes = slice(3 - config.view.dimensions, 3)
    strides, kernels = topology(patch[axes], spacing_mm[axes])
    plan = Plan(
        channels=2, structures=("a", "b"), spacing_mm=spacing_mm,
        view=View(patch[axes], config.view.context), strides=strides, kernels=kernels, batch=2,
        structure_frequency=(0.8, 0.1, 0.1),
    )  # fmt: skip
    return build.module_of(config, plan, precision="32-true").network, plan


def image_for(plan, *, smaller=0):
    return torch.randn(2, plan.in_channels, *(edge - smaller for edge in plan.view.patch))


def unet(patch, spacing=None, **options):
    strides, kernels = topology(patch, spacing or (1.0,) * len(patch))
    defaults = {"in_channels": 2, "out_channels": 3, "filters": [4, 8, 8, 8, 8, 8]}
    return UNet(strides=strides, kernels=kernels, **defaults | options), strides


def norms_of(network):
    names = [type(module).__name__ for module in network.modules()]
    return {name[: name.index("Norm")].lower() for name in names if "Norm" in name}


def without_gradient(network, output):
    outputs = output if isinstance(output, list) else [output]
    sum(logits.square().mean() for logits in outputs).backward()
    return [name for name, p in network.named_parameters() if p.grad is None]


@pytest.mark.parametrize("model", MODELS)
class TestTheContract:
    @pytest.mark.parametrize("geometry", [{}, ANISOTROPIC], ids=["isotropic", "anisotropic"])
    def test_logits_at_input_size_and_no_idle_parameter(self, model, geometry):
        network, plan = made(model, **geometry)
        output = network(image_for(plan))
        assert output.shape == (2, 3, *plan.view.patch)
        assert not without_gradient(network, output)  # or DDP would wait for ever

    def test_any_input_size(self, model):
        network, plan = made(model, **ANISOTROPIC)
        network.eval()
        for smaller in (3, 7):
            image = image_for(plan, smaller=smaller)
            assert network(image).shape == (2, 3, *image.shape[2:])

    def test_deep_supervision_is_a_list_in_training_only(self, model):
        if "deep_supervision" not in configured(model).model:
            with pytest.raises(ConfigCompositionException):
                composed(f"model={model}", "model.deep_supervision=true")
            return
        network, plan = made(model, "model.deep_supervision=true", **ANISOTROPIC)
        image = image_for(plan, smaller=3)
        output = network(image)
        assert isinstance(output, list)
        assert len(output) > 1
        assert output[0].shape == (2, 3, *image.shape[2:])
        for finer, coarser in itertools.pairwise(output):
            for fine, coarse in zip(finer.shape[2:], coarser.shape[2:], strict=True):
                assert coarse in (fine, -(-fine // 2))
        assert not without_gradient(network, output)
        assert network.eval()(image).shape == output[0].shape

    def test_a_state_dict_loads_strictly(self, model):
        (network, plan), (other, _) = made(model), made(model, "seed=1")
        image = image_for(plan)
        other.load_state_dict(network.state_dict(), strict=True)
        with torch.no_grad():
            assert torch.equal(network.eval()(image), other.eval()(image))

    def test_its_norm_can_be_chosen(self, model):
        options = configured(model).model
        if "norm" not in options or "skip" in options:  # our own U-Net has a test for each switch
            return
        for name in NORMS:
            network, plan = made(model, f"model.norm={name}", "model.deep_supervision=true")
            assert norms_of(network) == {name}
            assert not without_gradient(network, network(image_for(plan)))


@pytest.mark.parametrize("model", ["segresnet", "mednext", "swin_unetr"])
def test_the_outsiders_in_two_dimensions(model):
    network, plan = made(model, "view.dimensions=2", "view.context=1", patch=(1, 24, 32))
    assert plan.in_channels == 6
    output = network(image_for(plan))
    assert output.shape == (2, 3, 24, 32)
    assert not without_gradient(network, output)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize(
    ("patch", "spacing"), [((64, 48), (1.0, 1.0)), ((8, 32, 32), (8.0, 1.0, 1.0))]
)
def test_the_default_is_dynunet_to_the_bit(patch, spacing, residual, deep_supervision):
    """Same seed: same weights in the same order, same logits, and the same next random number."""
    strides, kernels = topology(patch, spacing)
    filters = [5, 8, 12, 16, 16, 16]
    torch.manual_seed(3)
    reference = DynUNet(
        len(patch), 2, 3, kernel_size=kernels, strides=strides, upsample_kernel_size=strides[1:],
        filters=filters[: len(strides)], res_block=residual, deep_supervision=deep_supervision,
        deep_supr_num=max(len(strides) - 3, 1),
    )  # fmt: skip
    next_of_reference = torch.rand(1)
    torch.manual_seed(3)
    ours, _ = unet(
        patch, spacing, filters=filters, residual=residual, deep_supervision=deep_supervision
    )
    assert torch.equal(torch.rand(1), next_of_reference)
    pairs = [*zip(ours.parameters(), reference.parameters(), strict=True)]
    assert all(torch.equal(one, other) for one, other in pairs)
    image = torch.randn(2, 2, *patch)
    if deep_supervision:
        expected = [reference.output_block(reference.skip_layers(image)), *reference.heads]
        output = ours(image)
        assert len(output) == len(expected)
        assert all(torch.equal(one, other) for one, other in zip(output, expected, strict=True))
    assert torch.equal(ours.eval()(image), reference.eval()(image))


def test_the_plain_unet_is_nnunets():
    """5.6 million parameters, as nnU-Net's hippocampus network has."""
    network, _ = unet((40, 56, 40), in_channels=1, filters=[32, 64, 128, 256, 320])
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(5.6e6, rel=0.01)


def test_sizes_grow():
    configs = [composed("model=resunet2d", f"model/size={size}").model for size in "sml"]
    assert [c.filters[0] for c in configs] == [16, 32, 48]
    assert list(configs[1].blocks[:4]) == [1, 3, 4, 6]  # nnU-Net's residual encoder
    network, _ = made("resunet2d", "model/size=m", patch=(1, 32, 32))
    assert [len(stage) for stage in network.encoder] == [1, 3, 4, 6]


@pytest.mark.parametrize("model", UNETS)
@pytest.mark.parametrize(("switch", "value"), VALUES)
def test_every_switch_with_every_unet(model, switch, value):
    overrides = (f"model.{switch}={value}", "model.deep_supervision=true", "model.dropout=0.1")
    if model == "attention_unet3d" and value == "none":
        with pytest.raises(InputError, match=r"model\.skip=none has none"):
            made(model, *overrides, **ANISOTROPIC)
        return
    network, plan = made(model, *overrides, **ANISOTROPIC)
    output = network(image_for(plan))
    assert output[0].shape == (2, 3, *plan.view.patch)
    assert not without_gradient(network, output)
    assert norms_of(network) == {value if switch == "norm" else "instance"}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_wrong_name_is_answered_with_the_right_ones(switch):
    assert options.CHOICES[f"model.{switch}"] == tuple(SWITCHES[switch])
    with pytest.raises(InputError, match=rf"model\.{switch}=nothing.*{list(SWITCHES[switch])[-1]}"):
        unet((32, 32), **{switch: "nothing"})
    with pytest.raises(InputError, match=rf"model\.{switch}=nothing.*{list(SWITCHES[switch])[-1]}"):
        options.check_options(configured("unet2d", f"model.{switch}=nothing"))


def test_switches_of_somebody_elses_network_are_theirs():
    options.check_options(configured("unet2d", "model._target_=theirs.Net", "model.norm=layer"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"filters": [4, 8]}, r"model\.filters=\[4, 8\] has 2 stages"),
        ({"blocks": [1, 2]}, r"model\.blocks=\[1, 2\] has 2 stages"),
        ({"dropout": 1.0}, r"model\.dropout=1\.0"),
    ],
)
def test_what_does_not_fit_is_named(options, words):
    with pytest.raises(InputError, match=words):
        unet((32, 32), **options)


@pytest.mark.parametrize("skip", SKIPS)
def test_what_skip_connections_carry(skip):
    """Without what came through the coarser stages, the image reaches the logits by skips alone."""
    network, _ = unet((32, 32), skip=skip)
    network.encoder[1].register_forward_hook(lambda module, args, output: output.detach())
    image = torch.randn(1, 2, 32, 32, requires_grad=True)
    network(image).square().sum().backward()
    seen = image.grad is not None and bool(image.grad.any())
    assert seen == (skip != "none")


def test_gates_weigh_the_skip_connections():
    network, _ = unet((32, 32), attention=True)
    weights = []
    for stage in network.decoder:
        stage.gate.psi.register_forward_hook(lambda module, args, out: weights.append(out))
    network(torch.randn(1, 2, 32, 32))
    assert len(weights) == len(network.decoder)
    assert all(w.shape[1] == 1 and 0 < w.min() < w.max() < 1 for w in weights)


def test_max_pooling_leaves_no_strided_convolution():
    network, _ = unet((32, 32), downsample="max_pool")
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert {m.stride for m in convolutions} == {(1, 1)}
    assert sum(isinstance(m, nn.MaxPool2d) for m in network.modules()) == len(network.decoder)


@pytest.mark.parametrize("channels", [1, 5, 7, 12, 320])
def test_groups_divide_the_channels(channels):
    _, options = NORMS["group"](channels)
    assert options["num_groups"] == {1: 1, 5: 5, 7: 7, 12: 6, 320: 8}[channels]
    nn.GroupNorm(num_channels=channels, **options)


@pytest.mark.parametrize("model", ["unet2d", "resunet2d", "unetpp2d"])
def test_dropout_acts_in_training_alone(model):
    (without, plan), (network, _) = made(model), made(model, "model.dropout=0.5")
    network.load_state_dict(without.state_dict())
    image = image_for(plan)
    with torch.no_grad():
        assert not torch.equal(network(image), network(image))
        assert not (network(image) == 0).any()  # logits are not dropped
    for stage in (*getattr(network, "encoder", ()), *getattr(network, "decoder", ())):
        assert any(isinstance(module, nn.Dropout) for module in stage.modules())
        assert torch.equal(network.eval()(image), without.eval()(image))


def test_an_anisotropic_plan_pools_its_coarse_axis_later():
    network, strides = unet((8, 32, 32), (8.0, 1.0, 1.0))
    assert strides[1] == (1, 2, 2)
    assert network.encoder[1][0].conv1.conv.stride == (1, 2, 2)
    assert network.encoder[0][0].conv1.conv.kernel_size == (1, 3, 3)
    segresnet, _ = made("segresnet", **ANISOTROPIC)
    assert segresnet.multiple == (1, 4, 4)


def test_padding_is_at_the_end_and_leaves_two_voxels():
    image = torch.ones(1, 1, 5, 8)
    assert padded(image, (4, 4)).shape[2:] == (8, 8)
    assert padded(image, (4, 4))[0, 0, :5].all()
    assert not padded(image, (4, 4))[0, 0, 5:].any()
    assert padded(image[..., :4, :4], (4, 4)).shape[2:] == (4, 8)
    assert padded(image, (1, 4)) is image


DIRTY = {"MALLOC_PERTURB_": "128"}  # glibc fills what it hands out: with 0x7f, huge in bfloat16


@pytest.mark.parametrize(
    ("layer", "edges"),
    [
        ("Conv3d(32, 32, 3, padding=1, groups=32)", (2, 4, 4)),
        ("Conv3d(32, 32, 3, padding=1, groups=32)", (4, 4, 4)),
        ("Conv2d(8, 8, 3, padding=1, stride=2)", (1, 1)),
        ("ConvTranspose3d(32, 32, 3, stride=2, padding=1, groups=32)", (1, 1, 1)),
        ("ConvTranspose2d(32, 32, 3, stride=2, padding=1, groups=32)", (1, 1)),
    ],
)
def test_no_gradient_reads_memory_that_nobody_wrote(layer, edges):
    """Without exact_on_small_maps, all but the second are as large as the dirt in the memory."""
    code = f"""
import torch
from segshift.networks import exact_on_small_maps
torch.manual_seed(0)
convolution = torch.nn.{layer}
channels_last = {{2: torch.channels_last, 3: torch.channels_last_3d}}[{len(edges)}]
image = torch.randn(2, convolution.in_channels, *{edges})
convolution(image).square().sum().backward()
expected, convolution.weight.grad = convolution.weight.grad, None
exact_on_small_maps(convolution.to(memory_format=channels_last))
with torch.autocast("cpu", torch.bfloat16):
    output = convolution(image.to(memory_format=channels_last))
assert output.dtype == torch.bfloat16
output.float().square().sum().backward()
print(float((convolution.weight.grad - expected).abs().max() / expected.abs().max()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True,
        env={**os.environ, **DIRTY},
    )  # fmt: skip
    assert float(done.stdout) < 0.02  # bfloat16 has 8 bits


@pytest.mark.parametrize("dimensions", [2, 3])
def test_small_maps_are_convolved_in_float32(dimensions):
    make = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions]
    plain = make(4, 4, 5, padding=2, bias=False)
    exact = exact_on_small_maps(copy.deepcopy(plain))
    small, large = (torch.randn(1, 4, *(edge,) * dimensions) for edge in (4, 8))
    wanted = plain(small).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(exact(large), plain(large))
        assert torch.equal(exact(small), wanted)
        assert not torch.equal(plain(small), wanted)
        assert torch.equal(copy.deepcopy(exact)(small), wanted)


def test_every_run_has_exact_small_maps():
    network, _ = made("mednext")
    hooks = [part._forward_hooks for part in network.modules() if isinstance(part, nn.Conv3d)]
    assert hooks
    assert all(hooks)
