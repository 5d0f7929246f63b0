"""Every YAML composes and instantiates; a new one is tested by being there."""

import itertools
from pathlib import Path

import pytest
import torch
from conftest import REQUIRED, ROOT, TINY_MODELS, TINY_TRAINING, composed, split_options
from omegaconf import OmegaConf

from segshift import build

CONF = ROOT / "conf"


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir())
OPTIONS = [(group, choice) for group in GROUPS for choice in choices(group)]
MODELS, LOSSES, SPLITS = choices("model"), choices("loss"), choices("split")


# Every loss with every view, every other model with one loss; the splits in turn.
UNETS = ("unet2d", "unet25d", "unet3d")
PAIRS = [*itertools.product(UNETS, LOSSES), *((m, "dice_ce") for m in MODELS if m not in UNETS)]
COMBINATIONS = [(*pair, SPLITS[i % len(SPLITS)]) for i, pair in enumerate(PAIRS)]


def chosen(model: str, loss: str) -> tuple[str, ...]:
    """Overrides for a tiny training of these two."""
    return (
        f"model={model}", f"loss={loss}",
        *TINY_TRAINING, *TINY_MODELS.get(model, ()), *REQUIRED.get(loss, ()),
    )  # fmt: skip


def test_the_promised_choices_are_there():
    views = [f"{net}{d}" for net in ("unet", "resunet", "attention_unet", "basic_unet")
             for d in ("2d", "25d", "3d")]  # fmt: skip
    assert {*views, "segresnet", "swin_unetr", "mednext"} <= set(MODELS)
    assert {
        "random", "kfold", "leave_site_out", "single_source", "by_column", "prevalence", "concept",
        "from_file",
    } <= set(SPLITS)  # fmt: skip
    assert {
        "bce", "weighted_bce", "cross_entropy", "topk", "dice", "generalised_dice", "dice_ce",
        "dice_focal", "tversky", "focal_tversky", "unified_focal", "focal", "sigmoid_focal",
        "boundary", "generalised_surface", "hausdorff_dt", "cl_dice", "skeleton_recall", "blob",
        "label_smoothing", "nacl", "sum",
    } <= set(LOSSES)  # fmt: skip


@pytest.mark.parametrize(("group", "choice"), OPTIONS)
def test_every_choice_composes_and_resolves(group, choice):
    if group in ("study", "launcher"):
        config = composed(f"{group}={choice}", job="study")
    else:
        config = composed(f"{group}={choice}", "+data.manifest=m.csv")
    OmegaConf.to_container(config, resolve=True)


@pytest.mark.parametrize(("group", "choice"), OPTIONS)
def test_every_yaml_says_what_it_is_on_one_screen(group, choice):
    lines = (CONF / group / f"{choice}.yaml").read_text().splitlines()
    assert lines[0].startswith("#")
    assert len(lines) <= 50


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_experiment_composes_and_is_a_record(path: Path, monkeypatch):
    monkeypatch.chdir(ROOT)  # the search path is the folder you are in
    composed(f"experiments={path.stem}")
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert "# @package _global_" in header
    for word in ("Question", "Command", "Machine", "Result"):
        assert any(line.startswith(f"# {word}:") for line in header), f"the header lacks {word}"


@pytest.mark.parametrize(("model", "loss", "split"), COMBINATIONS)
def test_every_combination_builds(model, loss, split, boxes):
    """Split, plan, network, task and one gradient, without a Trainer."""
    config = composed(
        *chosen(model, loss), "data=manifest", f"data.manifest={boxes}",
        *split_options(split, "boxes", boxes.parent),
    )  # fmt: skip
    parts = build.experiment(config)
    module = build.module_of(parts.config, parts.plan, precision="32-true")
    channels = parts.plan.channels * (2 * parts.plan.view.context + 1)
    image = torch.randn(2, channels, *parts.plan.view.patch)
    label = torch.randint(0, 3, (2, 1, *parts.plan.view.patch))
    output = module.network(image)
    assert output.shape == (2, 3, *parts.plan.view.patch)
    module.task.loss(module.loss, output, {"label": label}).backward()
    norm = sum(float(p.grad.norm()) for p in module.parameters() if p.grad is not None)
    assert 0 < norm < float("inf")


def test_held_out_follows_the_data_unless_it_is_given():
    config = composed("split=leave_site_out")
    assert config.split.held_out == ["beta", "gamma", "delta"]
    assert composed("split=leave_site_out", "split.held_out=beta").split.held_out == "beta"


def test_the_embedded_default_keeps_the_shifted_sites_out():
    config = composed()
    assert "leave_site_out" in config.split._target_
    assert "alpha" not in config.split.held_out
