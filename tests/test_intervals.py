"""Intervals cover the truth as often as they say, and know that a patient's cases are alike."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from row_inputs import DICE, row

from segshift.errors import InputError
from segshift.metrics import Better, Measure
from segshift.results import Row, bootstrap_means, holm, sign_flip_p, site_table, summarise
from segshift.results.intervals import PatientMeans, bounds, by_patient
from segshift.results.rows import COLUMNS

MEASURES = {"dice": DICE}


def rows_of(set_: str, values: np.ndarray, *, site: str = "A") -> list[Row]:
    """Values (patients, cases, structures)."""
    return [
        row("r", set_, f"{set_}{p}-{c}", site, value, patient=f"{set_}{p}", structure=f"s{s}")
        for (p, c, s), value in np.ndenumerate(values)
    ]


def frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame([[getattr(r, c) for c in COLUMNS] for r in rows], columns=list(COLUMNS))


def skewed_dice(random: np.random.Generator, studies: int, patients: int) -> np.ndarray:
    """Patients (patients, studies) with a Dice around .85, of which 15 % are lost altogether."""
    found = random.beta(17, 3, (patients, studies))
    return np.where(random.random(found.shape) < 0.15, 0.0, found)


def gaussian_dice(random: np.random.Generator, studies: int, patients: int) -> np.ndarray:
    return random.normal(0.7, 0.1, (patients, studies))


# The shares of docs/results.md, which bench/coverage.py has measured with draws of its own.
@pytest.mark.parametrize(
    ("dice", "truth", "shares"),
    [
        (gaussian_dice, 0.7, {6: 0.935, 12: 0.948, 25: 0.948, 60: 0.949}),
        # Of 6 patients nobody is lost in .85^6 = 38 %, and what was not seen is in no resample.
        (skewed_dice, 0.85 * 0.85, {6: 0.681, 12: 0.861, 25: 0.927, 60: 0.943}),
    ],
)
def test_an_interval_covers_the_truth_as_often_as_the_docs_say(
    dice: Callable[..., np.ndarray], truth: float, shares: dict[int, float]
) -> None:
    studies = 2000
    for patients, share in shares.items():
        values = dice(np.random.default_rng([1, patients]), studies, patients)
        names = tuple(map(str, range(patients)))
        cases = np.ones(values.shape, dtype=int)
        own = PatientMeans(names, pd.RangeIndex(studies), values, cases)
        low, high = bounds(own.resampled(resamples=1000), own.measured)
        found = ((low <= truth) & (truth <= high)).mean()
        assert found == pytest.approx(share, abs=3 * math.sqrt(share * (1 - share) / studies))


def studies_of_the_often_scanned(studies: int) -> list[tuple[np.ndarray, list[str]]]:
    """25 patients with a Dice around .7, who are scanned the more often the worse they are."""
    random, found = np.random.default_rng(0), []
    for _ in range(studies):
        level = random.normal(0.7, 0.1, 25)
        scans = np.clip(np.round(2 - 20 * (level - 0.7)), 1, None).astype(int)
        who = np.repeat(np.arange(25), scans)
        found.append((level[who] + random.normal(0, 0.03, len(who)), list(map(str, who))))
    return found


def test_who_is_scanned_more_often_does_not_weigh_more() -> None:
    """The mean over cases is .65, and its interval held .7 in 40 % of these studies."""
    studies = studies_of_the_often_scanned(400)
    found = [bootstrap_means(v, who, resamples=500, seed=i) for i, (v, who) in enumerate(studies)]
    error = 0.1 / math.sqrt(25 * len(found))
    assert np.mean([one.mean for one in found]) == pytest.approx(0.7, abs=3 * error)
    assert 0.92 <= np.mean([one.low <= 0.7 <= one.high for one in found]) <= 0.98
    of_cases = np.mean([values.mean() for values, _ in studies])
    assert of_cases < 0.7 - 10 * error


def test_means_go_from_cases_to_patients_by_hand() -> None:
    rows = pd.DataFrame(
        [("a", "x", 0.2), ("a", "x", 0.4), ("a", "x", 0.6), ("b", "x", 0.8), ("a", "y", 0.5)],
        columns=["patient", "structure", "value"],
    )
    own = by_patient(pd.concat([rows, rows.assign(value=math.nan)]), ["structure"])
    assert own.patients == ("a", "b")
    np.testing.assert_allclose(own.values, [[0.4, 0.5], [0.8, 0]])
    assert own.cases.tolist() == [[3, 1], [1, 0]]
    assert own.means.tolist() == pytest.approx([0.6, 0.5])
    assert own.measured.tolist() == [2, 1]


def test_five_patients_have_no_interval_and_six_have_one() -> None:
    values = np.random.default_rng(0).normal(0.7, 0.1, (6, 3))
    for patients in (5, 6):
        who = [str(i // 3) for i in range(3 * patients)]
        one = bootstrap_means(values[:patients].ravel(), who)
        assert one.patients == patients
        assert math.isnan(one.low) == math.isnan(one.high) == (patients < 6)


def test_it_is_wider_where_patients_have_several_cases() -> None:
    level = np.random.default_rng(0).normal(0.7, 0.1, 20)
    values = np.repeat(level, 5)
    clustered = bootstrap_means(values, [str(i // 5) for i in range(100)])
    naive = bootstrap_means(values, [str(i) for i in range(100)])
    assert clustered.mean == pytest.approx(level.mean())
    assert naive.mean == pytest.approx(level.mean())
    # Five copies of a patient are worth one: the interval is that of 20 values, not of 100.
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert math.sqrt(5) * 0.95 < ratio < math.sqrt(5) * 1.2
    assert (clustered.n, clustered.patients) == (100, 20)
    assert (naive.n, naive.patients) == (100, 100)


def test_it_is_students_for_many_and_few_patients() -> None:
    for n, tolerance in ((200, 0.03), (12, 0.08)):
        values = np.random.default_rng(n).normal(0, 1, n)
        t = {200: 1.972, 12: 2.201}[n]
        expected = t * values.std(ddof=1) / math.sqrt(n)
        one = bootstrap_means(values, [str(i) for i in range(n)])
        assert (one.high - one.low) / 2 == pytest.approx(expected, rel=tolerance)


def test_neither_the_order_nor_a_second_time_changes_a_bit() -> None:
    values = 10 ** np.random.default_rng(0).uniform(-8, 8, 900)  # last bits depend on the order
    who = np.array([f"p{i // 30}" for i in range(900)])
    first = bootstrap_means(values, list(who), resamples=200)
    assert bootstrap_means(values, list(who), resamples=200) == first
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(900)
        assert bootstrap_means(values[order], list(who[order]), resamples=200) == first
    assert bootstrap_means(values, list(who), resamples=200, seed=1) != first


def test_undefined_values_do_not_count() -> None:
    one = bootstrap_means([0.5, 0.7, math.nan], ["a", "a", "b"])
    assert (one.mean, one.n, one.patients) == (pytest.approx(0.6), 2, 1)
    with pytest.raises(InputError, match="no values"):
        bootstrap_means([math.nan], ["a"])


def test_the_mean_over_structures_draws_the_same_patients_for_all() -> None:
    # Where one structure is good the other is bad: their mean is known exactly.
    good = np.random.default_rng(0).random((15, 1, 1))
    table = site_table(frame(rows_of("in_domain", np.concatenate([good, 1 - good], axis=2))))
    mean = table.set_index("structure").loc["mean"]
    assert mean["dice_low"] == pytest.approx(0.5)
    assert mean["dice_high"] == pytest.approx(0.5)
    structure = table.set_index("structure").loc["s0"]
    assert structure["dice_high"] - structure["dice_low"] > 0.1


def rare_lesion(*, lost: float = 0.0) -> np.ndarray:
    """30 patients with a case each: a liver of Dice 0.95, and in 6 of them a lesion around 0.1."""
    values = np.full((30, 1, 2), math.nan)
    values[:, :, 0] = 0.95
    values[:6, 0, 1] = np.tile([0.08, 0.1, 0.12], 2) - lost
    return values


def test_the_mean_over_structures_is_of_the_same_ones_in_every_resample() -> None:
    rows = frame(rows_of("in_domain", rare_lesion()))
    (mean,) = site_table(rows).query("structure == 'mean'").to_dict("records")
    summary = summarise(rows, MEASURES)
    for table in (mean, {key.removeprefix("test/in_domain/"): x for key, x in summary.items()}):
        assert table["dice"] == pytest.approx(0.525)
        # The lesion is 0.08 to 0.12 whoever is drawn; without it the mean would be 0.95.
        assert 0.51 < table["dice_low"] < 0.525 < table["dice_high"] < 0.54


def test_how_wide_a_mean_over_structures_is_follows_the_rarest_of_them() -> None:
    values = np.full((30, 1, 2), 0.95)
    values[5:, 0, 1] = math.nan  # five patients say too little about the next one
    lines = site_table(frame(rows_of("in_domain", values))).set_index("structure")
    assert lines["dice_low"].notna().to_dict() == {"s0": True, "s1": False, "mean": False}
    values[:, :, 1] = math.nan  # and a structure that nobody has is in no mean
    lines = site_table(frame(rows_of("in_domain", values))).set_index("structure")
    assert lines["dice_low"].notna().to_dict() == {"s0": True, "s1": False, "mean": True}


def test_the_interval_of_a_gap_is_of_the_sets_of_that_gap() -> None:
    """Two patients of C have each of its structures: the gap without C would be another gap."""
    inside = np.full((20, 1, 100), 0.9) - np.linspace(0, 0.02, 20)[:, None, None]
    near = inside[:, :, :1] - 0.1
    far = np.full((100, 1, 100), math.nan)
    far[range(100), 0, range(100)] = far[range(-1, 99), 0, range(100)] = 0.1
    rows = rows_of("in_domain", inside) + rows_of("site-B", near, site="B")
    rows += rows_of("site-C", far, site="C")
    summary = summarise(frame(rows), MEASURES)
    assert summary["test/gap/dice"] == pytest.approx((0.1 + 0.79) / 2)
    assert not any(key.startswith("test/gap/dice_") for key in summary)


def test_a_gap_is_over_the_same_structures_in_every_resample() -> None:
    rows = rows_of("in_domain", rare_lesion())
    rows += rows_of("site-B", rare_lesion(lost=0.06), site="B")
    summary = summarise(frame(rows), MEASURES)
    assert summary["test/gap/dice"] == pytest.approx(0.03)
    assert 0.009 < summary["test/gap/dice_low"] < 0.03 < summary["test/gap/dice_high"] < 0.051
    # What one side alone has is in no gap, and how few have it there takes no interval away.
    one_sided = [each for each in rows if each.structure == "s0" or each.patient == "site-B0"]
    summary = summarise(frame(one_sided), MEASURES)
    for end in ("", "_low", "_high"):
        assert summary[f"test/gap/dice{end}"] == pytest.approx(0)


def test_site_set_and_bootstrap_say_the_same_of_the_same_patients() -> None:
    values = np.random.default_rng(0).random((9, 2, 1))
    rows = frame(rows_of("in_domain", values))
    (line,) = site_table(rows).query("structure == 'mean'").to_dict("records")
    summary = summarise(rows, MEASURES)
    alone = bootstrap_means(rows["value"], list(rows["patient"]))
    for side, value in (("low", alone.low), ("high", alone.high)):
        assert line[f"dice_{side}"] == summary[f"test/in_domain/dice_{side}"] == value
    assert summary["test/in_domain/dice_n"] == line["dice_n"] == 18


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_the_gap_has_an_interval_around_it(better: Better) -> None:
    random = np.random.default_rng(0)
    inside, outside = random.normal(0.8, 0.05, (40, 1, 1)), random.normal(0.6, 0.1, (40, 1, 1))
    rows = frame([*rows_of("in_domain", inside), *rows_of("site-B", outside, site="B")])
    summary = summarise(rows, {"dice": Measure("dice", "", better)})
    gap, low, high = (summary[f"test/gap/dice{end}"] for end in ("", "_low", "_high"))
    sign = 1 if better == "higher" else -1
    assert gap == pytest.approx(sign * (inside.mean() - outside.mean()))
    assert low < gap < high
    # Two independent sides: their variances add up.
    error = math.sqrt((inside.var(ddof=1) + outside.var(ddof=1)) / 40)
    assert (high - low) / 2 == pytest.approx(2.02 * error, rel=0.06)


def test_a_gap_to_five_patients_has_no_interval() -> None:
    random = np.random.default_rng(0)
    rows = [*rows_of("in_domain", random.random((9, 1, 1)))]
    rows += rows_of("site-B", random.random((5, 3, 1)), site="B")
    summary = summarise(frame(rows), MEASURES)
    assert "test/gap/dice" in summary
    assert not any(key.startswith(("test/gap/dice_", "test/site-B/dice_l")) for key in summary)


def test_holm_by_hand() -> None:
    # 0.01 x 4, 0.02 x 3, 0.03 x 2 = 0.06, 0.04 x 1 but not below the one before.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([0.3]) == pytest.approx([0.3])


@pytest.mark.parametrize("n", [3, 8, 12])
def test_sign_flips_of_few_patients_are_those_of_scipy(n: int) -> None:
    from scipy.stats import permutation_test

    differences = np.random.default_rng(n).normal(0.3, 0.5, n)
    expected = permutation_test(
        (differences, np.zeros(n)), lambda x, y, axis: (x - y).sum(axis=axis),
        permutation_type="samples", vectorized=True, n_resamples=np.inf,
    )  # fmt: skip
    assert sign_flip_p(differences) == pytest.approx(expected.pvalue)


def test_sign_flips_of_many_patients_are_drawn_and_never_say_zero() -> None:
    differences = np.random.default_rng(0).normal(0.2, 1, 60)
    z = differences.sum() / math.sqrt((differences**2).sum())
    expected = math.erfc(abs(z) / math.sqrt(2))  # the sum of 60 flips is nearly normal
    assert sign_flip_p(differences) == pytest.approx(expected, abs=0.02)
    assert sign_flip_p(differences) == sign_flip_p(differences)
    assert sign_flip_p(np.ones(60)) == 1 / 10_001


def test_no_difference_is_no_evidence() -> None:
    for differences in ([0.0] * 5, [0.0] * 20, [0.4]):
        assert sign_flip_p(differences) == 1.0
