"""Named changes of acquisition, with a severity from 0 (none) to 5.

A shift acts on raw intensities, before normalisation, and never sees the label. docs/shifts.md has
the table of all.
"""

from segshift.shifts.contrast import Contrast, HounsfieldOffset, Inversion, Stain
from segshift.shifts.fields import BiasField, Illumination
from segshift.shifts.geometry import Flip, Rotation
from segshift.shifts.k_space import Ghosting, Gibbs, Motion, Reconstruction, Spike
from segshift.shifts.noise import DoseNoise, RicianNoise
from segshift.shifts.sharpness import Blur, Resolution, SharpKernel, SliceThickness, SmoothKernel
from segshift.shifts.shift import (
    SEVEREST,
    STEP,
    Acquisition,
    Graded,
    Identity,
    Shift,
    Turning,
    is_calibrated,
)
from segshift.shifts.suites import distinct, expanded

__all__ = [
    "SEVEREST",
    "STEP",
    "Acquisition",
    "BiasField",
    "Blur",
    "Contrast",
    "DoseNoise",
    "Flip",
    "Ghosting",
    "Gibbs",
    "Graded",
    "HounsfieldOffset",
    "Identity",
    "Illumination",
    "Inversion",
    "Motion",
    "Reconstruction",
    "Resolution",
    "RicianNoise",
    "Rotation",
    "SharpKernel",
    "Shift",
    "SliceThickness",
    "SmoothKernel",
    "Spike",
    "Stain",
    "Turning",
    "distinct",
    "expanded",
    "is_calibrated",
]
