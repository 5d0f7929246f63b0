"""From cases to tensors: preprocessed once, memory-mapped, read as patches or as whole cases."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segshift.data.datamodule import CohortDataModule

__all__ = ["CohortDataModule"]


def __getattr__(name: str) -> Any:  # noqa: ANN401
    # Late, because Lightning takes seconds to import and cleaning the store needs none of it.
    if name == "CohortDataModule":
        from segshift.data.datamodule import CohortDataModule

        return CohortDataModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
