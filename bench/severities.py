"""Calibrate the severities of shifts: equal steps of how much an image changes.

`python bench/severities.py [--imaging=mr|ct|microscopy]` prints how much severities 1 to 5 of every
shift change its reference images: the mean over images and draws, the least and the most. With
`--calibrate` also the numbers at which that is 1 to 5 times `STEP`, by bisection, which the package
has rounded; with `--manifest=PATH` what the package's do to the first MR images of a manifest.

The change is the root mean square, over the voxels of the body and all channels, of the difference
that a network sees: of the images after normalisation, in standard deviations of the image without
the shift. Of MR, whose z-score takes away gain and offset, it is sqrt(2 - 2 r), r being Pearson's
correlation inside the body (Rodgers and Nicewander, Am Stat 1988).
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from scipy import ndimage
from skimage import data

from segshift import shifts
from segshift.cohort import read_manifest
from segshift.cohort.anatomy import simulate_patient
from segshift.cohort.checks import load_case
from segshift.cohort.phantom import image_patient, parse_site
from segshift.cohort.physics import FWHM_PER_SIGMA, TISSUES, tissue_maps
from segshift.seeds import generator
from segshift.shifts import STEP, Acquisition, Graded

PHANTOM = yaml.safe_load((Path(__file__).parents[1] / "conf/data/phantom.yaml").read_text())
DRAWS = 8  # of what is random, on every image
# Hounsfield units of the phantom's tissues: textbook values of CT without contrast agent.
HOUNSFIELD = {
    "air": -1000, "fat": -100, "muscle": 50, "marrow": 200, "cortical_bone": 900, "fluid": 5,
    "bowel": 30, "blood": 45, "spleen": 50, "kidney_cortex": 35, "kidney_medulla": 30, "liver": 60,
    "lesion_core": 35, "lesion_rim": 48,
}  # fmt: skip
CT_GRID = {"shape": (8, 150, 180), "spacing_mm": (20.0, 2.0, 2.0)}  # all in plane
CT_BLUR_MM, CT_NOISE_HU = 2.0, 10.0
WINDOW_HU = (-160.0, 240.0)  # level 40, width 400: how an abdomen is looked at
CASES = 8  # of a manifest
TILE = 256  # pixels of a picture under the microscope


@dataclass(frozen=True, slots=True)
class Reference:
    """An image (C, D, H, W), where its body is (D, H, W), and the scale that a network sees."""

    id: str
    image: np.ndarray
    body: np.ndarray
    acquisition: Acquisition
    scaled: Callable[[np.ndarray], np.ndarray]  # of the values (C, N) inside the body


@dataclass(frozen=True, slots=True)
class Family:
    """A shift, what changes nothing in its unit, and the most that is plausible."""

    shift: type[Graded]
    none: float
    most: float
    imaging: str = "mr"
    by_tissue: bool = False  # contrast by TR and TE, else by a gamma curve


FAMILIES = (
    Family(shifts.RicianNoise, 0, 0.15),  # a signal-to-noise ratio of 7 where it is brightest
    Family(shifts.BiasField, 1, 7),
    Family(shifts.Contrast, 1, 4.5),  # MONAI's own range for training ends there
    Family(shifts.Contrast, 0, 1, by_tissue=True),
    Family(shifts.Ghosting, 0, 0.4),
    Family(shifts.Motion, 0, 0.8),
    Family(shifts.Gibbs, 1, 0.3),
    Family(shifts.Reconstruction, 0, 1),
    Family(shifts.Spike, 0, 0.25),
    Family(shifts.SliceThickness, 1, 4),
    Family(shifts.Resolution, 1, 4),
    Family(shifts.Inversion, 1, 0),
    Family(shifts.DoseNoise, 1, 0.05, imaging="ct"),
    Family(shifts.SharpKernel, 0, 5, imaging="ct"),
    Family(shifts.SmoothKernel, 0, 6, imaging="ct"),
    Family(shifts.HounsfieldOffset, 0, 40, imaging="ct"),
    Family(shifts.Resolution, 1, 4, imaging="ct"),
    Family(shifts.Blur, 0, 5, imaging="microscopy"),
    Family(shifts.Stain, 1, 3, imaging="microscopy"),
    Family(shifts.Illumination, 0, 0.8, imaging="microscopy"),
    Family(shifts.Resolution, 1, 8, imaging="microscopy"),  # an objective of 40x, and of 5x
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--imaging", choices=list(REFERENCES))
    parser.add_argument("--calibrate", action="store_true")
    parser.add_argument("--manifest", type=Path)
    options = parser.parse_args()
    if options.manifest:
        measure("mr", list(manifest_references(options.manifest)), solve=False)
        return
    for imaging in [options.imaging] if options.imaging else REFERENCES:
        measure(imaging, list(REFERENCES[imaging]()), solve=options.calibrate)


def measure(imaging: str, references: Sequence[Reference], *, solve: bool) -> None:
    """Print a line for each shift of these images, with the numbers where they are to be found."""
    targets = STEP * np.arange(1, 6)
    steps = ", ".join(f"{target:.2f}" for target in targets)
    found = f" numbers at {steps} |" if solve else ""
    print(f"| images | shift | change at 1 to 5 | least to most at 5 |{found}")
    print(f"|---|---|---|---|{'---|' * solve}")
    known = references[0].acquisition.maps is not None
    for family in (one for one in FAMILIES if one.imaging == imaging and known >= one.by_tissue):
        now = [changes(of_severity(family, s), references, family) for s in range(1, 6)]
        means = ", ".join(f"{np.mean(each):.3f}" for each in now)
        if solve:
            solved = [number_of(family, references, target) for target in targets]
            found = f" {', '.join('none' if n is None else f'{n:.3g}' for n in solved)} |"
        name = f"`{family.shift.name}`" + (" by TR and TE" if family.by_tissue else "")
        most = f"{np.min(now[4]):.3f} to {np.max(now[4]):.3f}"
        print(f"| {imaging} | {name} | {means} | {most} |{found}", flush=True)


def number_of(family: Family, references: Sequence[Reference], target: float) -> float | None:
    """The number that changes the references by the target, by bisection; None beyond the most."""
    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        number = family.none + middle * (family.most - family.none)
        mean = np.mean(changes(of_number(family.shift, number), references, family))
        low, high = (low, middle) if mean > target else (middle, high)
    return None if high == 1 else family.none + high * (family.most - family.none)


def of_severity(family: Family, severity: int) -> Graded:
    """The shift as the package has it."""
    if family.shift is shifts.Resolution:
        return shifts.Resolution(severity, family.imaging)
    return family.shift(severity)


def of_number(shift: type[Graded], number: float) -> Graded:
    """The shift with another number than the package's."""
    made: Graded = type("Tried", (shift,), {"number": number, "parts": (number,) * 5})(1)
    return made


