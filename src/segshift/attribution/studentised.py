"""How far two samples are apart, in every choice of the first one, over its own standard error.

Samples that are alike in what is asked may still differ in size and in spread. Then the difference
of the real samples varies more, or less, than that of choices out of both, and plain differences
are shown too often. Studentised ones are not (Neubert and Brunner, Computational Statistics & Data
Analysis 51, 2007, 5192-5204; Chung and Romano, Annals of Statistics 41, 2013, 484-507).
"""

import numpy as np

from segshift.attribution.permutation import Array, Choices
from segshift.results.significance import ROUNDING


def welch(values: Array, members: Choices) -> Array:
    """Welch's t of each choice (choices,), of values (n,): the mean outside minus that inside."""
    (outside, error), (inside, other) = (
        _mean_and_error(values, side) for side in (~members, members)
    )
    return _over(outside - inside, np.sqrt(error + other), scale=float(np.abs(values).max()))


def brunner_munzel(larger: Array, members: Choices) -> Array:
    """Brunner and Munzel's statistic of each choice (choices,): have those outside larger values?

    Of what `pairs.larger` gave (n, n), all known. Biometrical Journal 42, 2000, 17-25; of patients
    with several cases Roy et al., Statistics in Medicine 38, 2019, 4939-4962.
    """
    first = members.sum(axis=1)[:, None]
    beyond = members @ larger.T
    # Where each patient lies among those of the other side.
    second = members.shape[1] - first
    among = np.where(members, (larger.sum(axis=1) - beyond) / second, beyond / first)
    effect, error = _mean_and_error(among, ~members)
    _, other = _mean_and_error(among, members)
    return _over(effect - 0.5, np.sqrt(error + other))


def mmd(similar: Array, members: Choices) -> Array:
    """Squared maximum mean discrepancy of each choice (choices,) over what chance makes of it.

    Of similarities (n, n); Gretton et al., JMLR 13 (2012), 723-773. By chance it is the spread of
    the patients in each sample over their number (Alekseyenko, Bioinformatics 32, 2016, 3552-3558).
    """
    first = members.sum(axis=1)
    second = members.shape[1] - first
    seen = members @ similar
    inside = np.einsum("cp,cp->c", seen, members)
    across = seen.sum(axis=1) - inside
    outside = similar.sum() - inside - 2 * across
    own = members @ similar.diagonal(), ~members @ similar.diagonal()
    squared, expected = -2 * across / (first * second), np.zeros(len(members))
    for count, whole, alone in zip((first, second), (inside, outside), own, strict=True):
        squared += whole / count**2
        expected += (alone - whole / count) / np.maximum(count - 1, 1) / count
    return _over(np.maximum(squared, 0), expected)


def _mean_and_error(values: Array, sides: Choices) -> tuple[Array, Array]:
    """Mean of each side (choices,) and the variance of the mean, of values (n,) or (choices, n)."""
    count = sides.sum(axis=1)
    weight = sides.astype(np.float64)
    mean = _sums(values, weight) / count
    squares = np.square(values - mean[:, None])
    return mean, _sums(squares, weight) / np.maximum(count - 1, 1) / count


def _sums(values: Array, weight: Array) -> Array:
    """Of values (choices, n) or (n,) the weighted sum of each choice (choices,)."""
    return np.asarray(np.einsum("...p,cp->c" if values.ndim == 1 else "cp,cp->c", values, weight))


def _over(difference: Array, error: Array, *, scale: float = 1.0) -> Array:
    """Differences over their errors: 0 of no difference, infinite of one without an error.

    What is less than a rounding of `scale` is none. Samples that are wholly apart have no error;
    nothing is further apart.
    """
    apart = np.where(np.abs(difference) > ROUNDING * scale, difference, 0.0)
    sure = error <= ROUNDING * scale
    endless = np.where(apart == 0, 0.0, np.copysign(np.inf, apart))
    return np.where(sure, endless, apart / np.where(sure, 1.0, error))
