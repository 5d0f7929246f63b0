"""The worst site is told from the unluckiest one."""

import numpy as np
import pandas as pd
import pytest

from segshift.metrics import Measure
from segshift.results.intervals import by_patient
from segshift.results.shrinkage import (
    patient_values,
    shrunken_means,
    site_means,
    worst_site,
)

DICE = Measure("dice", "", "higher")
HD95 = Measure("hd95_mm", "mm", "lower")
TRUTH = 15 / 18  # the mean of the Dice of patients below
FEW, MANY = (2, 3, 5, 8, 12, 20, 40, 60), (2, 4, 6, 10, 20, 60)  # sizes of sites


def dice(random: np.random.Generator, patients: int) -> np.ndarray:
    """Skewed, as Dice is: .83, most patients are better, few are far worse."""
    return random.beta(15, 3, patients)


def rows_of(sites: dict[str, np.ndarray]) -> pd.DataFrame:
    """Values (patients, structures) of sites; NaN is no value."""
    lines = [
        (f"site-{site}", site, f"{site}{p}", f"{site}{p}", f"s{s}", value)
        for site, values in sites.items()
        for (p, s), value in np.ndenumerate(values)
    ]
    return pd.DataFrame(lines, columns=["set", "site", "case", "patient", "structure", "value"])


def table_of(sites: dict[str, np.ndarray]) -> pd.DataFrame:
    """What `site_means` gives of one structure, without rows, of which many draws have too many."""
    values = list(sites.values())
    columns = {"set": "s", "site": list(sites), "mean": [v.mean() for v in values]}
    patients = [len(v) for v in values]
    return pd.DataFrame({**columns, "patients": patients, "shrunken": shrunken_means(values)})


def test_the_worst_of_equal_sites_is_not_as_bad_as_it_looks() -> None:
    random = np.random.default_rng(0)
    raw, told = [], []
    for _ in range(1000):
        table = table_of({str(i): dice(random, 2) for i in range(30)})
        worst = worst_site(table, measure=DICE)
        assert worst is not None
        raw.append(table["mean"].min())
        told.append(worst.shrunken)
    assert np.mean(raw) == pytest.approx(0.69, abs=0.01)  # what the lowest mean says of it
    assert np.mean(told) == pytest.approx(TRUTH, abs=0.03)


@pytest.mark.parametrize("sizes", [FEW, np.resize(MANY, 30), np.full(30, 20)])
def test_a_site_that_is_worse_keeps_its_mean(sizes: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    moved, found = [], []
    for _ in range(1000):
        others = {str(i): dice(random, n) for i, n in enumerate(sizes)}
        table = table_of({**others, "bad": dice(random, 20) - 0.2})
        worst = worst_site(table, measure=DICE)
        assert worst is not None
        found.append(worst.site == "bad")
        own = table.set_index("site").loc["bad"]
        moved.append(own["shrunken"] - own["mean"])
    assert np.max(np.abs(moved)) < 0.05  # in every draw
    assert np.mean(found) > 0.99  # a site of two patients is as low once in a while


def test_a_table_of_rows_is_that_of_its_values() -> None:
    random = np.random.default_rng(5)
    sites = {site: dice(random, n) for site, n in zip("ABCD", (2, 5, 9, 4), strict=True)}
    found = site_means(rows_of({site: values[:, None] for site, values in sites.items()}))
    columns = ["site", "mean", "patients", "shrunken"]
    pd.testing.assert_frame_equal(found[columns], table_of(sites)[columns])


def test_shrinking_by_hand() -> None:
    # Means 0, 2, 4; within: 6 x 1 / 3 = 2, so errors of 1. Q = 8, 2 expected, scale 3 - 1: tau^2 3.
    sites = [np.array([m - 1.0, m + 1.0]) for m in (0.0, 2.0, 4.0)]
    assert shrunken_means(sites) == pytest.approx([2 - 2 * 0.75, 2, 2 + 2 * 0.75])
    # Closer together than chance alone would put them: one mean.
    close = [np.array([m - 1.0, m + 1.0]) for m in (0.0, 0.1, 0.2)]
    assert shrunken_means(close) == pytest.approx([0.1, 0.1, 0.1])


def test_shrinking_is_that_of_sites_whose_truth_is_known() -> None:
    """Of many normal sites: the posterior mean, with the variances that they were made with."""
    random = np.random.default_rng(2)
    truth = random.normal(0.8, 0.05, 2000)
    patients = np.resize([2, 4, 8, 16], 2000)
    sites = [random.normal(t, 0.1, n) for t, n in zip(truth, patients, strict=True)]
    own = np.array([values.mean() for values in sites])
    best = 0.8 + 0.05**2 / (0.05**2 + 0.1**2 / patients) * (own - 0.8)
    apart = np.abs(shrunken_means(sites) - best)
    assert np.quantile(apart, 0.99) < 0.01  # of 2000 sites a few lie beyond three deviations


def test_no_mean_is_moved_where_nothing_says_how_far() -> None:
    for sites in ([[0.5], [0.9]], [[0.5, 0.5], [0.9, 0.9]]):
        found = shrunken_means([np.array(values) for values in sites])
        assert found == pytest.approx([0.5, 0.9])


def test_the_values_of_patients_make_the_mean_over_structures() -> None:
    values = np.array([[0.9, np.nan], [0.8, 0.2], [0.7, np.nan], [np.nan, 0.6]])
    own = by_patient(rows_of({"A": values}).dropna(), ["structure"])
    by_hand = (0.8 + 0.4) / 2
    assert patient_values(own).mean() == pytest.approx(by_hand)
    (line,) = site_means(rows_of({"A": values})).to_dict("records")
    assert (line["mean"], line["patients"]) == (pytest.approx(by_hand), 4)
    # Of all structures in all patients they are the patients' means.
    whole = np.random.default_rng(0).random((5, 3))
    own = by_patient(rows_of({"A": whole}), ["structure"])
    assert patient_values(own) == pytest.approx(whole.mean(axis=1))


def test_the_spread_of_the_patients_values_is_that_of_the_mean() -> None:
    """With a structure that few have: the variance of means, over studies, is theirs over n."""
    random = np.random.default_rng(3)
    means, variances = [], []
    for _ in range(500):
        values = random.normal(0.8, 0.1, (40, 2))
        values[10:, 1] = np.nan
        own = by_patient(rows_of({"A": values}).dropna(), ["structure"])
        of_patients = patient_values(own)
        means.append(of_patients.mean())
        variances.append(of_patients.var() / 40)
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.2)


