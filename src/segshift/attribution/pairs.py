"""Two samples of patients by pairs of patients, of whom each may have several cases.

Numbers are not averaged over a patient's cases: means of six differ less from each other than
single ones do, and of skewed numbers they are larger than most single ones, which would pass for a
shift where patients of one site were scanned more often. Each case of one patient is held against
each of the other; a pair of patients is the mean over these, so every patient weighs the same.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from segshift.attribution.permutation import Array

Owners = NDArray[np.int64]  # (cases,): the place of each case's patient


def weights(owners: Owners) -> Array:
    """What each case weighs (cases,) where every patient weighs the same; together 1."""
    each = 1 / np.bincount(owners)[owners]
    return np.asarray(each / each.sum())


def kernel(features: Array, owners: Owners) -> Array:
    """Gaussian similarities (patients, patients) of features (cases, f).

    As wide as the median distance of two patients. Every feature weighs alike; unknown values (NaN)
    are the median of the known ones. A feature that tells nobody apart weighs nothing.
    """
    known = np.where(np.isnan(features), np.nanmedian(features, axis=0), features)
    shares, weight = _shares(owners, np.ones(len(owners), dtype=bool)), weights(owners)
    varied = known[:, np.ptp(known, axis=0) > 0]
    centred = varied - weight @ varied
    scaled = centred / np.sqrt(weight @ np.square(centred))
    squares = cdist(scaled, scaled, "sqeuclidean")
    apart = (shares @ squares @ shares.T)[np.triu_indices(len(shares), k=1)]
    width = np.median(apart) if len(apart) else 0.0
    similar = np.exp(-squares / width) if width > 0 else np.ones_like(squares)
    return np.asarray(shares @ similar @ shares.T)


def larger(values: Array, owners: Owners) -> Array:
    """How often a case of one patient has more than one of another (patients, patients).

    Of values (cases,); equals count half. NaN where one of the two has no known value.
    """
    known = ~np.isnan(values)
    shares = _shares(owners, known)
    more = np.sign(values[known][:, None] - values[known]) / 2 + 0.5
    with_value = shares.sum(axis=1) > 0
    whole = shares[:, known] @ more @ shares[:, known].T
    return np.where(with_value[:, None] & with_value, whole, np.nan)


def _shares(owners: Owners, known: NDArray[np.bool_]) -> Array:
    """What each case is of its patient (patients, cases): one over the number of known cases."""
    patients = int(owners.max()) + 1
    mine = (owners == np.arange(patients)[:, None]) & known
    return np.asarray(mine / np.maximum(mine.sum(axis=1, keepdims=True), 1))
