"""Signed distances to a structure's boundary, in mm, exact and anisotropic."""

from collections.abc import Sequence

import edt
import numpy as np
import torch
from torch import Tensor


def signed_distance_mm(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """The distance (B, K, *S) float32 from each voxel of a bool mask (B, K, *S) to the boundary.

    Negative inside. It is measured between centres, to the nearest voxel on the other side, so it
    is never 0 and a mask's complement has the same distances with the other sign. (Kervadec's code
    shifts the inside by 1 voxel, which has no meaning in mm.) Where there is no boundary it is inf:
    positive for an absent structure, negative for one that fills its patch.
    """
    assert mask.dtype == torch.bool, f"the mask is bool, not {mask.dtype}"
    assert len(spacing_mm) == mask.ndim - 2, f"{len(spacing_mm)} spacings for {tuple(mask.shape)}"
    if mask.device.type == "cpu":
        return _compiled(mask, spacing_mm)
    return separable(mask, spacing_mm)


def _compiled(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """By the compiled edt package, one mask after the other, all cores on each."""
    inside = mask.numpy()
    distance = np.full(inside.shape, np.inf, dtype=np.float32)
    for index in np.ndindex(*inside.shape[:2]):
        if inside[index].any() and not inside[index].all():
            # Labels 1 and 2, none 0: edt measures from both to the other in one go.
            distance[index] = edt.edt(
                inside[index].astype(np.uint8) + 1,
                anisotropy=tuple(float(spacing) for spacing in spacing_mm),
                parallel=torch.get_num_threads(),
            )
    return torch.from_numpy(np.where(inside, -distance, distance))


def separable(mask: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """The same by one pass over each axis, all masks at once, wherever the mask is.

    A pass takes min over j of f(j) + (spacing (i - j))^2 (Felzenszwalb and Huttenlocher 2012) by
    one vectorised step for each j. Squares of mm above 2^24 times the smallest lose digits.
    """
    to_outside, to_inside = (_distance_to(voxels, spacing_mm) for voxels in (~mask, mask))
    return torch.where(mask, -to_outside, to_inside)


def _distance_to(target: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Distance (B, K, *S) in mm to the nearest voxel of the bool target; inf if it is empty."""
    squared = torch.zeros(target.shape, device=target.device).masked_fill_(~target, torch.inf)
    for axis, spacing in enumerate(spacing_mm, start=2):
        edge = target.shape[axis]
        place = torch.arange(edge, device=target.device) * float(spacing)
        away = (place[:, None] - place).square()  # (j, i)
        nearest = torch.full_like(squared, torch.inf)
        along = [1] * target.ndim
        along[axis] = edge
        for j in range(edge):
            from_j = squared.narrow(axis, j, 1) + away[j].view(along)
            torch.minimum(nearest, from_j, out=nearest)
        squared = nearest
    return squared.sqrt_()
