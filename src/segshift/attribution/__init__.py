"""Which shift is it? Covariate, prevalence or concept, for each target site of a run."""

from segshift.attribution.answers import attributed
from segshift.attribution.procedure import attribute, has_target

__all__ = ["attribute", "attributed", "has_target"]
