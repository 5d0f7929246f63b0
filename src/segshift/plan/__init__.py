"""Training cases to Plan: spacing, normalisation, patch, batch and topology. Needs no torch."""

from segshift.plan.content import Normalisation, Plan, View, plan_from_dict
from segshift.plan.cropping import (
    Box,
    body,
    box_shape,
    box_slices,
    crop_box,
    read_box,
)
from segshift.plan.making import check_channels, check_voxels, make_plan, resampled_shape
from segshift.plan.normalisation import normalised
from segshift.plan.pooling import ANISOTROPY, topology
from segshift.plan.sizes import sizes_told

__all__ = [
    "ANISOTROPY",
    "Box",
    "Normalisation",
    "Plan",
    "View",
    "body",
    "box_shape",
    "box_slices",
    "check_channels",
    "check_voxels",
    "crop_box",
    "make_plan",
    "normalised",
    "plan_from_dict",
    "read_box",
    "resampled_shape",
    "sizes_told",
    "topology",
]
