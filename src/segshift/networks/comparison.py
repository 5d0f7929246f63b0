"""Networks of other designs, from MONAI, behind the contract of our U-Nets.

They pool as their authors fixed it. Only SegResNet follows the spacing; the others halve every axis
as often, whatever its spacing, so that a patch of few slices is padded a lot.
"""

import math
from collections.abc import Sequence

import torch
from monai.networks.nets import BasicUNetPlusPlus, MedNeXt, SegResNetDS, SwinUNETR
from torch import nn

from segshift.networks.contract import AnySize, Output, cropped, padded
from segshift.networks.options import NORMS, chosen


def segresnet(
    *,
    dimensions: int,
    in_channels: int,
    out_channels: int,
    spacing_mm: Sequence[float],
    filters: int,
    blocks: Sequence[int],
    norm: str,
    deep_supervision: bool,
) -> AnySize:
    """SegResNet without its autoencoder (Myronenko 2018), as MONAI's Auto3DSeg uses it.

    `blocks` has one number per stage; coarse axes of `spacing_mm` (z, y, x) are pooled later.
    """
    network = SegResNetDS(
        dimensions,
        init_filters=filters,
        in_channels=in_channels,
        out_channels=out_channels,
        norm=chosen(NORMS, norm, key="model.norm")(filters),
        blocks_down=tuple(blocks),
        # As in our U-Nets the coarsest two resolutions get no head.
        dsdepth=max(len(blocks) - 2, 2) if deep_supervision else 1,
        resolution=tuple(spacing_mm[-dimensions:]),
    )
    return AnySize(network, multiple=[int(n) for n in network.shape_factor()])


def mednext(
    *,
    dimensions: int,
    in_channels: int,
    out_channels: int,
    filters: int,
    blocks: Sequence[int],
    expansion: Sequence[int],
    kernel: int,
    deep_supervision: bool,
) -> AnySize:
    """MedNeXt (Roy et al. 2023): depthwise convolutions; under supervision a head on every stage.

    `blocks` and `expansion` have one number per stage of the encoder, the coarsest last; the
    decoder mirrors them.
    """
    network = MedNeXt(
        dimensions,
        init_filters=filters,
        in_channels=in_channels,
        out_channels=out_channels,
        encoder_expansion_ratio=list(expansion[:-1]),
        bottleneck_expansion_ratio=expansion[-1],
        decoder_expansion_ratio=list(expansion[-2::-1]),
        kernel_size=kernel,
        deep_supervision=deep_supervision,
        use_residual_connection=True,
        blocks_down=list(blocks[:-1]),
        blocks_bottleneck=blocks[-1],
        blocks_up=list(blocks[-2::-1]),
    )
    return AnySize(network, multiple=[2 ** (len(blocks) - 1)] * dimensions)


def swin_unetr(
    *,
    dimensions: int,
    in_channels: int,
    out_channels: int,
    filters: int,
    blocks: Sequence[int],
    heads: Sequence[int],
    window: int,
    dropout: float,
) -> AnySize:
    """Swin UNETR (Hatamizadeh et al. 2022): an encoder of windowed attention.

    `filters` is a multiple of 12; `blocks` and attention `heads` have four numbers, one per stage;
    `window` is in tokens of two voxels.
    """
    network = SwinUNETR(
        in_channels,
        out_channels,
        depths=list(blocks),
        num_heads=list(heads),
        window_size=window,
        feature_size=filters,
        drop_rate=dropout,
        spatial_dims=dimensions,
    )
    return AnySize(network, multiple=[32] * dimensions)


class UNetPlusPlus(nn.Module):
    """U-Net++ (Zhou et al. 2018): dense nodes between encoder and decoder, all axes pooled alike.

    `filters` has six numbers: five stages and the last node. Its heads are all at full size, the
    deepest first in the list; MONAI's would leave three without a gradient when not supervised.
    """

    def __init__(
        self,
        *,
        dimensions: int,
        in_channels: int,
        out_channels: int,
        filters: Sequence[int],
        norm: str,
        dropout: float,
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.deep_supervision = deep_supervision
        self.multiple = [16] * dimensions
        self.network = BasicUNetPlusPlus(
            dimensions,
            in_channels,
            out_channels,
            features=tuple(filters),
            norm=chosen(NORMS, norm, key="model.norm")(math.gcd(*filters)),
            dropout=dropout,
            deep_supervision=deep_supervision,
        )
        if not deep_supervision:
            for node in ("0_1", "0_2", "0_3"):
                setattr(self.network, f"final_conv_{node}", nn.Identity())

    def forward(self, image: torch.Tensor) -> Output:
        """Logits (B, K, *S), or in deeply supervised training those of all nodes."""
        whole = padded(image, self.multiple)
        sizes = {"size": image.shape[2:], "padded_size": whole.shape[2:]}
        deepest_first = [cropped(logits, **sizes) for logits in reversed(self.network(whole))]
        return deepest_first if self.training and self.deep_supervision else deepest_first[0]
