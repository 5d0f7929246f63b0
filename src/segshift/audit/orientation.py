"""Is a label, or a whole case, mirrored or transposed against the rest of its site?

Where the structures lie at the other cases tells; unless it tells very clearly, a second witness
must agree: where the image has edges, or where its anatomy lies. Thumbnails of label and image are
turned in all 16 ways that keep the slice axis and compared with the mean of the others.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from segshift.audit.pooling import pooled

GRID = (8, 8, 8)
MOST_STRUCTURES = 3  # more say little more and cost memory
LEAST_OTHERS = 4  # a smaller site is compared with the whole cohort
PLACE_GAIN = 0.15  # by which the correlation with the others' labels has to rise
PLACE_LEAST = 0.55  # and reach: where structures lie anywhere (nuclei), place says nothing
SURE_LEAST = 0.75  # a correlation that needs no second witness ...
SURE_RATIO = 2.5  # ... if this many times as much is unexplained without the turn
EDGE_GAIN = 1.1  # factor by which the label's outline has to lie on stronger edges
IMAGE_GAIN = 0.35  # by which the correlation with the others' images has to rise


@dataclass(frozen=True, slots=True)
class Pose:
    """A turn of (..., z, y, x): first transposed in the slice, then mirrored along `axes`."""

    transposed: bool
    axes: tuple[int, ...]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """The turned array."""
        turned = array.swapaxes(-1, -2) if self.transposed else array
        return np.flip(turned, self.axes)

    @property
    def name(self) -> str:
        """As a person would say it."""
        words = ["transposed (x and y swapped)"] if self.transposed else []
        names = {-1: "left-right", -2: "front-back", -3: "up-down"}
        mirrored = " and ".join(names[axis] for axis in self.axes)
        return " and ".join([*words, *([f"mirrored {mirrored}"] if mirrored else [])])


# The identity first, then by the number of steps: of equal poses the simplest is named.
_AXES = ((), (-1,), (-2,), (-3,), (-1, -2), (-1, -3), (-2, -3), (-1, -2, -3))
POSES = tuple(Pose(transposed, axes) for transposed in (False, True) for axes in _AXES)


@dataclass(frozen=True, slots=True)
class Poses:
    """Thumbnails float16 of label (K, 8, 8, 8) and image (8, 8, 8); edge strength per pose."""

    label: np.ndarray
    image: np.ndarray
    edges: tuple[float, ...]


def poses(image: np.ndarray, label: np.ndarray, structures: int) -> Poses:
    """Of a pooled image (32, 64, 64) and the label's structure indices (D, H, W)."""
    cells = [
        pooled((label == index).astype(np.float32), image.shape)
        for index in range(1, min(structures, MOST_STRUCTURES) + 1)
    ]
    rank = np.argsort(np.argsort(image, axis=None)).reshape(image.shape) / image.size
    slope = np.sqrt(sum(ndimage.sobel(rank, axis) ** 2 for axis in (1, 2)))
    any_structure = np.asarray(sum(cells)) > 0.5
    cross = ndimage.generate_binary_structure(3, 1) & (np.arange(3) == 1)[:, None, None]
    outline = any_structure ^ ndimage.binary_erosion(any_structure, cross, border_value=1)
    edges = tuple(float(slope[pose(outline)].mean()) if outline.any() else 0.0 for pose in POSES)
    return Poses(
        np.stack([pooled(one, GRID) for one in cells]).astype(np.float16),
        pooled(rank, GRID).astype(np.float16),
        edges,
    )


def turned_cases(sites: Sequence[str], all_poses: Sequence[Poses]) -> dict[int, tuple[Pose, bool]]:
    """The cases that fit the others better in another pose, and whether the label alone does.

    `sites[i]` is where `all_poses[i]` was acquired. Keys are indices into both.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for index, site in enumerate(sites):
        members[site].append(index)
    found = {}
    everyone = list(range(len(sites)))
    for indices in members.values():
        group = indices if len(indices) > LEAST_OTHERS else everyone
        if len(group) <= 2:
            continue
        label_sum = np.sum([all_poses[i].label.astype(np.float32) for i in group], axis=0)
        image_sum = np.sum([all_poses[i].image.astype(np.float32) for i in group], axis=0)
        for index in indices:
            verdict = _verdict(all_poses[index], label_sum, image_sum)
            if verdict:
                found[index] = verdict
    return found


def _verdict(one: Poses, label_sum: np.ndarray, image_sum: np.ndarray) -> tuple[Pose, bool] | None:
    place = _fits(one.label, label_sum)
    best = int(np.argmax(place))
    if place[best] < PLACE_LEAST or place[best] - place[0] < PLACE_GAIN:
        return None
    image = _fits(one.image, image_sum)
    image_turned = image[best] - image[0]
    if place[best] > SURE_LEAST and (1 - place[0]) > SURE_RATIO * (1 - place[best]):
        return POSES[best], bool(image_turned <= 0)
    if one.edges[best] > EDGE_GAIN * one.edges[0]:
        return POSES[best], True
    return (POSES[best], False) if image_turned > IMAGE_GAIN else None


def _fits(own: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Correlation of every pose of a thumbnail with the mean of the others."""
    mine = own.astype(np.float32)
    others = total - mine
    return np.array([_correlation(pose(mine), others) for pose in POSES])


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    a, b = one.ravel() - one.mean(), other.ravel() - other.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size > 0 else 0.0
