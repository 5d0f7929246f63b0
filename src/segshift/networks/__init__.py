"""Networks behind one contract: logits at input size, in training a list under deep supervision."""

from segshift.networks.comparison import UNetPlusPlus, mednext, segresnet, swin_unetr
from segshift.networks.unet import UNet

__all__ = ["UNet", "UNetPlusPlus", "mednext", "segresnet", "swin_unetr"]
