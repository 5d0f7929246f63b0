"""References of the losses in float64 NumPy, with no code shared with the package.

z (B, K, *S) logits; y (B, *S) class indices; w (K,) or None. Written for exclusive structures
without ignored voxels: tests of their own lead regions and ignored voxels back to these.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.ndimage import (
    binary_dilation,
    distance_transform_edt,
    generate_binary_structure,
    grey_dilation,
    grey_erosion,
)
from scipy.ndimage import label as label_blobs
from skimage.morphology import skeletonize

SPACING_MM = (3.0, 1.5, 0.8)
SMOOTH = 1e-5


def frequency(k):
    return np.arange(k, 0, -1) / np.arange(k, 0, -1).sum()


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def ones_unless(w, k):
    return np.ones(k) if w is None else np.asarray(w, float)


def of_truth(values, y):
    return np.take_along_axis(values, y[:, None], 1)[:, 0]


def joined(z, y):
    """The samples of a batch laid end to end: one big patch."""
    return np.concatenate(z, axis=1)[None], np.concatenate(y, axis=0)[None]


def weighted(terms, w, k):
    """Mean over samples and structures of terms {(sample, structure): value}."""
    weight = ones_unless(w, k)
    return float(np.mean([weight[s] * value for (_, s), value in terms.items()]))


def each(z, y, first):
    """Sample and structure, its probability and its mask."""
    for b, (p, label) in enumerate(zip(softmax(z), y, strict=True)):
        for s in range(first, z.shape[1]):
            yield (b, s), p[s], label == s


def reference_bce(z, y, w):
    k = z.shape[1]
    of_voxel = ones_unless(w, k)[y]
    per_structure = [
        (of_voxel * np.where(y == s, np.logaddexp(0, -z[:, s]), np.logaddexp(0, z[:, s]))).mean()
        for s in range(k)
    ]
    return float(np.mean(per_structure))


def reference_weighted_bce(z, y, w):
    k = z.shape[1]
    return reference_bce(z, y, 1 / (k * frequency(k)) if w is None else w)


def reference_focal(z, y, w, gamma=2.0):
    p_y = of_truth(softmax(z), y)
    return float((ones_unless(w, z.shape[1])[y] * (1 - p_y) ** gamma * -np.log(p_y)).mean())


def reference_sigmoid_focal(z, y, w):
    k, p = z.shape[1], sigmoid(z)
    terms = []
    for s in range(k):
        p_t = np.where(y == s, p[:, s], 1 - p[:, s])
        minus_log = np.where(y == s, np.logaddexp(0, -z[:, s]), np.logaddexp(0, z[:, s]))
        terms.append((ones_unless(w, k)[y] * (1 - p_t) ** 2 * minus_log).mean())
    return float(np.mean(terms))


def reference_cross_entropy(z, y, w):
    return reference_focal(z, y, w, gamma=0.0)


def reference_topk(z, y, w, share=0.1):
    p_y = of_truth(softmax(z), y).ravel()
    hardest = np.argsort(p_y)[: math.ceil(share * p_y.size)]
    return float((ones_unless(w, z.shape[1])[y.ravel()] * -np.log(p_y))[hardest].mean())


def reference_label_smoothing(z, y, w, smoothing=0.1):
    k = z.shape[1]
    asked = np.full(z.shape, smoothing / k)
    for s in range(k):
        asked[:, s][y == s] += 1 - smoothing
    return float((ones_unless(w, k)[y] * (asked * -np.log(softmax(z))).sum(1)).mean())


def share_nearby(mask):
    """Share of the mask (B, *S) in the 3 x 3 (x 3) voxels around each, within the patch."""
    near = np.zeros(mask.shape)
    for place in np.ndindex(*mask.shape):
        box = tuple(slice(max(i - 1, 0), i + 2) for i in place[1:])
        near[place] = mask[(place[0], *box)].mean()
    return near


def reference_nacl(z, y, w, alpha=0.1):
    k = z.shape[1]
    away = sum(np.abs(z[:, s] - share_nearby(y == s)) for s in range(k)) / k
    loss = -np.log(of_truth(softmax(z), y)) + alpha * away
    return float((ones_unless(w, k)[y] * loss).mean())


def tversky_index(p, g, fp, fn, smooth):
    hit, false, missed = (p * g).mean(), (p * ~g).mean(), ((1 - p) * g).mean()
    return (hit + smooth) / (hit + fp * false + fn * missed + smooth)


def reference_tversky(z, y, w, fp=0.3, fn=0.7, smooth=SMOOTH, first=0, power=1.0):
    terms = {
        key: (1 - tversky_index(p, g, fp, fn, smooth)) ** power for key, p, g in each(z, y, first)
    }
    return weighted(terms, w, z.shape[1])


def reference_focal_tversky(z, y, w):
    return reference_tversky(z, y, w, power=0.75)


def reference_dice(z, y, w, first=0):
    return reference_tversky(z, y, w, 0.5, 0.5, SMOOTH / 2, first)


def generalised_miss(p, g, w):
    """1 - the one ratio of all structures of a sample, p and bool g (K, *S), w (K,)."""
    k = len(g)
    volume = np.array([one.mean() for one in g])
    counted = (volume > 0) & (w > 0)
    smallest = volume[counted].min() if counted.any() else 1.0
    importance = 1 / np.where(counted, volume, smallest) ** 2 * w
    importance = importance / importance.sum()
    both = sum(importance[s] * (p[s] * g[s]).mean() for s in range(k))
    total = sum(importance[s] * (p[s].mean() + volume[s]) for s in range(k))
    return 1 - (2 * both + SMOOTH) / (total + SMOOTH)


def reference_generalised_dice(z, y, w):
    k = z.shape[1]
    return float(np.mean([
        generalised_miss(p, np.stack([label == s for s in range(k)]), ones_unless(w, k))
        for p, label in zip(softmax(z), y, strict=True)
    ]))  # fmt: skip


def reference_dice_ce(z, y, w):
    return reference_dice(*joined(z, y), w, first=1) + reference_cross_entropy(z, y, w)


def reference_dice_focal(z, y, w):
    return reference_dice(*joined(z, y), w) + reference_focal(z, y, w)


def reference_unified_focal(z, y, w, fn=0.6, gamma=0.5):
    k, p_y = z.shape[1], of_truth(softmax(z), y)
    factor = np.where(y > 0, fn, (1 - fn) * (1 - p_y) ** gamma)
    focal = (ones_unless(w, k)[y] * factor * -np.log(p_y)).mean()
    terms = {
        key: (1 - tversky_index(p, g, 1 - fn, fn, SMOOTH)) ** (1 - gamma if key[1] else 1)
        for key, p, g in each(z, y, 0)
    }
    return float(0.5 * focal + 0.5 * weighted(terms, w, k))


def reference_distance(mask, spacing_mm):
    if mask.all() or not mask.any():
        return np.full(mask.shape, -np.inf if mask.all() else np.inf)
    inside = distance_transform_edt(mask, sampling=spacing_mm)
    return distance_transform_edt(~mask, sampling=spacing_mm) - inside


def reference_phi(mask, absent=1.0):
    spacing_mm = np.array(SPACING_MM)[-mask.ndim :]
    if not mask.any():
        return np.full(mask.shape, absent)
    if mask.all():
        return np.full(mask.shape, -absent)
    diagonal_mm = np.linalg.norm(spacing_mm * mask.shape)
    return np.clip(reference_distance(mask, spacing_mm) / diagonal_mm, -1, 1)


def reference_boundary(z, y, w):
    terms = {key: (p * reference_phi(g)).mean() for key, p, g in each(z, y, 1)}
    return reference_dice(z, y, w) + weighted(terms, w, z.shape[1])


def reference_generalised_surface(z, y, w):
    terms = {}
    for key, p, g in each(z, y, 1):
        phi = reference_phi(g)
        terms[key] = 1 - ((phi * (1 - (g + p))) ** 2).sum() / (phi**2).sum()
    return reference_dice(z, y, w) + weighted(terms, w, z.shape[1])


def reference_hausdorff_dt(z, y, w):
    terms = {
        key: ((p - g) ** 2 * (reference_phi(g) ** 2 + reference_phi(p > 0.5, 0.0) ** 2)).mean()
        for key, p, g in each(z, y, 1)
    }
    return reference_dice(z, y, w) + 10 * weighted(terms, w, z.shape[1])


def reference_soft_skeleton(volume, iterations=3):
    """Shit et al., algorithm 1: openings of ever more eroded volumes."""
    cross, cube = generate_binary_structure(volume.ndim, 1), np.ones((3,) * volume.ndim)

    def opening_lost(v):
        eroded = grey_erosion(v, footprint=cross, mode="constant", cval=np.inf)
        opened = grey_dilation(eroded, footprint=cube, mode="constant", cval=-np.inf)
        return np.maximum(v - opened, 0)

    skeleton = opening_lost(volume)
    for _ in range(iterations):
        volume = grey_erosion(volume, footprint=cross, mode="constant", cval=np.inf)
        lost = opening_lost(volume)
        skeleton = skeleton + np.maximum(lost - skeleton * lost, 0)
    return skeleton


def reference_cl_dice(z, y, w):
    def share(skeleton, volume):
        return ((skeleton * volume).mean() + SMOOTH) / (skeleton.mean() + SMOOTH)

    terms = {}
    for key, p, g in each(z, y, 1):
        precision = share(reference_soft_skeleton(p), g)
        sensitivity = share(reference_soft_skeleton(g.astype(float)), p)
        terms[key] = 1 - 2 * precision * sensitivity / (precision + sensitivity)
    return 0.5 * reference_dice(z, y, w) + 0.5 * weighted(terms, w, z.shape[1])


def reference_skeleton_recall(z, y, w):
    terms = {}
    for key, p, g in each(z, y, 1):
        everything = y[key[0]] > 0  # of which the paper takes one skeleton
        cross = generate_binary_structure(g.ndim, 1)
        tube = binary_dilation(skeletonize(everything), cross, iterations=2) & g
        terms[key] = 1 - ((p * tube).mean() + SMOOTH) / (tube.mean() + SMOOTH)
    return reference_dice_ce(z, y, w) + weighted(terms, w, z.shape[1])


def reference_blob(z, y, w):
    terms = {}
    for key, p, g in each(z, y, 1):
        numbers, count = label_blobs(g, np.ones((3,) * g.ndim))
        misses = []
        for number in range(1, count + 1) if count else [1]:
            # Voxels of other blobs are left out, but the patch keeps its size.
            one, counted = numbers == number, (numbers == number) | ~g
            both, total = (p * one).mean(), (p * counted).mean() + one.mean()
            misses.append(1 - (2 * both + SMOOTH) / (total + SMOOTH))
        terms[key] = np.mean(misses)
    return reference_dice_ce(z, y, w) + 0.5 * weighted(terms, w, z.shape[1])


def reference_sum(z, y, w):
    terms = {key: (p * reference_phi(g)).mean() for key, p, g in each(z, y, 1)}
    return reference_cross_entropy(z, y, w) + 0.5 * weighted(terms, w, z.shape[1])


REFERENCES: dict[str, Callable[..., float]] = {
    "bce": reference_bce,
    "blob": reference_blob,
    "boundary": reference_boundary,
    "cl_dice": reference_cl_dice,
    "cross_entropy": reference_cross_entropy,
    "dice": reference_dice,
    "dice_ce": reference_dice_ce,
    "dice_focal": reference_dice_focal,
    "focal": reference_focal,
    "focal_tversky": reference_focal_tversky,
    "generalised_dice": reference_generalised_dice,
    "generalised_surface": reference_generalised_surface,
    "hausdorff_dt": reference_hausdorff_dt,
    "label_smoothing": reference_label_smoothing,
    "nacl": reference_nacl,
    "sigmoid_focal": reference_sigmoid_focal,
    "skeleton_recall": reference_skeleton_recall,
    "sum": reference_sum,
    "topk": reference_topk,
    "tversky": reference_tversky,
    "unified_focal": reference_unified_focal,
    "weighted_bce": reference_weighted_bce,
}
