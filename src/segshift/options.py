"""Options that a wrong value would make fail only after seconds of imports, or not at all."""

import math
from collections.abc import Iterable

from omegaconf import DictConfig, ListConfig, OmegaConf

from segshift.environment import check_accelerator, check_compiler, check_precision
from segshift.errors import InputError
from segshift.plan import OBJECT
from segshift.plan.scale import SCALES

NUMBERS: dict[str, tuple[type, float, float]] = {  # kind, lowest, highest
    "seed": (int, 0, math.inf),
    "foreground_share": (float, 0, 1),
    "view.dimensions": (int, 2, 3),
    "view.context": (int, 0, math.inf),
    "plan.batch": (int, 1, math.inf),
    "plan.patch_voxels": (int, 1, math.inf),
    "trainer.devices": (int, 1, math.inf),
    "trainer.epochs": (int, 1, math.inf),
    "trainer.steps_per_epoch": (int, 1, math.inf),
    "trainer.gradient_clip": (float, 0, math.inf),
    "trainer.workers": (int, 0, math.inf),
    "prediction.overlap": (float, 0, 0.99),
    "prediction.budget_gb": (float, 0.01, math.inf),
    "prediction.window_batch": (int, 1, math.inf),
}
DERIVED = ("plan.batch", "prediction.window_batch")  # may be null
# As in segshift.networks.options and segshift.data, which need torch.
CHOICES: dict[str, tuple[str | None, ...]] = {
    "plan.interpolation": ("linear", "spline"),
    "plan.crop": ("nonzero", "none"),
    "data.scale": (*SCALES, None),
    "postprocess": ("auto", "none"),
    "sampling.balance": ("none", "site", "structure"),
    "model.norm": ("instance", "batch", "group"),
    "model.downsample": ("strided", "max_pool"),
    "model.upsample": ("transposed", "interpolate"),
    "model.skip": ("concat", "add", "none"),
}


def check_options(config: DictConfig) -> None:
    """Refuse what would only fail after seconds of imports, or not at all."""
    for key, (kind, low, high) in NUMBERS.items():
        value = OmegaConf.select(config, key)
        if value is None and key in DERIVED:
            continue
        allowed = (int, float) if kind is float else (int,)
        fits = type(value) in allowed and low <= value <= high and value < math.inf
        if not fits:
            raise InputError(
                f"{key}={value}: {'a whole number' if kind is int else 'a number'} from {low:g}"
                + (f" to {high:g}" if high < math.inf else "")
            )
    for key, kinds in (("plan.patch", (int,)), ("plan.spacing_mm", (int, float))):
        values = OmegaConf.select(config, key)
        if values is not None and not (
            isinstance(values, ListConfig)
            and all(type(v) in kinds and 0 < v < math.inf for v in values)
        ):
            whole = "whole " if float not in kinds else ""
            raise InputError(f"{key}={values}: a list of {whole}numbers above 0 (z, y, x), or null")
    for key, known in CHOICES.items():
        value = OmegaConf.select(config, key)
        theirs = not str(config.model.get("_target_")).startswith("segshift.")
        if theirs and key.startswith("model."):
            continue
        if value is not None and value not in known:
            names = ", ".join("null" if name is None else name for name in known)
            raise InputError(f"{key}={value}: known are {names}")
    trainer = config.trainer
    if type(trainer.compile) is not bool:
        raise InputError(f"trainer.compile={trainer.compile}: true or false")
    if trainer.compile:
        check_compiler()
    check_precision(trainer.precision)
    check_accelerator(trainer.accelerator)
    if trainer.strategy not in ("auto", "ddp"):
        raise InputError(f"trainer.strategy={trainer.strategy}: auto or ddp")
    if trainer.devices > 1 and trainer.strategy != "ddp":
        raise InputError(f"trainer.devices={trainer.devices} needs trainer=ddp")


def scale_of(config: DictConfig, structures: Iterable[str]) -> str | None:
    """What `data.scale` says; None where a config of one's own does not have it.

    Raises InputError for regions that leave out a structure: references of an object would show
    more than predictions.
    """
    scale: str | None = OmegaConf.select(config, "data.scale")
    regions = OmegaConf.select(config, "task.regions")
    if scale == OBJECT and isinstance(regions, DictConfig):
        shown = {str(part) for parts in regions.values() for part in parts}
        if missing := [name for name in structures if name not in shown]:
            raise InputError(
                f"data.scale={OBJECT} measures all structures together, but task.regions has "
                f"{missing} in no region; add it to one, or to `background` in data.structures"
            )
    return scale
