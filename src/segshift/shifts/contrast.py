"""Intensities that mean something else: contrast, inversion, Hounsfield offset, stain."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import ndimage

from segshift.mr_signal import spin_echo
from segshift.shifts.scale import robust_range
from segshift.shifts.shift import Acquisition, Graded

TR_FACTOR, TE_FACTOR = 4.0, 5.0  # of all the way: 500 and 12 ms, T1, become 2000 and 60, T2
BORDER_VOXELS = 0.45  # over which a scanner mixes two tissues: about its point spread
LEAST_SIGNAL = 1e-3  # of the strongest; air has none, and keeps its noise
# Ruifrok and Johnston, Anal Quant Cytol Histol 2001: densities of haematoxylin, eosin, DAB in RGB.
STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
BRIGHT = 99.9  # percentile: what is brighter are hot pixels and glare
DARKEST = 1 / 512  # of white: half a grey level, whose density is finite


@dataclass(frozen=True, slots=True)
class Contrast(Graded):
    """Another echo and repetition time, or a gamma curve where the tissue is not known.

    With tissue maps and the tags `tr_ms` and `te_ms` the image is multiplied by the ratio of the
    spin-echo signals, a part p of the way from T1 to T2 weighting: TR grows by 4^p, TE by 5^p.
    Otherwise intensities between the 1st and 99th percentile follow a power law, brighter in half
    of the cases and darker in the others.
    """

    name: ClassVar[str] = "contrast"
    unit: ClassVar[str] = "exponent, or 1 over it"
    numbers: ClassVar[tuple[float, ...]] = (1.25, 1.56, 1.97, 2.49, 3.17)
    parts: ClassVar[tuple[float, ...]] = (0.173, 0.303, 0.409, 0.499, 0.578)  # of the way

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """By physics where it is known."""
        times = _times_ms(acquisition.tags)
        if acquisition.maps is not None and times is not None:
            return np.asarray(image * self._signal_ratio(acquisition.maps, *times))
        low, width = robust_range(image)
        share = (image - low) / width
        exponent = self.number if random.random() < 0.5 else 1 / self.number
        curved = np.clip(share, 0, 1) ** np.float32(exponent)
        return np.asarray(low + width * np.where((share > 0) & (share < 1), curved, share))

    def _signal_ratio(self, maps: np.ndarray, tr_ms: float, te_ms: float) -> np.ndarray:
        part = self.parts[self.severity - 1]
        density, (t1_ms, t2_ms) = maps[0], np.maximum(maps[1:], 1e-3)
        before, after = (
            ndimage.gaussian_filter(
                spin_echo(density, t1_ms, t2_ms, tr_ms=tr, te_ms=te), BORDER_VOXELS
            )
            for tr, te in ((tr_ms, te_ms), (tr_ms * TR_FACTOR**part, te_ms * TE_FACTOR**part))
        )
        least = LEAST_SIGNAL * before.max()
        return np.asarray(((after + least) / (before + least)).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Inversion(Graded):
    """Bright becomes dark: what lies above a part of the range is mirrored down, 5 mirrors all.

    As the fold of an inversion-recovery signal at its null, the other way round; the result is
    stretched to the old range. It changes an image far more than the calibrated shifts do: a little
    of it would mirror nothing but the brightest tissue.
    """

    calibrated: ClassVar[bool] = False
    name: ClassVar[str] = "inversion"
    unit: ClassVar[str] = "part of the range above which is mirrored"
    numbers: ClassVar[tuple[float, ...]] = (0.82, 0.71, 0.64, 0.57, 0.0)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Fold the intensities."""
        low, width = robust_range(image)
        share, fold = (image - low) / width, np.float32(self.number)
        folded = np.where(share > fold, 2 * fold - share, share)
        least = min(0.0, 2 * self.number - 1)
        return np.asarray(low + width * (folded - np.float32(least)) / np.float32(fold - least))


@dataclass(frozen=True, slots=True)
class HounsfieldOffset(Graded):
    """A scanner that is not calibrated: all Hounsfield units too high, or all too low."""

    name: ClassVar[str] = "hounsfield_offset"
    unit: ClassVar[str] = "HU"
    numbers: ClassVar[tuple[float, ...]] = (5.2, 10.4, 15.7, 20.9, 26.2)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Add one number."""
        return image + np.float32(random.choice([-1, 1]) * self.number)


@dataclass(frozen=True, slots=True)
class Stain(Graded):
    """Another staining protocol: more of one dye, less of another (Tellez et al., MedIA 2019).

    On a bright background dyes absorb: optical densities, of which white, the 99.9th percentile of
    the brightest channel, has none, are multiplied. Those of colours are first unmixed into
    haematoxylin, eosin and DAB, and mixed again; a picture whose channels are all the same is grey
    and has one dye. On a dark background it shines, up to the detector's limit.
    """

    name: ClassVar[str] = "stain"
    unit: ClassVar[str] = "largest factor, or 1 over it, of a dye's density"
    numbers: ClassVar[tuple[float, ...]] = (1.062, 1.128, 1.198, 1.273, 1.352)

    def changed(
        self, image: np.ndarray, acquisition: Acquisition, random: np.random.Generator
    ) -> np.ndarray:
        """Beer and Lambert's law, where the background is bright."""
        signs = random.permutation([-1, 1, 1]) * random.choice([-1, 1])
        factors = self.number ** (signs * random.uniform(0.5, 1, 3))
        light = image.max(axis=0)  # a dye leaves one of the channels bright, darkness none
        white = float(np.percentile(light, BRIGHT))
        if np.median(light) <= white / 2:
            return np.clip(image * np.float32(factors[0]), None, _detector_limit(image))
        density = -np.log10(np.clip(image / np.float32(white), DARKEST, None))
        if len(image) == 3 and (image != image[0]).any():
            dyes = STAINS / np.linalg.norm(STAINS, axis=1, keepdims=True)
            mixing = (dyes.T * factors) @ np.linalg.inv(dyes.T)
            density = np.tensordot(mixing.astype(np.float32), density, axes=1)
        else:
            density = density * np.float32(factors[0])
        return np.clip(np.float32(white) * 10**-density, 0, image.max())


def _detector_limit(image: np.ndarray) -> float:
    """All ones in as many bits, 8 at least, as the brightest takes; of fractions 1 or it itself."""
    brightest = float(image.max())
    if brightest <= 1 or (image != np.rint(image)).any():
        return max(brightest, 1.0)
    return float(2 ** max(8, int(brightest).bit_length()) - 1)


def _times_ms(tags: Mapping[str, str]) -> tuple[float, float] | None:
    """Repetition and echo time; None where one is not said."""
    try:
        tr_ms, te_ms = float(tags["tr_ms"]), float(tags["te_ms"])
    except (KeyError, ValueError):
        return None
    return (tr_ms, te_ms) if tr_ms > 0 and te_ms > 0 else None
