"""Training cases to Plan: spacing, normalisation, patch, batch and topology. Needs no torch."""

from segshift.plan.content import (
    FIELD_OF_VIEW,
    OBJECT,
    Normalisation,
    Plan,
    Scale,
    View,
    plan_from_dict,
)
from segshift.plan.cropping import (
    Box,
    body,
    box_shape,
    box_slices,
    crop_box,
    read_box,
)
from segshift.plan.making import check_cases, check_channels, check_voxels, make_plan
from segshift.plan.normalisation import normalised
from segshift.plan.pooling import ANISOTROPY, topology
from segshift.plan.scale import (
    UNSCALED,
    Scaled,
    check_unsized,
    first_scaled,
    object_px,
    scaled_by_prediction,
    scaled_by_reference,
)
from segshift.plan.sizes import resampled_shape
from segshift.plan.unknown_sizes import sizes_told

__all__ = [
    "ANISOTROPY",
    "FIELD_OF_VIEW",
    "OBJECT",
    "UNSCALED",
    "Box",
    "Normalisation",
    "Plan",
    "Scale",
    "Scaled",
    "View",
    "body",
    "box_shape",
    "box_slices",
    "check_cases",
    "check_channels",
    "check_unsized",
    "check_voxels",
    "crop_box",
    "first_scaled",
    "make_plan",
    "normalised",
    "object_px",
    "plan_from_dict",
    "read_box",
    "resampled_shape",
    "scaled_by_prediction",
    "scaled_by_reference",
    "sizes_told",
    "topology",
]