def test_the_worst_is_the_one_that_is_surely_bad() -> None:
    random = np.random.default_rng(4)
    good = {f"{i}": random.normal(0.8, 0.1, (20, 1)) for i in range(8)}
    sites = {
        **good,
        "sure": random.normal(0.5, 0.1, (30, 1)),
        "unlucky": np.array([[0.35], [0.55]]),
    }
    table = site_means(rows_of(sites))
    assert table.set_index("site")["mean"].idxmin() == "unlucky"
    worst = worst_site(table, measure=DICE)
    assert worst is not None
    assert (worst.set, worst.site, worst.patients) == ("site-sure", "sure", 30)
    assert worst.mean == pytest.approx(sites["sure"].mean())
    flipped = {site: 100 * (1 - values) for site, values in sites.items()}
    worst = worst_site(site_means(rows_of(flipped)), measure=HD95)
    assert worst is not None
    assert worst.site == "sure"


def test_of_equal_sites_the_lowest_is_named_and_one_site_is_none() -> None:
    sites = {"A": np.array([[0.6], [0.9]]), "B": np.array([[0.5], [0.9]])}
    worst = worst_site(site_means(rows_of(sites)), measure=DICE)
    assert worst is not None
    assert (worst.site, worst.mean, worst.shrunken) == (
        "B",
        pytest.approx(0.7),
        pytest.approx(0.725),
    )
    only = {"A": sites["A"], "B": np.array([[np.nan]])}
    assert worst_site(site_means(rows_of(only)), measure=DICE) is None
    signed = Measure("volume_difference_ml", "ml", "zero")
    assert worst_site(site_means(rows_of(sites)), measure=signed) is None


def test_means_that_are_wholly_shrunken_are_equal_to_the_last_bit() -> None:
    """Else rounding decides which site is the worst: distances differ by more than a factor of 2.

    Of sites that differ no more than by chance the one with the worst own mean is told.
    """
    random, ties = np.random.default_rng(0), 0
    for _ in range(400):
        sites = {str(n): random.lognormal(2, 1, 3) for n in range(5)}
        shrunken = shrunken_means(list(sites.values()))
        if np.ptp(shrunken) > 1e-9:
            continue
        ties += 1
        assert len(set(shrunken.tolist())) == 1
        worst = worst_site(table_of(sites), measure=HD95)
        assert worst is not None
        assert worst.mean == max(values.mean() for values in sites.values())
    assert ties > 100
