"""A random abdomen: body, organs, vessels and lesions as label maps, smoothly deformed.

A patient is drawn from (seed, patient id, population) alone, so the same id under another
population keeps its body and changes its lesions. Arrays are (z, y, x); x points to the patient's
right, y forward, z up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from segshift.cohort.physics import (
    TISSUE_INDEX,
    TISSUES,
    Array,
    Tissue,
    centred_axes,
    smooth_field,
)
from segshift.seeds import generator

STRUCTURES = {"liver": 1, "kidney": 2, "lesion": 3}

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]
Point = Sequence[float] | Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """Who comes to a site. Pairs are the ends of a uniform range."""

    lesion_count: tuple[int, int]
    lesion_radius_mm: tuple[float, float]  # of the core
    rim_mm: tuple[float, float] = (3.0, 6.0)  # thickness of the oedema around it
    deformation_mm: float = 6.0  # standard deviation of the smooth displacement of the anatomy
    tissue_spread: float = 0.05  # standard deviation of a patient's log T1 and log T2
    texture: float = 0.05  # standard deviation of the proton density inside a tissue, relative


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One patient (Z, Y, X): the truth and, as indices into `properties`, what is imaged."""

    id: str
    truth: Labels  # liver 1 (rim included), kidney 2, lesion 3
    instances: NDArray[np.int16]  # lesion 1..n, 0 elsewhere
    rim: Mask
    tissue: Labels
    properties: tuple[Tissue, ...]
    texture: Array


def simulate_patient(
    patient: str,
    population: Population,
    *,
    seed: int,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
) -> Patient:
    """Draw one patient; the same id has the same body in every population, lesions aside."""
    axes = centred_axes(shape, spacing_mm)
    body = generator(seed, "phantom-anatomy", patient)
    tissue = _anatomy(axes, population.deformation_mm, body)
    texture = 1.0 + population.texture * smooth_field(axes, 14.0, body)
    liver = _largest_part(tissue == TISSUE_INDEX["liver"])
    tissue[(tissue == TISSUE_INDEX["liver"]) & ~liver] = TISSUE_INDEX["fat"]
    tissue[liver & _vessels(axes, body)] = TISSUE_INDEX["blood"]
    lesions = generator(seed, "phantom-lesions", patient)
    instances, rim = _lesions(liver, axes, spacing_mm, population, lesions)
    tissue[rim] = TISSUE_INDEX["lesion_rim"]
    tissue[instances > 0] = TISSUE_INDEX["lesion_core"]
    kidney = np.isin(tissue, [TISSUE_INDEX["kidney_cortex"], TISSUE_INDEX["kidney_medulla"]])
    truth = np.zeros(liver.shape, np.uint8)
    for name, mask in (("liver", liver), ("kidney", kidney), ("lesion", instances > 0)):
        truth[mask] = STRUCTURES[name]
    tissues = generator(seed, "phantom-tissues", patient)
    spread = population.tissue_spread
    return Patient(
        id=patient,
        truth=truth,
        instances=instances,
        rim=rim,
        tissue=tissue,
        properties=tuple(each.varied(spread, tissues) for each in TISSUES.values()),
        texture=texture,
    )


