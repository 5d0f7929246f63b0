"""What the network's output means: channels, targets, losses, decoding and metrics of a task."""

from segshift.tasks.raters import rater_scores
from segshift.tasks.regions import Regions
from segshift.tasks.semantic import Semantic
from segshift.tasks.tally import TALLIED, Tally
from segshift.tasks.task import Score, Task

__all__ = ["TALLIED", "Regions", "Score", "Semantic", "Tally", "Task", "rater_scores"]