def changes(
    shift: Graded, references: Sequence[Reference], family: Family, *, draws: int = DRAWS
) -> list[float]:
    """How much it changes each reference, in each draw."""
    found = []
    for one in references:
        known = one.acquisition
        told = known if family.by_tissue else Acquisition(known.spacing_mm)
        before = one.scaled(one.image[:, one.body].astype(np.float64))
        for draw in range(draws):
            random = generator(0, "shift", shift.name, one.id, draw)
            made = shift(one.image, acquisition=told, random=random)
            after = one.scaled(made[:, one.body].astype(np.float64))
            found.append(float(np.sqrt(np.mean((after - before) ** 2)) / before.std()))
    return found


def mr_references(numbers: Iterable[int] = range(1, 5)) -> Iterator[Reference]:
    """Four patients of the phantom's site alpha, as `data=phantom` has them."""
    options = PHANTOM["cohort"]
    site = parse_site("alpha", options["sites"]["alpha"])
    scanner, spacing_mm = site.scanner, tuple(options["spacing_mm"])
    tags = {"tr_ms": f"{scanner.tr_ms}", "te_ms": f"{scanner.te_ms}"}
    for number in numbers:
        patient = simulate_patient(
            f"alpha-{number:03d}", site.population, seed=options["seed"], shape=options["shape"],
            spacing_mm=spacing_mm,
        )  # fmt: skip
        image = image_patient(patient, scanner, seed=options["seed"], spacing_mm=spacing_mm)
        maps = tissue_maps(
            patient.tissue, patient.properties, patient.texture,
            field_strength_t=scanner.field_strength_t,
        )  # fmt: skip
        acquisition = Acquisition(spacing_mm, tags, maps)
        raw = image[None].astype(np.float32)
        yield Reference(patient.id, raw, patient.tissue > 0, acquisition, z_scored)


def ct_references() -> Iterator[Reference]:
    """Two of these patients, more finely, as a CT shows them."""
    site = parse_site("alpha", PHANTOM["cohort"]["sites"]["alpha"])
    units = np.array([HOUNSFIELD[name] for name in TISSUES], dtype=np.float64)
    sigma = CT_BLUR_MM / FWHM_PER_SIGMA / CT_GRID["spacing_mm"][-1]
    for number in (1, 2):
        patient = simulate_patient(f"alpha-{number:03d}", site.population, seed=0, **CT_GRID)
        noise = generator(0, "ct-noise", patient.id).standard_normal(patient.tissue.shape)
        smooth = ndimage.gaussian_filter(noise, (0, sigma, sigma))
        image = ndimage.gaussian_filter(units[patient.tissue], (0, sigma, sigma))
        image += smooth * CT_NOISE_HU / smooth.std()
        raw = image[None].astype(np.float32)
        acquisition = Acquisition(CT_GRID["spacing_mm"])
        yield Reference(patient.id, raw, patient.tissue > 0, acquisition, windowed)


def microscopy_references() -> Iterator[Reference]:
    """The four quarters of scikit-image's picture of stained tissue (512x512, RGB)."""
    picture = np.moveaxis(data.immunohistochemistry(), -1, 0)[:, None].astype(np.float32)
    for y in (0, TILE):
        for x in (0, TILE):
            tile = picture[:, :, y : y + TILE, x : x + TILE]
            body = np.ones(tile.shape[1:], dtype=bool)
            yield Reference(f"ihc-{y}-{x}", tile, body, Acquisition((1.0, 1.0, 1.0)), fractions)


def manifest_references(path: Path) -> Iterator[Reference]:
    """The first eight cases of a manifest; what is exactly 0 is taken to lie outside the body."""
    for case in read_manifest(path, structures={"any": "nonzero"}).cases[:CASES]:
        volume = load_case(case)
        body = (volume.image != 0).any(axis=0)
        yield Reference(case.id, volume.image, body, Acquisition(volume.spacing_mm), z_scored)


def z_scored(values: np.ndarray) -> np.ndarray:
    """As MR is normalised, inside the body."""
    mean, deviation = values.mean(axis=1, keepdims=True), values.std(axis=1, keepdims=True)
    return np.asarray((values - mean) / deviation)


def windowed(values: np.ndarray) -> np.ndarray:
    """As CT is: Hounsfield units within a window."""
    return np.clip(values, *WINDOW_HU)


def fractions(values: np.ndarray) -> np.ndarray:
    """As colours are: of 255."""
    return values / 255


REFERENCES = {"mr": mr_references, "ct": ct_references, "microscopy": microscopy_references}


if __name__ == "__main__":
    main()
