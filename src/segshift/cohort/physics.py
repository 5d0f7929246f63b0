"""The MR physics of the simulated sites: tissues and a scanner.

Arrays are (z, y, x), lengths mm, times ms, field strengths tesla. Every function is pure: what is
random is drawn from the generator that is passed in.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segshift.mr_signal import receiver_channels, reconstructed, spin_echo

Array = NDArray[np.float64]
FWHM_PER_SIGMA = 2.3548


@dataclass(frozen=True, slots=True)
class Tissue:
    """Proton density (water = 1), T1 at two field strengths, and T2, which hardly depends on it."""

    proton_density: float
    t1_ms_at_1_5_t: float
    t1_ms_at_3_t: float
    t2_ms: float

    def t1_ms(self, field_strength_t: float) -> float:
        """T1 at any field by the power law through both values (Bottomley, Med Phys 1984)."""
        exponent = np.log(self.t1_ms_at_3_t / self.t1_ms_at_1_5_t) / np.log(2.0)
        return float(self.t1_ms_at_1_5_t * (field_strength_t / 1.5) ** exponent)

    def varied(self, spread: float, rng: np.random.Generator) -> "Tissue":
        """This tissue in one patient: log-normal factors, a tenth of the spread on the density."""
        density, t1, t2 = np.exp(spread * rng.standard_normal(3))
        return Tissue(
            proton_density=float(self.proton_density * density**0.1),
            t1_ms_at_1_5_t=float(self.t1_ms_at_1_5_t * t1),
            t1_ms_at_3_t=float(self.t1_ms_at_3_t * t1),
            t2_ms=float(self.t2_ms * t2),
        )


# T1 and T2: [B] de Bazelaire et al., Radiology 2004;230:652; [S] Stanisz et al., MRM 2005;54:507.
# Proton density: water fractions of ICRP Publication 89, 0.9 for fat. [A] marks our assumptions.
TISSUES = {
    "air": Tissue(0.0, 1000.0, 1000.0, 50.0),
    "fat": Tissue(0.90, 343.0, 382.0, 58.0),  # [B] subcutaneous fat
    "muscle": Tissue(0.79, 856.0, 898.0, 27.0),  # [B] paravertebral muscle
    "marrow": Tissue(0.60, 549.0, 586.0, 49.0),  # [B] L4 vertebra; density [A]
    "cortical_bone": Tissue(0.12, 300.0, 350.0, 3.0),  # [A] nearly no signal at spin-echo TE
    "fluid": Tissue(1.00, 3500.0, 3900.0, 700.0),  # [A] bile and spinal fluid, close to water
    "bowel": Tissue(0.80, 800.0, 950.0, 60.0),  # [A] wall and content mixed
    "blood": Tissue(0.15, 1441.0, 1932.0, 275.0),  # [S]; density lowered: flow void of a spin echo
    "spleen": Tissue(0.79, 1057.0, 1328.0, 79.0),  # [B]
    "kidney_cortex": Tissue(0.80, 966.0, 1142.0, 87.0),  # [B]
    "kidney_medulla": Tissue(0.83, 1412.0, 1545.0, 85.0),  # [B]
    "liver": Tissue(0.72, 586.0, 809.0, 46.0),  # [B]
    # Native T1 of 1056 (hepatocellular carcinoma) to 1757 ms (metastasis): Eur J Radiol Open 2020,
    # 100312. T2 64 +- 15 ms in metastases (Hepatic tumors: differentiation by T2, 1985, at 0.35 T).
    "lesion_core": Tissue(0.80, 1450.0, 1757.0, 72.0),
    "lesion_rim": Tissue(0.78, 900.0, 1150.0, 60.0),  # [A] oedema: between core and liver
}
TISSUE_INDEX = {name: index for index, name in enumerate(TISSUES)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanner:
    """A scanner and its protocol; what may differ between sites without the patients differing."""

    tr_ms: float
    te_ms: float
    field_strength_t: float
    vendor: str
    noise: float  # standard deviation of each receiver channel, on the scale of proton density
    bias: float  # standard deviation of the log of the coil's sensitivity
    blur_mm: float  # in-plane point spread, full width at half maximum
    slice_mm: float  # slice thickness, the same measure across slices
    scale: tuple[float, float] = (400.0, 2500.0)  # range of grey levels per unit of signal
    # The reconstruction software: which part of k-space is acquired along y and along x (zeros fill
    # the rest), and its filter: 0 none, 1 a Hann window.
    acquired: float = 1.0
    filter_strength: float = 0.0

    @property
    def reconstructs(self) -> bool:
        """Whether its software does more than an inverse Fourier transform of all of k-space."""
        return self.acquired < 1 or self.filter_strength > 0


def acquire(
    tissue: NDArray[np.uint8],
    properties: Sequence[Tissue],
    texture: Array,
    scanner: Scanner,
    *,
    spacing_mm: Sequence[float],
    rng: np.random.Generator,
) -> NDArray[np.int16]:
    """The image of `tissue` (Z, Y, X), indices into `properties`, in arbitrary grey levels.

    `texture` (Z, Y, X) multiplies the proton density. Grey levels are whole numbers, as scanners
    store them.
    """
    signals = spin_echo(
        np.array([each.proton_density for each in properties]),
        np.array([each.t1_ms(scanner.field_strength_t) for each in properties]),
        np.array([each.t2_ms for each in properties]),
        tr_ms=scanner.tr_ms,
        te_ms=scanner.te_ms,
    )
    axes = centred_axes(tissue.shape, spacing_mm)
    sensitivity = np.exp(scanner.bias * smooth_field(axes, 160.0, rng))
    widths_mm = np.array([scanner.slice_mm, scanner.blur_mm, scanner.blur_mm])
    sigmas = widths_mm / FWHM_PER_SIGMA / np.asarray(spacing_mm)
    signal: Array = ndimage.gaussian_filter(signals[tissue] * texture * sensitivity, sigmas)
    scale = np.exp(rng.uniform(*np.log(scanner.scale)))
    channels = np.stack(receiver_channels(signal, scanner.noise, rng))
    if scanner.reconstructs:  # before the magnitude: noise is filtered too
        channels = reconstructed(
            channels, acquired=scanner.acquired, filter_strength=scanner.filter_strength
        )
    grey = np.rint(scale * np.hypot(*channels))
    image: NDArray[np.int16] = np.minimum(grey, np.iinfo(np.int16).max).astype(np.int16)
    return image


def tissue_maps(
    tissue: NDArray[np.uint8],
    properties: Sequence[Tissue],
    texture: Array,
    *,
    field_strength_t: float,
) -> NDArray[np.float32]:
    """Proton density, T1 and T2 in ms (3, Z, Y, X) of `tissue`, before a scanner blurs them."""
    of_tissue = np.array(
        [[p.proton_density, p.t1_ms(field_strength_t), p.t2_ms] for p in properties]
    )
    maps = of_tissue.T[:, tissue]
    maps[0] *= texture
    return np.round(maps, 3).astype(np.float32)


def centred_axes(shape: Sequence[int], spacing_mm: Sequence[float]) -> tuple[Array, Array, Array]:
    """The z, y and x positions of the voxels' centres in mm, zero in the middle of the volume."""
    z, y, x = (
        (np.arange(size, dtype=np.float64) - (size - 1) / 2) * float(step)
        for size, step in zip(shape, spacing_mm, strict=True)
    )
    return z, y, x


def smooth_field(axes: Sequence[Array], knot_mm: float, rng: np.random.Generator) -> Array:
    """A random field (Z, Y, X), normal with mean 0 and variance 1, varying over `knot_mm`."""
    bases = [_spline_basis(axis, knot_mm) for axis in axes]
    field = rng.standard_normal([basis.shape[1] for basis in bases])
    for basis in bases:  # contracts the first dimension and appends the new one: z, y, x in turn
        field = np.tensordot(field, basis, axes=(0, 1))
    return field


def _spline_basis(axis_mm: Array, knot_mm: float) -> Array:
    """Cubic B-splines (positions, knots), rows of norm 1 so that white noise keeps variance 1."""
    reach = int(np.ceil(np.abs(axis_mm).max() / knot_mm)) + 2
    distance = np.abs(axis_mm[:, None] / knot_mm - np.arange(-reach, reach + 1))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, np.clip(2 - distance, 0, None) ** 3 / 6
    basis = np.where(distance < 1, near, far)
    return np.asarray(basis / np.linalg.norm(basis, axis=1, keepdims=True))
