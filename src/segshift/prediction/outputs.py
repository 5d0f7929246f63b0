"""The output folder: masks, maps, `structures.json`, and a line per case in `predictions.csv`.

A case is done when its mask is there, which is written last, and its line is, made from the very
files that it has now. Lines of failed cases do not count, so that they are tried again. A folder
holds the predictions of one model.
"""

import csv
import fcntl
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segshift.cohort import Case
from segshift.cohort.images import (
    is_dicom,
    label_suffix,
    save_label,
    save_map,
    save_segmentation,
)
from segshift.errors import InputError
from segshift.prediction.drafts import Drafts, remove_orphans
from segshift.prediction.inputs import PROBABILITIES, UNCERTAINTY, input_key, written_name
from segshift.results.drafts import drafted, write_whole
from segshift.tasks import Task
from segshift.units import EVERY, Grid

DONE, FAILED = "done", "failed"  # the status of a line
SIZES = tuple(units.size_name for units in EVERY if units.known)  # physical ones
ABOUT, LOCK = "structures.json", "predictions.lock"
MAPS = {"probability": PROBABILITIES, "entropy": UNCERTAINTY, "disagreement": UNCERTAINTY}


@dataclass(frozen=True, slots=True)
class Output:
    """Where the predictions of one model go: names of files, and what is already there."""

    folder: Path
    structures: tuple[str, ...]
    exclusive: bool
    kinds: Mapping[str, int]  # of maps, and how many files each has
    table: str = "predictions.csv"
    scales: int = 0  # that a case gets, one for each group of networks; 0 where pixels count

    def masks(self, case: Case) -> dict[Path, int | None]:
        """Mask files, and the one structure that each holds; None for all of them."""
        name, suffix = written_name(case.id), label_suffix(case.images[0])
        if self.exclusive:
            return {self.folder / f"{name}{suffix}": None}
        return {
            self.folder / f"{name}_{structure}{suffix}": number
            for number, structure in enumerate(self.structures)
        }

    def segmentation(self, case: Case) -> list[Path]:
        """The DICOM Segmentation, where the input is DICOM."""
        dicom = is_dicom(case.images[0])
        return [self.folder / f"{written_name(case.id)}.dcm"] if dicom else []

    def maps(self, case: Case, kind: str) -> list[Path]:
        """The files of one kind of maps."""
        return self._maps(case.id, kind, self.structures)

    def mask_names(self, case: Case) -> str:
        """Column `masks` of a case's line: names of files, apart by what no name can hold."""
        return "/".join(path.name for path in (*self.masks(case), *self.segmentation(case)))

    def is_done(self, case: Case, line: Mapping[str, str] | None) -> bool:
        """Whether nothing of the case is left to do, by its files and its line in the table."""
        key = input_key(case)
        if line is None or not key or line.get("input") != key:
            return False
        try:
            files = [*self.masks(case), *(f for kind in self.kinds for f in self.maps(case, kind))]
        except InputError:  # the image is no longer there
            return False
        return all(file.is_file() for file in files)

    def save(
        self, case: Case, labels: np.ndarray, *, task: Task, drafts: Drafts, software: str
    ) -> None:
        """Write maps, then the DICOM Segmentation, then the mask."""
        like = case.images[0]
        for kind, arrays in drafts.open.items():
            for path, values in zip(self.maps(case, kind), arrays, strict=True):
                save_map(path, values, like=like)
        for path in self.segmentation(case):
            masks = task.predicted(labels)
            save_segmentation(path, masks, names=self.structures, like=like, software=software)
        for path, number in self.masks(case).items():
            mask = labels if number is None else labels >> number & 1
            save_label(path, mask, like=like)

    def columns(self, lines: Iterable[Mapping[str, object]]) -> list[str]:
        """Of a table of these lines: of the case, then of each structure.

        Columns of physical sizes are there if a line has a value.
        """
        measured = {name for line in lines for name, value in line.items() if value}
        each = ("voxels", *SIZES, "entropy", "predicted_dice")
        parts = [
            f"{structure}_{name}"
            for structure in self.structures
            for name in each
            if name not in SIZES or f"{structure}_{name}" in measured
        ]
        scales = [name for pair in self.scale_columns() for name in pair]
        first = ["case", "status", "seconds", *scales, "predicted_dice"]
        return [*first, *parts, "masks", "input", "message"]

    def scale_columns(self) -> list[tuple[str, str]]:
        """Of the table, for each scale of a case: its factor, and who says so."""
        ends = [f"_{number}" for number in range(1, self.scales + 1)] if self.scales > 1 else [""]
        return [(f"scale{end}", f"scale_from{end}") for end in ends[: self.scales]]

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

    def forget(self, line: Mapping[str, str]) -> None:
        """Remove the masks that a line names, and its maps, so that they pass for no other's.

        Nothing else: a file of like name may be somebody's.
        """
        names = (line.get("masks") or "").split("/")
        files = [self.folder / name for name in names if name]
        structures = [name.removesuffix("_voxels") for name in line if name.endswith("_voxels")]
        self._remove(files, line["case"], structures)

    def forget_failed(self, case: Case) -> None:
        """Remove what writing the case would have replaced."""
        self._remove(self._files(case), case.id, self.structures)

    def _files(self, case: Case) -> list[Path]:
        """Masks in all formats; none where nothing tells the format of the image."""
        try:
            return [*self.masks(case), *self.segmentation(case)]
        except InputError:
            return []

    def _remove(self, masks: Iterable[Path], case: str, structures: Sequence[str]) -> None:
        maps = (path for kind in MAPS for path in self._maps(case, kind, structures))
        for path in (*masks, *maps):
            path.unlink(missing_ok=True)

    def _maps(self, case: str, kind: str, structures: Sequence[str]) -> list[Path]:
        place = self.folder / MAPS[kind]
        names = structures if kind == "probability" else (kind,)
        return [place / f"{written_name(case)}_{name}.nii.gz" for name in names]

    def check_free(self, cases: Iterable[Case]) -> None:
        """Refuse a folder without predictions where a file has the name of a case's mask.

        It is somebody's, such as a manual label. Raises InputError.
        """
        there = [path for case in cases for path in self._files(case) if path.exists()]
        known = (self.folder / ABOUT).is_file() or bool(self._tables())
        if there and not known:
            raise InputError(
                f"{there[0]} is there, and no prediction of {self.folder} made it; name another "
                "output folder"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's tables and model, which the processes of several shards change."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("a", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # free again when the process ends, however it ends
            yield

    def start(self, model: Mapping[str, Any], *, overwrite: bool) -> dict[str, dict[str, str]]:
        """Take or make the folder for `model`; returns the lines of what it has done there.

        Of another model, or of one that nothing tells, no line stays, nor a mask or map of one.
        Call it and `begin` while the folder is `locked`. Raises InputError if there is such a model
        and `overwrite` is false.
        """
        about = self.folder / ABOUT
        values = {name: value for value, name in enumerate(self.structures, start=1)}
        content = {"structures": values if self.exclusive else dict.fromkeys(values, 1), **model}
        known = about.is_file()
        same = known and _identity(_content(about)) == _identity(content)
        foreign = not same and (known or bool(self._tables()))
        if foreign and not overwrite:
            raise InputError(
                f"{self.folder} holds predictions of another model or with other options (see "
                f"{about}); choose another output, or set overwrite=true to replace them"
            )
        remove_orphans(self.folder)
        if foreign:
            for table in self._tables():
                for line in _lines(table):
                    self.forget(line)
                table.unlink()
        write_whole(about, json.dumps(content, indent=1) + "\n")
        return self.lines()

    def begin(self, left: Collection[str]) -> None:
        """Take the lines of the cases that are `left` out of all tables, and begin this process'.

        Of its own lines those of failed cases go too: a case that is not there cannot be tried.
        """
        own = self.folder / self.table
        for path in {own, *self._tables()}:
            before = _lines(path) if path.is_file() else []
            after = [line for line in before if line["case"] not in left]
            if path == own:
                after = [line for line in after if line["status"] == DONE]
            if path == own or len(after) < len(before):
                self._write(path, after)

    def _write(self, path: Path, lines: Sequence[Mapping[str, object]]) -> None:
        with drafted(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns(lines), restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)

    def add(self, line: Mapping[str, object]) -> None:
        """Append a case's line to this process' table, which gets the columns that it needs."""
        table = self.folder / self.table
        with self.locked():
            with table.open(newline="", encoding="utf-8") as file:
                columns = next(csv.reader(file))
            if not line.keys() <= set(columns):
                self._write(table, [*_lines(table), line])
                return
            with table.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, columns, restval="", lineterminator="\n").writerow(line)


def measured(
    labels: np.ndarray,
    task: Task,
    *,
    spacing_mm: Sequence[float] | None,
    entropy: Sequence[float],
    predicted_dice: Sequence[float],
) -> dict[str, str]:
    """Columns of the table for a predicted case; what is not defined is empty.

    Without a spacing the number of voxels is all there is to tell of a size.
    """
    values: dict[str, float] = {}
    grid = Grid(labels.shape, spacing_mm)
    size = grid.units.size_name
    for number, mask in enumerate(task.predicted(labels)):
        name, voxels = task.structures[number], int(np.count_nonzero(mask))
        values[f"{name}_voxels"] = voxels
        if size in SIZES:
            values[f"{name}_{size}"] = grid.size(voxels)
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
