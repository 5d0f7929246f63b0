"""Several raters' labels as one."""

from collections.abc import Sequence

import numpy as np

from segshift.errors import InputError


def combined(labels: Sequence[np.ndarray], consensus: str) -> np.ndarray:
    """One label (D, H, W) of class indices uint8 by majority vote or STAPLE; of one, itself.

    A tie of votes goes to the lowest index, the background before all. STAPLE (Warfield et al.
    2004) weighs each rater by an estimate of how good he is; where it cannot decide, the majority
    does. Raises InputError if the labels differ in shape.
    """
    if len(labels) == 1:
        return labels[0]
    shapes = {label.shape for label in labels}
    if len(shapes) > 1:
        raise InputError(f"the raters' labels differ in shape: {sorted(shapes)}")
    majority = _majority(labels)
    return majority if consensus == "majority" else _staple(labels, majority)


def _majority(labels: Sequence[np.ndarray]) -> np.ndarray:
    winner, most = labels[0], np.zeros(labels[0].shape, dtype=np.uint8)
    for index in np.unique(np.concatenate([np.unique(label) for label in labels])):
        votes = sum((label == index).astype(np.uint8) for label in labels)
        winner = np.where(votes > most, np.uint8(index), winner)
        most = np.maximum(most, votes)
    return np.asarray(winner, dtype=np.uint8)


def _staple(labels: Sequence[np.ndarray], majority: np.ndarray) -> np.ndarray:
    import SimpleITK  # takes a second to import, and few need it

    # Numbered from 0: the filter's tables grow with the square of the largest, and 255 hangs it.
    known = np.unique(np.concatenate([np.unique(label) for label in labels]))
    undecided = len(known)
    images = [
        SimpleITK.GetImageFromArray(np.searchsorted(known, label).astype(np.uint16))
        for label in labels
    ]
    staple = SimpleITK.MultiLabelSTAPLEImageFilter()
    staple.SetLabelForUndecidedPixels(undecided)
    result = SimpleITK.GetArrayFromImage(staple.Execute(images))
    winner = known[np.minimum(result, undecided - 1)]
    return np.where(result == undecided, majority, winner).astype(np.uint8)
