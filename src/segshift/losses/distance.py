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
    inside = mask.cpu().numpy()  # edt runs on the CPU; a mask on CUDA goes there and back
    distance = np.full(inside.shape, np.inf, dtype=np.float32)
    for index in np.ndindex(*inside.shape[:2]):
        if inside[index].any() and not inside[index].all():
            # Labels 1 and 2, none 0: edt measures from both to the other in one go.
            distance[index] = edt.edt(
                inside[index].astype(np.uint8) + 1,
                anisotropy=tuple(float(spacing) for spacing in spacing_mm),
                parallel=torch.get_num_threads(),
            )
    return torch.from_numpy(np.where(inside, -distance, distance)).to(mask.device)
