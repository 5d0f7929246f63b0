"""Training cases to Plan: spacing, normalisation, patch, batch and topology. Needs no torch."""

from segshift.plan.content import Normalisation, Plan, View, plan_from_dict
from segshift.plan.making import check_channels, make_plan, resampled_shape
from segshift.plan.normalisation import normalised
from segshift.plan.pooling import ANISOTROPY, topology

__all__ = [
    "ANISOTROPY",
    "Normalisation",
    "Plan",
    "View",
    "check_channels",
    "make_plan",
    "normalised",
    "plan_from_dict",
    "resampled_shape",
    "topology",
]
