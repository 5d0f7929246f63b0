"""What the values in a folder of masks mean, where a file in it says so.

`structures.json` is what `predict.py` writes, `dataset.json` what nnU-Net keeps beside labels and
copies beside its predictions.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from segshift.cohort.importers.imported import word
from segshift.errors import InputError


def described(folders: Iterable[Path]) -> dict[str, Any] | None:
    """Rules, as in `data.structures`, of the first folder that has a description; None without.

    Raises InputError for a description that is none.
    """
    for folder in folders:
        for name in ("structures.json", "dataset.json"):
            path = folder / name
            if path.is_file():
                return _ours(path) if name == "structures.json" else _nnunet(path)
    return None


def _ours(path: Path) -> dict[str, Any]:
    try:
        rules = {str(name): int(value) for name, value in _content(path)["structures"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: {{'structures': {{name: value}}}} wanted: {error!r}") from error
    if len(set(rules.values())) < len(rules):
        raise InputError(
            f"{path} tells of {list(rules)} in files of their own, as task=regions has them; only "
            "a map of all structures can be scored: test the network itself with checkpoint=RUN"
        )
    return rules


def _nnunet(path: Path) -> dict[str, Any]:
    """Version 2 lists name to value, version 1 value to name; 0 is the background."""
    try:
        labels = dict(_content(path)["labels"])
        if all(str(key).isdigit() for key in labels):
            labels = {str(name): int(value) for value, name in labels.items()}
        ignored = labels.pop("ignore", None)
        rules: dict[str, Any] = {word(name): v for name, v in labels.items() if v not in (0, [0])}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not an nnU-Net description: {error!r}") from error
    return rules if ignored is None else {**rules, "ignore": ignored}


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a mapping wanted, found {type(content).__name__}")
    return content
