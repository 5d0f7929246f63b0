"""The loaders: training patches, and whole cases for validation and every evaluation set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from segshift.data.patches import PatchDataset, class_indices
from segshift.data.stored import SeenCase, StoredCase
from segshift.plan import View
from segshift.splits import SetKey

STAYING = {"sample", "raters", "annotation", "scaled", "second_look"}  # of a batch, on the CPU


class StepSampler(Sampler[int]):
    """Sample numbers of one epoch for one rank; Lightning calls `set_epoch`."""

    def __init__(self, *, samples_per_epoch: int, rank: int, ranks: int) -> None:
        self.samples_per_epoch, self.rank, self.ranks = samples_per_epoch, rank, ranks
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Move on, so that no epoch repeats another's samples."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Every `ranks`-th number of the epoch: together the ranks see each number once."""
        first = self.epoch * self.samples_per_epoch
        return iter(range(first + self.rank, first + self.samples_per_epoch, self.ranks))

    def __len__(self) -> int:
        """This rank's share of an epoch."""
        return len(range(self.rank, self.samples_per_epoch, self.ranks))


@dataclass(frozen=True, slots=True)
class CaseDataset(Dataset[dict[str, Any]]):
    """Whole cases under their shift: `image` (C, D, H, W) on the plan's grid, `label` (1, D, H, W).

    The label is on the case's own grid (D, H, W), which is `shape`; the image is what lies in the
    `box` ((low, high) per axis) of it. `raters` has what others drew there, uint8 (D, H, W) each.
    Where the network finds a case's scale itself, `second_look` gives the image at another one.
    Where `counted` is false the cases only keep a rank in step with the others.
    """

    cases: Sequence[SeenCase]
    counted: bool

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one case whole, with its names and its `spacing` in mm, None where it is unknown."""
        stored = self.cases[index]
        shown = stored.shown()
        label = class_indices(shown.reference)[None]
        return {
            "image": torch.from_numpy(shown.image),
            "label": label.to(torch.int16),  # 2 GB less for a thousand slices of 512 x 512
            "raters": {name: torch.from_numpy(np.array(r)) for name, r in shown.raters.items()},
            "shape": tuple(label.shape[1:]),
            "annotation": stored.case.annotation,
            "annotated": stored.case.annotation.annotated,
            "spacing": stored.spacing_mm(),
            "scaled": shown.scaled,
            "second_look": shown.second_look,
            "box": shown.box,
            "counted": self.counted,
            "case": stored.case.id,
            "patient": stored.case.patient,
            "site": stored.case.site,
        }

    def __len__(self) -> int:
        """The number of cases."""
        return len(self.cases)


class CohortDataModule(L.LightningDataModule):
    """The only place that makes a DataLoader."""

    def __init__(
        self,
        *,
        train: Sequence[StoredCase],
        val: Sequence[StoredCase],
        tests: Mapping[SetKey, Sequence[SeenCase]],
        view: View,
        batch: int,
        steps_per_epoch: int,
        foreground_share: float,
        workers: int,
        seed: int,
        balance: str = "none",
    ) -> None:
        super().__init__()
        self.patches = PatchDataset(train, view, foreground_share, seed, balance)
        self.val, self.tests = val, dict(tests)
        self.batch, self.steps_per_epoch, self.workers = batch, steps_per_epoch, workers

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Batches of `batch` patches per rank."""
        rank, ranks = self._place()
        sampler = StepSampler(
            samples_per_epoch=self.steps_per_epoch * self.batch * ranks, rank=rank, ranks=ranks
        )
        return DataLoader(
            self.patches,
            batch_size=self.batch,
            sampler=sampler,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Whole validation cases, this rank's share."""
        return self._cases(self.val)

    def test_dataloader(self) -> list[DataLoader[dict[str, Any]]]:
        """One loader per evaluation set, in the order of `tests`."""
        return [self._cases(cases) for cases in self.tests.values()]

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Sample numbers stay behind: reading them back would stall the device at every step.

        So does what no network sees, such as what other raters drew.
        """
        stays = {key: batch[key] for key in batch.keys() & STAYING}
        moves = {key: value for key, value in batch.items() if key not in stays}
        return {**super().transfer_batch_to_device(moves, device, dataloader_idx), **stays}

    def _cases(self, cases: Sequence[SeenCase]) -> DataLoader[dict[str, Any]]:
        # Not DistributedSampler: it pads the last batch with cases that would be counted twice.
        # But Lightning needs every rank to have one, so a rank too many gets one for show.
        rank, ranks = self._place()
        own = cases[rank::ranks]
        dataset = CaseDataset(own or cases[:1], counted=len(own) > 0)
        return DataLoader(dataset, batch_size=None, num_workers=0)

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
