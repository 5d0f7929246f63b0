"""What a MONAI bundle needs beside MONAI's own operators, to give the labels that the run gives.

MONAI's `Spacingd` moves voxel centres for some affines and rounds shapes in another way, nothing of
its own resamples as nnU-Net or finds the body, and its sliding windows end at other places.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import InvertibleTransform, MapTransform
from monai.transforms.utils import scale_affine
from torch import nn
from torch.nn import functional

from segshift.data.preprocessing import preprocessed_image
from segshift.inference import predict_case
from segshift.plan import View, plan_from_dict


class OntoPlan(MapTransform, InvertibleTransform):
    """A cropped image (C, D, H, W) in z, y, x of RAS to the plan's grid and scale.

    The inverse interpolates (K, D, H, W) on the plan's grid linearly to the cropped image's grid.
    """

    def __init__(self, keys: Any, plan: Mapping[str, Any]) -> None:  # noqa: ANN401
        super().__init__(keys)
        self.plan = replace(plan_from_dict(plan), crop="none")  # `CropForegroundd` comes before

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item with its images prepared."""
        items = dict(data)
        for key in self.key_iterator(items):
            image: MetaTensor = items[key]
            size = tuple(image.shape[1:])
            ready, _ = preprocessed_image(
                image.numpy(), self.plan, spacing_mm=tuple(image.pixdim.tolist())
            )
            result = MetaTensor(torch.from_numpy(ready)).copy_meta_from(image)
            items[key] = self.push_transform(
                result, orig_size=size, affine=scale_affine(size, ready.shape[1:])
            )
        return items

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The item on the grids that its images had before."""
        items = dict(data)
        for key in self.key_iterator(items):
            size = tuple(int(edge) for edge in self.pop_transform(items, key)["orig_size"])
            now: MetaTensor = items[key]
            if tuple(now.shape[1:]) == size:
                continue
            values = functional.interpolate(now.as_tensor()[None], size, mode="trilinear")[0]
            items[key] = MetaTensor(values).copy_meta_from(now)
            items[key].affine = now.affine @ torch.as_tensor(
                scale_affine(now.shape[1:], size), dtype=now.affine.dtype
            )
        return items


class PlanInferer(Inferer):
    """Images (B, C, D, H, W) on the plan's grid to what the network gives, (B, K, D, H, W).

    Windows, their weights and, in 2.5D, the neighbouring slices are the run's.
    """

    def __init__(
        self,
        patch: Sequence[int],
        *,
        context: int,
        overlap: float,
        mirror_axes: Sequence[int],
        exclusive: bool,
    ) -> None:
        super().__init__()
        self.view = View(tuple(patch), context)
        self.options = {
            "overlap": overlap, "mirror_axes": tuple(mirror_axes), "exclusive": exclusive,
        }  # fmt: skip

    def __call__(
        self,
        inputs: torch.Tensor,
        network: nn.Module,
        *_: Any,  # noqa: ANN401
        **__: Any,  # noqa: ANN401
    ) -> torch.Tensor:
        """Probabilities, if the network ends with its activation."""
        cases = (
            predict_case(network, image, self.view, activation=torch.nn.Identity(), **self.options)
            for image in _plain(inputs)
        )
        output = torch.stack(list(cases))
        # `Invertd` passes over plain tensors without an error.
        return (
            MetaTensor(output).copy_meta_from(inputs) if isinstance(inputs, MetaTensor) else output
        )


def _plain(images: torch.Tensor) -> torch.Tensor:
    return images.as_tensor() if isinstance(images, MetaTensor) else images
