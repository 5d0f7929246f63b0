"""What the network's output means: channels, targets, losses, decoding and metrics of a task."""

from segshift.tasks.regions import Regions
from segshift.tasks.semantic import Semantic
from segshift.tasks.task import Score, Task

__all__ = ["Regions", "Score", "Semantic", "Task"]
