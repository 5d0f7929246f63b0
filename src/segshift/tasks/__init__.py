"""What the network's output means: channels, targets, losses, decoding and metrics of a task."""

from segshift.tasks.semantic import Semantic
from segshift.tasks.task import Score, Task

__all__ = ["Score", "Semantic", "Task"]
