"""Networks behind one contract: logits at input size, in training a list under deep supervision."""

from segshift.networks.comparison import UNetPlusPlus, mednext, segresnet, swin_unetr
from segshift.networks.small_maps import exact_on_small_maps
from segshift.networks.unet import UNet

__all__ = [
    "UNet",
    "UNetPlusPlus",
    "exact_on_small_maps",
    "mednext",
    "segresnet",
    "swin_unetr",
]
