"""The contract of every network: any input size, logits at that size, a list in deep supervision.

Networks that pool need sizes that divide; these functions append zeros at the end of every axis and
take the same voxels off the logits again.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

Output = torch.Tensor | list[torch.Tensor]


def padded(image: torch.Tensor, multiple: Sequence[int]) -> torch.Tensor:
    """(B, C, *S) with zeros at the end of each axis, up to the next multiple.

    At least two voxels are left at the coarsest resolution: one has no variance to normalise by.
    """
    size = image.shape[2:]
    target = [-(-n // m) * m for n, m in zip(size, multiple, strict=True)]
    if target == list(multiple):
        target[-1] *= 2
    missing = [t - n for t, n in zip(target, size, strict=True)]
    if not any(missing):
        return image
    return functional.pad(image, [edge for n in reversed(missing) for edge in (0, n)])


def cropped(logits: torch.Tensor, *, size: torch.Size, padded_size: torch.Size) -> torch.Tensor:
    """Logits (B, K, *S) of a padded image, cut to the image's size, rounded up if coarser."""
    if size == padded_size:
        return logits
    strides = [whole // n for whole, n in zip(padded_size, logits.shape[2:], strict=True)]
    for axis, (n, stride) in enumerate(zip(size, strides, strict=True), start=2):
        logits = logits.narrow(axis, 0, -(-n // stride))
    return logits


class AnySize(nn.Module):
    """A network with outputs finest first behind the contract.

    `multiple` is what each edge must be divisible by; `network` gives one tensor of logits, or a
    sequence of them in training.
    """

    def __init__(self, network: nn.Module, *, multiple: Sequence[int]) -> None:
        super().__init__()
        self.network, self.multiple = network, tuple(multiple)

    def forward(self, image: torch.Tensor) -> Output:
        """Logits (B, K, *S), or in deeply supervised training a list of ever coarser ones."""
        whole = padded(image, self.multiple)
        output = self.network(whole)
        sizes = {"size": image.shape[2:], "padded_size": whole.shape[2:]}
        if isinstance(output, torch.Tensor):
            return cropped(output, **sizes)
        return [cropped(logits, **sizes) for logits in output]
