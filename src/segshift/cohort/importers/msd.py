"""Medical Segmentation Decathlon folders: `dataset.json` lists the pairs."""

import json
from collections.abc import Mapping
from pathlib import Path

from segshift.cohort.annotation import Annotation
from segshift.cohort.case import Case
from segshift.cohort.importers.imported import Imported, word
from segshift.cohort.labelling import Values
from segshift.errors import InputError


def import_msd(
    folder: str | Path, *, site: str | None = None, structures: Mapping[str, Values] | None = None
) -> Imported:
    """Cases, channels and structures of a Medical Segmentation Decathlon folder.

    `dataset.json` lists the training pairs, the modalities and the labels. MSD does not say which
    hospital a case came from, so all get one site: `site`, or the data set's name. `structures`
    (name to value) wins over the labels listed.
    """
    folder = Path(folder)
    path = folder / "dataset.json"
    if not path.is_file():
        raise InputError(f"{path} does not exist; an MSD data set has dataset.json at its top")
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        labels = {int(value): str(name) for value, name in description["labels"].items()}
        pairs = [(folder / e["image"], folder / e["label"]) for e in description["training"]]
        channels = tuple(word(str(name)) for name in description["modality"].values())
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(f"{path} is not an MSD description: {error!r}") from error
    if not pairs:
        raise InputError(f"{path} lists no training cases")
    named: Mapping[str, Values] = structures or {
        word(labels[v]): v for v in sorted(labels) if v != 0
    }
    site = site or word(str(description.get("name") or folder.name))
    values = tuple(named.values())
    cases = tuple(
        Case(name, name, site, (image.resolve(),), Annotation(label.resolve(), values))
        for image, label in pairs
        for name in [image.name.removesuffix(".gz").removesuffix(".nii")]
    )
    # MSD keeps all modalities in one 4D file, so the manifest has one image column.
    return Imported(cases, ("image",) if len(channels) > 1 else channels, tuple(named))
