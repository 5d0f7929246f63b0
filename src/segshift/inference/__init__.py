"""Prediction of whole cases: one way for 2D, 2.5D and 3D, in slabs of a bounded size.

A network sees windows of the case's own image alone; no other case, and no window's neighbour in a
batch, changes what it says.
"""

from segshift.inference.members import Spread, entropy
from segshift.inference.options import PredictionOptions, changed
from segshift.inference.slabs import Slab, predict_case, predict_slabs
from segshift.inference.windows import slabs

__all__ = [
    "PredictionOptions",
    "Slab",
    "Spread",
    "changed",
    "entropy",
    "predict_case",
    "predict_slabs",
    "slabs",
]
