"""How bad is the worst site? The lowest of many means is mostly the unluckiest of them.

Of 30 equal sites of two patients one is always far below the others, by chance. Empirical Bayes
pulls each site's mean towards that of all sites, the more the fewer patients it has and the less
the sites differ beyond that chance (Efron and Morris, JASA 70, 1975):

    shrunken = mean of sites + B (mean of the site - mean of sites),  B = tau^2 / (tau^2 + s^2 / n)

s^2 is the variance of patients within their sites, pooled over all sites; tau^2 that between sites,
by the method of moments, at least 0 (DerSimonian and Laird, Controlled Clinical Trials 7, 1986). A
site far from all others is no draw from their spread: no mean is moved by more than `FURTHEST` of
the standard deviations that such a site had, times its share 1 - B (Efron and Morris, JASA 67,
1972, "limited translation").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.metrics import Measure
from segshift.results.intervals import PatientMeans, by_patient

FURTHEST = 3.0  # standard deviations: of 30 equal sites the worst is hardly ever beyond
SITE = ("set", "site")

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WorstSite:
    """The site whose shrunken mean is the worst; `mean` is its own, as it was measured."""

    set: str
    site: str
    mean: float
    patients: int
    shrunken: float


def site_means(rows: pd.DataFrame, *, keys: Sequence[str] = SITE) -> pd.DataFrame:
    """One line per site: `mean` of the structure means, `patients` with any, and `shrunken`.

    `rows` are of one metric; sites differ in `keys`. Sites without a value have no line.
    """
    known = rows.dropna(subset=["value"])
    sites = [
        (key, patient_values(by_patient(own, ["structure"])))
        for key, own in known.groupby(list(keys))
    ]
    table = pd.DataFrame([key for key, _ in sites], columns=list(keys))
    values = [values for _, values in sites]
    return table.assign(
        mean=[each.mean() for each in values],
        patients=[len(each) for each in values],
        shrunken=shrunken_means(values),
    )


def worst_site(sites: pd.DataFrame, *, measure: Measure) -> WorstSite | None:
    """The line of `site_means` with the worst shrunken mean; None unless two sites have one.

    Not that with the worst mean: that is mostly a site of few patients. Of equals, as where all
    sites are shrunken to one mean, it is the one with the worst mean, then the first.
    """
    if len(sites) < 2 or measure.signed:
        return None
    bad = sites.assign(bad=measure.badness(sites["shrunken"]), own=measure.badness(sites["mean"]))
    worst = bad.sort_values(["bad", "own"], ascending=False, kind="stable").iloc[0]
    names = str(worst["set"]), str(worst["site"])
    return WorstSite(*names, float(worst["mean"]), int(worst["patients"]), float(worst["shrunken"]))


def patient_values(own: PatientMeans) -> Array:
    """A value per patient (P,) whose mean is the mean of the structure means of `own`.

    A patient without a structure does not move its mean, one of few with it moves it much: this is
    the mean over structures, taken apart by who made it.
    """
    own_means, measured = own.means, own.measured
    known = measured > 0
    apart = np.where(own.cases > 0, own.values - own_means, 0.0)[:, known] / measured[known]
    values = own_means[known].mean() + len(own.patients) * apart.mean(axis=1)
    return np.asarray(values)


def shrunken_means(sites: Sequence[Array]) -> Array:
    """Shrunken means (S,) of the patients' values of each site.

    As measured where the variance within sites is unknown (a patient each) or 0.
    """
    patients = np.array([len(values) for values in sites], dtype=np.float64)
    means = np.array([values.mean() for values in sites])
    free = (patients - 1).sum()
    within = sum(float(values.var() * len(values)) for values in sites) / max(free, 1)
    if within <= 0:
        return means
    errors = within / patients  # of each mean, squared
    between = _between(means, errors)
    centre = np.average(means, weights=1 / (between + errors))
    apart, kept = means - centre, between / (between + errors)
    furthest = FURTHEST * np.sqrt(between + errors)
    near = np.clip(apart, -furthest, furthest)
    # In this order, so that means which are wholly shrunken are equal to the last bit.
    return np.asarray(centre + kept * near + (apart - near))


def _between(means: Array, errors: Array) -> float:
    """The variance between sites beyond that of their means: what Cochran's Q is too large by."""
    weights = 1 / errors
    q = float((weights * (means - np.average(means, weights=weights)) ** 2).sum())
    scale = weights.sum() - (weights**2).sum() / weights.sum()
    return max((q - (len(means) - 1)) / float(scale), 0.0) if scale > 0 else 0.0