def _anatomy(axes: Sequence[Array], deformation_mm: float, rng: np.random.Generator) -> Labels:
    """Tissue indices (Z, Y, X) of a random abdomen without vessels in the liver and lesions.

    Organs are ellipsoids, half-spaces and noise in smoothly deformed coordinates, mm from the
    middle; those painted later lie on top.
    """
    z, y, x = (
        (grid + deformation_mm * smooth_field(axes, 70.0, rng)) / rng.normal(1.0, 0.03)
        for grid in np.meshgrid(*axes, indexing="ij")
    )
    tissue = np.full(x.shape, TISSUE_INDEX["air"], np.uint8)

    def paint(name: str, mask: Mask) -> None:
        tissue[mask] = TISSUE_INDEX[name]

    def ellipsoid(centre: Point, radii: Point, *, jitter: float = 4.0, tilt: float = 0.0) -> Array:
        """Squared distance from the centre (x, y, z) in radii; `tilt` is dx/dz of the long axis."""
        cx, cy, cz = rng.normal(centre, jitter)
        rx, ry, rz = np.asarray(radii) * rng.normal(1.0, 0.07, 3)
        across = (x - cx - tilt * (z - cz)) / rx
        return np.asarray(across**2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2)

    half_width, half_depth = rng.normal(160.0, 7.0), rng.normal(110.0, 5.0)
    rim, wall = rng.uniform(9.0, 26.0), 13.0

    def trunk(inset: float) -> Mask:
        return np.abs(x / (half_width - inset)) ** 2.4 + np.abs(y / (half_depth - inset)) ** 2.4 < 1

    paint("fat", trunk(0.0))
    paint("muscle", trunk(rim))
    ribs = trunk(rim + 3.0) & ~trunk(rim + 10.0) & ((z + 0.5 * np.abs(x) + 0.3 * y) % 34.0 < 11.0)
    paint("marrow", ribs & (y > -half_depth * 0.6) & (z > -55.0))
    cavity = trunk(rim + wall)
    paint("fat", cavity)
    loops, content = smooth_field(axes, 26.0, rng), smooth_field(axes, 22.0, rng)
    gut = cavity & (y > -30.0) & (loops > -0.1)
    paint("bowel", gut)
    paint("fluid", gut & (content > 1.2))
    paint("air", gut & (content < -1.4))

    right_dome = rng.normal(84.0, 5.0) - ((x - 72.0) ** 2 + (y - 5.0) ** 2) / 170.0
    left_dome = rng.normal(72.0, 5.0) - ((x + 62.0) ** 2 + (y - 15.0) ** 2) / 170.0
    below_lungs = z < np.maximum(right_dome, left_dome)
    paint("air", cavity & ~below_lungs)
    heart = ellipsoid((-15.0, 30.0, 95.0), (52.0, 42.0, 40.0))
    paint("muscle", cavity & ~below_lungs & (heart < 1))
    paint("blood", cavity & ~below_lungs & (heart < 0.5))
    abdomen = cavity & below_lungs
    paint("bowel", abdomen & (ellipsoid((-58.0, 35.0, 28.0), (42.0, 30.0, 42.0)) < 1))  # stomach
    paint("spleen", abdomen & (ellipsoid((-98.0, -22.0, 25.0), (30.0, 44.0, 50.0)) < 1))
    under = 0.5 * (x - 62.0) + 0.25 * (y - 8.0) + 0.75 * (z - 15.0) > rng.normal(-30.0, 6.0)
    paint("liver", abdomen & under & (ellipsoid((62.0, 8.0, 15.0), (100.0, 86.0, 88.0)) < 1))
    paint("fluid", abdomen & (ellipsoid((48.0, 42.0, -12.0), (13.0, 13.0, 24.0)) < 1))  # bile

    middle = rng.normal(0.0, 3.0)
    for side in (-1.0, 1.0):
        paint("muscle", ellipsoid((side * 36.0, -76.0, 0.0), (31.0, 21.0, 900.0), jitter=2.0) < 1)
        paint("muscle", ellipsoid((side * 38.0, -48.0, -90.0), (17.0, 16.0, 95.0)) < 1)
    paint("cortical_bone", ((x - middle) / 18.0) ** 2 + ((y + 72.0) / 17.0) ** 2 < 1)
    paint("fluid", ((x - middle) / 10.0) ** 2 + ((y + 73.0) / 8.0) ** 2 < 1)
    vertebra = ((x - middle) / 24.0) ** 2 + ((y + 46.0) / 18.0) ** 2
    disc = (z + rng.uniform(0.0, 36.0)) % 36.0 < 9.0
    paint("cortical_bone", vertebra < 1)
    paint("marrow", (vertebra < 0.8) & ~disc)
    paint("muscle", (vertebra < 0.9) & disc)
    for side, height in ((-1.0, -14.0), (1.0, -26.0)):
        centre = rng.normal((side * 67.0, -38.0, height), 4.0)
        radii = np.array([27.0, 26.0, 54.0]) * rng.normal(1.0, 0.07)
        kidney = ellipsoid(centre, radii, jitter=0.0, tilt=-0.18 * side)
        hilum = centre - np.array([side * 22.0, -4.0, 0.0])
        sinus = ellipsoid(hilum, (16.0, 11.0, 24.0), jitter=1.0)
        paint("fat", cavity & (kidney < 1.35))
        paint("kidney_cortex", kidney < 1)
        paint("kidney_medulla", (kidney < 0.55) & (content > -0.5))
        paint("fat", (kidney < 1) & (sinus < 1))
    paint("blood", ellipsoid((18.0, -18.0, 0.0), (11.0, 10.0, 900.0), jitter=1.5) < 1)  # vena cava
    paint("blood", ellipsoid((-10.0, -18.0, 0.0), (10.0, 10.0, 900.0), jitter=1.5) < 1)  # aorta
    return tissue


def _vessels(axes: Sequence[Array], rng: np.random.Generator) -> Mask:
    """Tubes (Z, Y, X) around the curves in which two smooth random fields are both zero."""
    first, second = smooth_field(axes, 42.0, rng), smooth_field(axes, 42.0, rng)
    return np.asarray(first**2 + second**2 < 0.025)


def _lesions(
    liver: Mask,
    axes: Sequence[Array],
    spacing_mm: Sequence[float],
    population: Population,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int16], Mask]:
    """Lesion ids 1..n (Z, Y, X) and the rims around them, all inside the liver and apart.

    A lesion without room shrinks; where even the smallest finds none, no more are added.
    """
    instances, rim = np.zeros(liver.shape, np.int16), np.zeros(liver.shape, np.bool_)
    where = np.nonzero(liver)
    points = np.stack([axis[index] for axis, index in zip(axes, where, strict=True)], axis=1)
    # A lesion may reach the surface: its centre lies at least 0.6 of its reach deep in the liver.
    depth_mm: Array = ndimage.distance_transform_edt(liver, sampling=spacing_mm)
    room = depth_mm[where] / 0.6
    rough = 1.0 + 0.08 * smooth_field(axes, 18.0, rng)[where]
    for number in range(1, 1 + int(rng.integers(*population.lesion_count, endpoint=True))):
        thickness = rng.uniform(*population.rim_mm)
        radius = min(rng.uniform(*population.lesion_radius_mm), room.max() - thickness)
        if radius < population.lesion_radius_mm[0]:
            break
        centre = points[rng.choice(np.nonzero(room - thickness >= radius)[0])]
        stretch = np.exp(0.12 * rng.standard_normal(3))
        stretch /= np.cbrt(stretch.prod())  # keeps the volume
        distance = np.linalg.norm((points - centre) / stretch, axis=1) * rough
        near = np.zeros(liver.shape, np.bool_)
        near[where] = distance < radius
        core = _largest_part(near & (instances == 0) & ~rim)
        instances[core] = number
        near[where] = distance < radius + thickness
        rim |= near & (instances == 0)
        room = np.minimum(room, distance - radius - thickness)
    return instances, rim


def _largest_part(mask: Mask) -> Mask:
    """The largest part of a mask (Z, Y, X) that hangs together by faces."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    largest: Mask = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    return largest
