"""Other people's layouts to cases for a manifest. Reads descriptions, no pixels."""

import json
import re
from pathlib import Path

from segshift.cohort.case import Case
from segshift.errors import InputError


def import_msd(
    folder: str | Path, *, site: str | None = None
) -> tuple[tuple[Case, ...], tuple[str, ...], tuple[str, ...]]:
    """Cases, channels and structures of a Medical Segmentation Decathlon folder.

    `dataset.json` lists the training pairs, the modalities and the labels. MSD does not say which
    hospital a case came from, so all get one site: `site`, or the data set's name.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist; an MSD data set has dataset.json at its top")
    try:
        description = json.loads(path.read_text())
        labels = {int(value): str(name) for value, name in description["labels"].items()}
        pairs = [(folder / e["image"], folder / e["label"]) for e in description["training"]]
        channels = tuple(_word(str(name)) for name in description["modality"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not an MSD description: {error!r}") from error
    if not pairs:
        raise InputError(f"{path} lists no training cases")
    values = tuple(value for value in sorted(labels) if value != 0)
    structures = tuple(_word(labels[value]) for value in values)
    site = site or _word(str(description.get("name") or folder.name))
    cases = tuple(
        Case(name, name, site, (image.resolve(),), label.resolve(), values)
        for image, label in pairs
        for name in [image.name.removesuffix(".gz").removesuffix(".nii")]
    )
    # MSD keeps all modalities in one 4D file, so the manifest has one image column.
    return cases, ("image",) if len(channels) > 1 else channels, structures


def _word(name: str) -> str:
    """One lower-case word, fit for a metric key, a file name and the manifest."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "unnamed"
