"""U-Nets over MONAI: logits at input size; a list, finest first, under deep supervision."""

from collections.abc import Sequence

import torch
from monai.networks.nets import DynUNet
from torch import nn

from segshift.errors import InputError


class UNet(nn.Module):
    """nnU-Net's plain or residual U-Net (MONAI's DynUNet), in 2D or 3D.

    `strides` and `kernels` have one entry per stage and come from the plan; `filters` is cut to the
    number of stages. Input (B, in_channels, *S), output (B, out_channels, *S); every edge of S must
    be a multiple of the product of its strides.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        strides: Sequence[Sequence[int]],
        kernels: Sequence[Sequence[int]],
        filters: Sequence[int],
        residual: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        if len(filters) < len(strides):
            raise InputError(
                f"model.filters={list(filters)} has {len(filters)} stages, "
                f"but the plan pools to {len(strides)}; give one number per stage"
            )
        self.deep_supervision = deep_supervision
        self.network = DynUNet(
            spatial_dims=len(strides[0]),
            in_channels=in_channels,
            out_channels=out_channels,
            kernel_size=[list(kernel) for kernel in kernels],
            strides=[list(stride) for stride in strides],
            upsample_kernel_size=[list(stride) for stride in strides[1:]],
            filters=list(filters[: len(strides)]),
            res_block=residual,
            deep_supervision=deep_supervision,
            # The coarsest two resolutions get no head, as in nnU-Net.
            deep_supr_num=max(len(strides) - 3, 1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Logits (B, K, *S), or in deeply supervised training a list of ever coarser ones."""
        if not (self.training and self.deep_supervision):
            return self.network(image)  # type: ignore[no-any-return]
        # DynUNet would interpolate every head to full size; the loss is cheaper on coarse ones.
        finest = self.network.output_block(self.network.skip_layers(image))
        return [finest, *self.network.heads]
