"""The U-Net of which all others here are options: plain, residual, with attention, max-pooled.

With the defaults it is nnU-Net's plain U-Net, and to the bit MONAI's DynUNet: the same modules made
in the same order from the same random numbers (Isensee et al., Nature Methods 18, 2021).
"""

import math
from collections.abc import Sequence

import torch
from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, UnetResBlock
from monai.networks.layers.utils import get_norm_layer
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn

from segshift.errors import InputError
from segshift.networks.contract import Output, cropped, padded
from segshift.networks.options import DOWNSAMPLES, NORMS, SKIPS, UPSAMPLES, Stride, chosen

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class UNet(nn.Module):
    """Encoder and decoder in 2D or 3D; `strides` and `kernels` come from the plan, one per stage.

    `filters` and `blocks` (of two convolutions, in the encoder; one each if not given) are cut to
    the number of stages. `attention` weighs skip connections by Oktay et al. (2018), `residual` is
    the encoder's. Input (B, in_channels, *S) of any size, output (B, out_channels, *S).
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        strides: Sequence[Sequence[int]],
        kernels: Sequence[Sequence[int]],
        filters: Sequence[int],
        blocks: Sequence[int] | None = None,
        residual: bool = False,
        attention: bool = False,
        norm: str = "instance",
        downsample: str = "strided",
        upsample: str = "transposed",
        skip: str = "concat",
        dropout: float = 0.0,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        stages, dimensions = len(strides), len(strides[0])
        _check(filters=filters, blocks=blocks, stages=stages)
        if not 0 <= dropout < 1:
            raise InputError(f"model.dropout={dropout}: a probability from 0 to below 1")
        if attention and skip == "none":
            raise InputError(
                "model.attention=true weighs skip connections; model.skip=none has none"
            )
        blocks = blocks or [1] * stages
        self.deep_supervision = deep_supervision
        self.multiple = tuple(math.prod(axis) for axis in zip(*strides, strict=True))
        self.encoder = nn.ModuleList(
            _encoder_stage(
                filters[stage - 1] if stage else in_channels, filters[stage],
                kernel=kernels[stage], stride=tuple(strides[stage]), blocks=blocks[stage],
                residual=residual, norm=norm, downsample=downsample, dropout=dropout,
            )
            for stage in range(stages)
        )  # fmt: skip
        self.decoder = nn.ModuleList(
            UpStage(
                filters[stage], filters[stage + 1],
                kernel=kernels[stage + 1], stride=tuple(strides[stage + 1]), attention=attention,
                norm=norm, upsample=upsample, skip=skip, dropout=dropout,
            )
            for stage in reversed(range(stages - 1))
        )  # fmt: skip
        self.head = UnetOutBlock(dimensions, filters[0], out_channels)
        torch.rand(1)  # DynUNet draws one here; without, a seed would give other weights
        # The coarsest two resolutions get no head, as in nnU-Net.
        most = min(max(stages - 3, 1), stages - 2)  # below three stages there is none
        coarse = range(1, most + 1) if deep_supervision else ()
        self.coarse_heads = nn.ModuleList(
            UnetOutBlock(dimensions, filters[stage], out_channels) for stage in coarse
        )
        self.apply(_initialise)

    def forward(self, image: torch.Tensor) -> Output:
        """Logits (B, K, *S), or in deeply supervised training a list of ever coarser ones."""
        features = whole = padded(image, self.multiple)
        skips = []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        levels: list[torch.Tensor] = []
        for stage, skip in zip(self.decoder, reversed(skips[:-1]), strict=True):
            features = stage(features, skip)
            levels.append(features)
        sizes = {"size": image.shape[2:], "padded_size": whole.shape[2:]}
        logits = cropped(self.head(features), **sizes)
        if not (self.training and self.deep_supervision):
            return logits
        coarse = levels[-2::-1][: len(self.coarse_heads)]
        heads = zip(self.coarse_heads, coarse, strict=True)
        return [logits, *(cropped(head(level), **sizes) for head, level in heads)]


class UpStage(nn.Module):
    """Upsample, join with the skip connection, two convolutions."""

    def __init__(
        self,
        channels: int,
        coarse_channels: int,
        *,
        kernel: Sequence[int],
        stride: Stride,
        attention: bool,
        norm: str,
        upsample: str,
        skip: str,
        dropout: float,
    ) -> None:
        super().__init__()
        times, self.merge = chosen(SKIPS, skip, key="model.skip")
        layer = chosen(NORMS, norm, key="model.norm")
        self.upsample = chosen(UPSAMPLES, upsample, key="model.upsample")(
            channels, coarse_channels, stride
        )
        self.block = UnetBasicBlock(
            len(stride), times * channels, channels, kernel, 1, layer(channels),
            dropout=dropout or None,
        )  # fmt: skip
        self.gate = _gate(len(stride), channels, norm=norm) if attention else None

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """(B, C, *S) from coarser features (B, C', *S / stride) and the encoder's (B, C, *S)."""
        upsampled = self.upsample(coarse)
        if self.gate is not None:
            skip = self.gate(upsampled, skip)
        return self.block(self.merge(upsampled, skip))  # type: ignore[no-any-return]


def _encoder_stage(
    in_channels: int,
    channels: int,
    *,
    kernel: Sequence[int],
    stride: Stride,
    blocks: int,
    residual: bool,
    norm: str,
    downsample: str,
    dropout: float,
) -> nn.Sequential:
    pool = chosen(DOWNSAMPLES, downsample, key="model.downsample")
    make = UnetResBlock if residual else UnetBasicBlock
    layer = chosen(NORMS, norm, key="model.norm")(channels)
    layers: list[nn.Module] = []
    if pool and max(stride) > 1:
        layers, stride = [pool(stride)], (1,) * len(stride)
    for block in range(blocks):
        first, plain = (in_channels, stride), (channels, 1)
        before, step = plain if block else first
        layers.append(
            make(len(stride), before, channels, kernel, step, layer, dropout=dropout or None)
        )
    return nn.Sequential(*layers)


def _gate(dimensions: int, channels: int, *, norm: str) -> nn.Module:
    inner = max(channels // 2, 1)
    gate = AttentionBlock(dimensions, f_int=inner, f_g=channels, f_l=channels)
    # MONAI's gate always has batch norm; `model.norm` shall mean the whole network.
    for layers, width in ((gate.W_g, inner), (gate.W_x, inner), (gate.psi, 1)):
        layers[1] = get_norm_layer(NORMS[norm](width), dimensions, width)
    return gate  # type: ignore[no-any-return]


def _check(*, filters: Sequence[int], blocks: Sequence[int] | None, stages: int) -> None:
    for name, values in (("filters", filters), ("blocks", blocks)):
        if values is not None and len(values) < stages:
            raise InputError(
                f"model.{name}={list(values)} has {len(values)} stages, "
                f"but the plan pools to {stages}; give one number per stage"
            )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, CONVOLUTIONS):
        nn.init.kaiming_normal_(module.weight, a=0.01)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
