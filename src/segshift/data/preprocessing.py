"""An image as the network sees it: cropped, on the plan's grid, on the network's scale.

What training stores and what is predicted go through the same function, so they cannot differ.
"""

from collections.abc import Sequence

import numpy as np

from segshift.data.resample import resampled_image, resampled_label
from segshift.plan import (
    UNSCALED,
    Box,
    Plan,
    Scaled,
    body,
    box_shape,
    box_slices,
    crop_box,
    normalised,
    resampled_shape,
)


def preprocessed_image(
    image: np.ndarray,
    plan: Plan,
    *,
    spacing_mm: Sequence[float] | None,
    scaled: Scaled = UNSCALED,
) -> tuple[np.ndarray, Box]:
    """Float32 (C, D', H', W') for an image (C, D, H, W), and the box of its grid that it shows.

    Without a known spacing it is None: see `Plan.edges_of`. `scaled` is what its pixels then count.
    """
    box = crop_box(image, crop=plan.crop)
    image = image[:, *box_slices(box)]
    edges = scaled.edges(plan.edges_of(spacing_mm))
    shape = resampled_shape(box_shape(box), edges, plan.spacing_mm)
    finer = resampled_image(
        image,
        shape,
        interpolation=plan.interpolation,
        spacing_mm=edges,
        target_mm=plan.spacing_mm,
    )
    inside = resampled_label(body(image).astype(np.uint8), shape) > 0 if _masks(plan) else None
    return normalised(finer, plan.normalisation, inside=inside), box


def left_out(image: np.ndarray, plan: Plan) -> np.ndarray:
    """Mask (D, H, W) of the zeros of an image (C, D, H, W) that the plan takes for no part of it.

    They lie around the body where the plan normalises the body alone, else around the box.
    """
    outside = np.ones(image.shape[1:], dtype=bool)
    place = box_slices(crop_box(image, crop=plan.crop))
    # In the box alone, since no hole in the body reaches out of it: quicker by what is around it.
    outside[place] = ~body(image[:, *place]) if _masks(plan) else False
    return outside


def _masks(plan: Plan) -> bool:
    return any(rule.nonzero for rule in plan.normalisation)
