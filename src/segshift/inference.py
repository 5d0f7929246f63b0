"""Prediction of a whole case: one function for 2D, 2.5D and 3D views."""

from collections.abc import Callable

import torch
from monai.inferers import sliding_window_inference
from torch import nn

from segshift.plan import View


def predict_case(
    network: nn.Module,
    image: torch.Tensor,
    view: View,
    *,
    activation: Callable[[torch.Tensor], torch.Tensor],
    overlap: float = 0.5,
    window_batch: int = 8,
) -> torch.Tensor:
    """Activated output (K, D, H, W), float32, for an image (C, D, H, W) on the plan's grid.

    Windows of the training patch's size overlap by `overlap` and are averaged with Gaussian weights
    (Isensee et al. 2021). In 2D and 2.5D every slice is predicted.
    """

    def activated(windows: torch.Tensor) -> torch.Tensor:
        return activation(network(windows).float())

    windows = image[None] if view.dimensions == 3 else slabs(image, view.context)
    result = torch.cat(
        [
            sliding_window_inference(
                part,
                roi_size=view.patch,
                sw_batch_size=window_batch,
                predictor=activated,
                overlap=overlap,
                mode="gaussian",
            )
            for part in torch.split(windows, window_batch)
        ]
    )
    return result[0] if view.dimensions == 3 else result.transpose(0, 1)


def slabs(image: torch.Tensor, context: int) -> torch.Tensor:
    """Every slice of (C, D, H, W) with its neighbours as channels: (D, C (2 context + 1), H, W).

    The channels of one image channel lie together; the end slices are repeated beyond the ends.
    """
    channels, depth, height, width = image.shape
    offsets = torch.arange(-context, context + 1, device=image.device)
    index = (torch.arange(depth, device=image.device)[:, None] + offsets).clamp(0, depth - 1)
    slab = image[:, index]  # (C, D, 2 context + 1, H, W)
    return slab.transpose(0, 1).reshape(depth, channels * len(offsets), height, width)
