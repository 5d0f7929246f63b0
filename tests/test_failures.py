"""Total failures are counted by patient, with what so few patients leave room for."""

import math

import numpy as np
import pandas as pd
import pytest
from row_inputs import row
from scipy.stats import binomtest

from segshift.results import COLUMNS, Failed, Row, failed_patients, failure_profile

NAN = math.nan


def frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame([[getattr(r, c) for c in COLUMNS] for r in rows], columns=list(COLUMNS))


def values(site: str, *numbers: float, **other: object) -> list[Row]:
    """A case of each patient of a site."""
    set_ = "in_domain" if site == "A" else f"site-{site}"
    return [row("r", set_, f"{site}{n}", site, value, **other) for n, value in enumerate(numbers)]


@pytest.mark.parametrize(("patients", "of"), [(0, 12), (2, 12), (12, 12), (1, 1), (7, 300)])
def test_the_bounds_are_the_exact_ones(patients: int, of: int) -> None:
    exact = binomtest(patients, of).proportion_ci(0.95, method="exact")
    failed = Failed(patients, of)
    assert (failed.low, failed.high) == pytest.approx((exact.low, exact.high))


def test_bounds_by_hand() -> None:
    # With a share of 26.5 % none of 12 fails in 1 of 40 studies.
    assert Failed(0, 12).low == 0
    assert (1 - Failed(0, 12).high) ** 12 == pytest.approx(0.025)
    assert math.isnan(Failed(0, 0).low)
    assert math.isnan(Failed(0, 0).high)


@pytest.mark.parametrize(
    ("patients", "of", "told"),
    [
        (0, 12, "0 of 12 failed: up to 26 %"),
        (2, 12, "2 of 12 failed: 2 to 48 %"),
        (1, 40, "1 of 40 failed: 0 to 13 %"),
        (5, 5, "5 of 5 failed: 47 to 100 %"),
        (0, 2000, "0 of 2000 failed: up to 1 %"),  # 0.2, but nothing rules a failure out
        (0, 0, "no patient has it"),
    ],
)
def test_what_is_told(patients: int, of: int, told: str) -> None:
    assert Failed(patients, of).told == told


def test_a_patient_has_failed_who_failed_in_any_case_and_for_the_mean_in_any_structure() -> None:
    def of(patient: str, structure: str, *dice: float) -> list[Row]:
        return [
            row("r", "in_domain", f"{patient}-{n}", "A", x, patient=patient, structure=structure)
            for n, x in enumerate(dice)
        ]

    rows = [
        *of("p", "liver", 0.9, 0.05, 0.0), *of("q", "liver", 0.9), *of("s", "liver", 0.1),
        *of("p", "tumour", 0.8), *of("q", "tumour", NAN, 0.0), *of("s", "tumour", NAN),
        row("r", "in_domain", "s-0", "A", 0.0, patient="s", metric="iou"),
    ]  # fmt: skip
    table = failed_patients(frame(rows), by=["set", "site"])
    assert list(table.columns) == [
        "set", "site", "structure", "failed_patients", "failed_of", "failed_low", "failed_high",
    ]  # fmt: skip
    lines = table.set_index("structure")
    assert list(lines.index) == ["liver", "tumour", "mean"]
    assert lines["failed_patients"].to_dict() == {"liver": 1, "tumour": 1, "mean": 2}
    assert lines["failed_of"].to_dict() == {"liver": 3, "tumour": 2, "mean": 3}
    for name, (patients, among) in {"liver": (1, 3), "mean": (2, 3)}.items():
        failed = Failed(patients, among)
        found = lines.loc[name, ["failed_low", "failed_high"]].tolist()
        assert found == pytest.approx([failed.low, failed.high])
    nothing = failed_patients(frame([rows[-1]]), by=["set", "site"])
    assert nothing.empty
    assert list(nothing.columns) == list(table.columns)


def test_the_exact_bounds_hold_the_share_where_the_interval_of_the_mean_does_not() -> None:
    """Of 12 patients of whom 15 % fail: at least 95 %, whatever the mean's interval covers."""
    counts = np.random.default_rng(0).binomial(12, 0.15, 4000)
    found = [Failed(int(k), 12) for k in counts]
    assert np.mean([each.low <= 0.15 <= each.high for each in found]) >= 0.95


def test_the_failure_profile_by_hand() -> None:
    rows = [
        *values("A", 0.9, 0.8, 0.05, NAN),  # the last one has no such structure
        *values("A", 0.1, -1.9, -2.0, NAN, metric="volume_difference_relative"),
        *values("A", NAN, NAN, NAN, 1.0, metric="false_alarm"),
        *values("B", 0.0, 0.1),
        *values("B", 3.0, 0.0, metric="lesion_false_positives"),
    ]
    here, there = failure_profile(frame(rows)).to_dict("records")
    assert (here["site"], here["failed"], here["failed_n"]) == ("A", pytest.approx(1 / 3), 3)
    assert (here["empty"], here["empty_n"]) == (pytest.approx(1 / 3), 3)
    assert (here["false_alarm"], here["false_alarm_n"], here["false_blobs_n"]) == (1.0, 1, 0)
    assert math.isnan(here["false_blobs"])
    assert (there["failed"], there["false_blobs"], there["empty_n"]) == (0.5, 0.5, 0)
    assert (there["false_alarm_n"], there["failed_n"]) == (0, 2)
    assert "empty" not in failure_profile(frame(values("A", 0.5)))


def test_a_patient_who_was_scanned_often_weighs_one_in_the_shares() -> None:
    """Ten cases of one healthy patient with a false alarm each, five patients without."""
    often = [
        row("r", "in_domain", f"a{n}", "A", 1.0, patient="often", metric="false_alarm")
        for n in range(10)
    ]
    once = values("A", *[0.0] * 5, metric="false_alarm")
    (line,) = failure_profile(frame([*often, *once])).to_dict("records")
    assert line["false_alarm"] == pytest.approx(1 / 6)
    assert line["false_alarm_n"] == 15
