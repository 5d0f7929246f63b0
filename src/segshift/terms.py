"""Terms of a sum of losses, named on the command line: `loss=sum loss.terms=[dice,boundary]`.

A name stands for the YAML of that name in conf/loss or in the folder you are in; where that is a
sum itself (boundary is Dice + boundary), for its term of that name.
"""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from segshift.errors import InputError

SUM = "segshift.losses.WeightedSum"


def with_terms(loss: DictConfig, folders: Sequence[Path]) -> DictConfig:
    """The config of a loss with the config of a loss for every name in `terms`.

    `folders` hold `<name>.yaml`, the first that has it wins. Raises InputError that lists the names
    for one that is not there, and for an option that its loss does not have.
    """
    terms = loss.get("terms")
    if terms is None or loss.get("_target_") != SUM:
        return loss
    if isinstance(terms, str):
        terms = OmegaConf.create([terms])
    if isinstance(terms, ListConfig):
        names = [str(name) for name in terms]
        if not names or len(set(names)) < len(names):
            raise InputError(f"loss.terms={names}: give every term once, and at least one")
        terms = OmegaConf.create({name: {} for name in names})
    if not isinstance(terms, DictConfig):
        raise InputError(f"loss.terms={terms}: a list of names, or a mapping of names to options")
    full = {str(name): _term(str(name), options, folders) for name, options in terms.items()}
    result = loss.copy()
    OmegaConf.update(result, "terms", full, merge=False)
    return result


def _term(name: str, options: DictConfig | None, folders: Sequence[Path]) -> DictConfig:
    if options is not None and not isinstance(options, DictConfig):
        raise InputError(
            f"loss.terms.{name}={options}: a mapping of its options, {{}} for none; weights are "
            f"loss.weights='{{{name}: {options}}}'"
        )
    if options is not None and "_target_" in options:
        return options
    path = next((f / f"{name}.yaml" for f in folders if (f / f"{name}.yaml").is_file()), None)
    if path is None or name == "sum":
        known = sorted({p.stem for folder in folders for p in folder.glob("*.yaml")} - {"sum"})
        raise InputError(f"loss.terms: there is no loss {name!r}; known are {', '.join(known)}")
    config = OmegaConf.load(path)
    assert isinstance(config, DictConfig)
    if "defaults" in config:
        raise InputError(
            f"{path} has a `defaults` list; a term of a sum has to be whole in its YAML"
        )
    config = config.get("terms", {}).get(name) or config
    unknown = sorted(set(options or {}) - set(config))
    if unknown:
        raise InputError(
            f"loss.terms.{name} has no option {unknown[0]!r}; known are "
            f"{', '.join(str(key) for key in config if key != '_target_')}"
        )
    return OmegaConf.merge(config, options or {})  # type: ignore[return-value]
