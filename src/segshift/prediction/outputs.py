"""The output folder: masks, maps, `structures.json`, and a line per case in `predictions.csv`.

A case is done when its mask is there, which is written last, and its line is. Lines of failed cases
do not count, so that they are tried again. A folder holds the predictions of one model.
"""

import csv
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort import Case
from segshift.cohort.images import is_dicom, label_suffix, save_label, save_map, save_segmentation
from segshift.errors import InputError
from segshift.prediction.drafts import Drafts
from segshift.prediction.inputs import written_name
from segshift.tasks import Task

DONE, FAILED = "done", "failed"  # the status of a line
MAPS = {"probability": "probabilities", "entropy": "uncertainty", "disagreement": "uncertainty"}


@dataclass(frozen=True, slots=True)
class Output:
    """Where the predictions of one model go: names of files, and what is already there."""

    folder: Path
    structures: tuple[str, ...]
    exclusive: bool
    kinds: Mapping[str, int]  # of maps, and how many files each has
    table: str = "predictions.csv"

    def masks(self, case: Case) -> dict[Path, int | None]:
        """Mask files, and the one structure that each holds; None for all of them."""
        name, suffix = written_name(case), label_suffix(case.images[0])
        if self.exclusive:
            return {self.folder / f"{name}{suffix}": None}
        return {
            self.folder / f"{name}_{structure}{suffix}": number
            for number, structure in enumerate(self.structures)
        }

    def maps(self, case: Case, kind: str) -> list[Path]:
        """The files of one kind of maps."""
        place = self.folder / MAPS[kind]
        names = self.structures if kind == "probability" else (kind,)
        return [place / f"{written_name(case)}_{name}.nii.gz" for name in names]

    def is_done(self, case: Case, lines: Mapping[str, Any]) -> bool:
        """Whether nothing of the case is left to do, by its files and the table's `lines`."""
        if case.id not in lines:
            return False
        try:
            files = [*self.masks(case), *(f for kind in self.kinds for f in self.maps(case, kind))]
        except InputError:  # the image is no longer there
            return False
        return all(file.is_file() for file in files)

    def save(
        self, case: Case, labels: np.ndarray, *, task: Task, drafts: Drafts, software: str
    ) -> None:
        """Write maps, then the DICOM Segmentation where the input is DICOM, then the mask."""
        like = case.images[0]
        for kind, arrays in drafts.open.items():
            for path, values in zip(self.maps(case, kind), arrays, strict=True):
                save_map(path, values, like=like)
        if is_dicom(like):
            path, masks = self.folder / f"{written_name(case)}.dcm", list(task.predicted(labels))
            save_segmentation(path, masks, names=self.structures, like=like, software=software)
        for path, number in self.masks(case).items():
            mask = labels if number is None else labels >> number & 1
            save_label(path, mask, like=like)

    def columns(self) -> list[str]:
        """Of the table: of the case, then of each structure."""
        each = ("voxels", "volume_ml", "entropy", "predicted_dice")
        parts = [f"{structure}_{name}" for structure in self.structures for name in each]
        return ["case", "status", "seconds", "predicted_dice", *parts, "message"]

    def lines(self) -> dict[str, dict[str, str]]:
        """Lines of cases that are done, of all shards."""
        found: dict[str, dict[str, str]] = {}
        for path in self._tables():
            found |= {line["case"]: line for line in _lines(path) if line.get("status") == DONE}
        return found

    def _tables(self) -> list[Path]:
        """Of all shards."""
        names = ("predictions.csv", "predictions-*-of-*.csv")
        return sorted(path for name in names for path in self.folder.glob(name))

    def forget(self, case: Case) -> None:
        """Remove a case's masks, so that older ones do not pass for this model's."""
        for path in (*self.masks(case), self.folder / f"{written_name(case)}.dcm"):
            path.unlink(missing_ok=True)

    def start(self, model: Mapping[str, Any], *, overwrite: bool) -> dict[str, dict[str, str]]:
        """Take or make the folder for `model`; returns the lines of what it has done there.

        Raises InputError if it holds another model's predictions and `overwrite` is false.
        """
        about = self.folder / "structures.json"
        values = {name: value for value, name in enumerate(self.structures, start=1)}
        content = {"structures": values if self.exclusive else dict.fromkeys(values, 1), **model}
        same = not about.is_file() or _identity(_content(about)) == _identity(content)
        if not same and not overwrite:
            raise InputError(
                f"{self.folder} holds predictions of another model or with other options (see "
                f"{about}); choose another output, or set overwrite=true to replace them"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if not same:
            for table in self._tables():  # or another shard's old lines would count as done
                table.unlink(missing_ok=True)
        _replace(about, json.dumps(content, indent=1) + "\n")
        return self.lines() if same else {}

    def begin(self, kept: Mapping[str, Mapping[str, str]]) -> None:
        """Write this process' table anew, of its own lines those that are `kept`."""
        path = self.folder / self.table
        mine = {line["case"] for line in _lines(path)} if path.is_file() else set()
        with _draft(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(line for name, line in kept.items() if name in mine)
        _draft(path).replace(path)

    def add(self, line: Mapping[str, object]) -> None:
        """Append a case's line to this process' table."""
        with (self.folder / self.table).open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.columns(), restval="", lineterminator="\n").writerow(line)


def measured(
    labels: np.ndarray,
    task: Task,
    *,
    spacing_mm: Sequence[float],
    entropy: Sequence[float],
    predicted_dice: Sequence[float],
) -> dict[str, str]:
    """Columns of the table for a predicted case; what is not defined is empty."""
    values: dict[str, float] = {}
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    for number, mask in enumerate(task.predicted(labels)):
        name, voxels = task.structures[number], int(np.count_nonzero(mask))
        values[f"{name}_voxels"] = voxels
        values[f"{name}_volume_ml"] = voxels * voxel_ml
        values[f"{name}_entropy"] = entropy[number]
        values[f"{name}_predicted_dice"] = predicted_dice[number]
    defined = [value for value in predicted_dice if not math.isnan(value)]
    values["predicted_dice"] = float(np.mean(defined)) if defined else math.nan
    return {name: _written(value) for name, value in values.items()}


def _written(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"


def _content(path: Path) -> Any:  # noqa: ANN401
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON ({error}); remove it") from error


def _identity(content: Any) -> Any:  # noqa: ANN401
    """What a model is, wherever its run lies."""
    whole = isinstance(content, dict)
    return {k: v for k, v in content.items() if k != "checkpoints"} if whole else content


def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _draft(path: Path) -> Path:
    return path.with_name(f".{os.getpid()}.{path.name}")


def _replace(path: Path, text: str) -> None:
    _draft(path).write_text(text, encoding="utf-8")
    _draft(path).replace(path)
