"""From cases to tensors: preprocessed once, memory-mapped, read as patches or as whole cases."""

from segshift.data.datamodule import CohortDataModule

__all__ = ["CohortDataModule"]
