"""Inputs for the tests of the losses, and the loss of a YAML as a training would make it."""

from pathlib import Path

import torch
from loss_references import SPACING_MM, frequency
from omegaconf import DictConfig, OmegaConf

from segshift.build import instantiate
from segshift.terms import with_terms

CONFIGS = {path.stem: path for path in Path(__file__).parents[1].glob("conf/loss/*.yaml")}
SUM_TERMS = {"cross_entropy": {}, "boundary": {}}  # for sum.yaml


def build(name, k, weight=None, structure_frequency=None):
    """The loss of a YAML for k structures, as the training would make it."""
    config = OmegaConf.load(CONFIGS[name])
    if name == "sum":
        config.terms, config.weights = SUM_TERMS, {"boundary": 0.5}
        config = with_terms(config, [CONFIGS[name].parent])
    if structure_frequency is None:
        structure_frequency = frequency(k)
    known = {
        "spacing_mm": SPACING_MM,
        "structure_frequency": [float(value) for value in structure_frequency],
        "weight": None if weight is None else [float(value) for value in weight],
    }
    fill(config, known)
    missing = OmegaConf.missing_keys(config)
    assert not missing, f"{name}.yaml leaves {missing} open; only {sorted(known)} are filled"
    return instantiate(config)


def fill(config, known):
    for key in config:
        if key in known:
            config[key] = known[key]
        elif not OmegaConf.is_missing(config, key) and isinstance(config[key], DictConfig):
            fill(config[key], known)


def draw(k, size, seed=0, batch=2):
    """Random logits and a label that has every structure in every sample."""
    random = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(batch, k, *size, generator=random)
    label = torch.randint(0, k, (batch, 1, *size), generator=random)
    label.flatten(1)[:, :k] = torch.arange(k)
    return logits, label


def certain(label, k, logit=8.0):
    """Logits that say the label: `logit` on the right structure, its negative on the others."""
    right = torch.nn.functional.one_hot(label[:, 0], k).movedim(-1, 1)
    return logit * (2.0 * right - 1)


def situation(kind, k, size):
    logits, label = draw(k, size)
    if kind in ("empty", "full"):
        label = torch.full_like(label, 0 if kind == "empty" else 1)
    if kind in ("perfect", "worst"):  # no two voxels alike, or their order would be anyone's
        logits = certain(label, k, 8.0 if kind == "perfect" else -8.0) + 0.01 * logits
    return logits, label


def gradient(loss, logits, label):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(loss(logits, label), logits)[0]
