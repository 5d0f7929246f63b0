"""Simulations with a known truth: false alarms in healthy patients are told as what they are."""

import numpy as np
import pandas as pd
import pytest
from row_inputs import DICE, FALSE_ALARM, row

from segshift.results import COLUMNS, Row, gap_table
from segshift.results.curves import shift_curves, summarise_shifts
from segshift.results.intervals import PatientMeans

MEASURES = {"dice": DICE, "false_alarm": FALSE_ALARM}
NAN = float("nan")


def cases(
    run: str, set_: str, site: str, *, sick: np.ndarray, alarms: np.ndarray, **other: object
) -> list[Row]:
    """Patients with a lesion, by their Dice, and healthy ones, by whether one is found in them."""
    rows = []
    for n, value in enumerate(sick):
        who = {"structure": "lesion", **other}
        rows.append(row(run, set_, f"{site}-sick-{n}", site, float(value), **who))
        rows.append(row(run, set_, f"{site}-sick-{n}", site, NAN, metric="false_alarm",
                        **{**who, "reference_empty": False}))  # fmt: skip
    for n, alarm in enumerate(alarms):
        who = {"structure": "lesion", "reference_empty": True, **other}
        rows.append(row(run, set_, f"{site}-well-{n}", site, NAN, **who))
        name = f"{site}-well-{n}"
        rows.append(row(run, set_, name, site, float(alarm), metric="false_alarm", **who))
    return rows


def frame(rows: list[Row], **line: str) -> pd.DataFrame:
    table = pd.DataFrame([[getattr(r, c) for c in COLUMNS] for r in rows], columns=list(COLUMNS))
    known = {"part": "single_source", "variant": "", "seed": "0", "fold": "0", **line}
    return table.assign(**known)


def trained(site: str) -> str:
    return f'["{site}"]'


def gaps(table: pd.DataFrame) -> pd.DataFrame:
    lines = gap_table(table, MEASURES)
    return lines[(lines["train"] == trained("T")) & (lines["structure"] == "mean")].set_index(
        "metric"
    )


def test_lesions_found_in_the_healthy_of_another_site_are_shift_and_no_harder_site():
    """Its own network finds none, and both find the lesions of the sick equally well."""
    sick = np.linspace(0.7, 0.9, 10)
    none, all_ = np.zeros(10), np.ones(10)
    tables = [
        frame(
            cases("T", "in_domain", "T", sick=sick, alarms=none)
            + cases("T", "site-S", "S", sick=sick, alarms=all_),
            train=trained("T"),
        ),
        frame(
            cases("S", "in_domain", "S", sick=sick, alarms=none)
            + cases("S", "site-T", "T", sick=sick, alarms=none),
            train=trained("S"),
        ),
    ]
    told = gaps(pd.concat(tables, ignore_index=True))
    assert told.loc["dice", ["gap", "harder", "shift"]].tolist() == pytest.approx([0, 0, 0])
    assert told.loc["false_alarm", ["gap", "harder", "shift"]].tolist() == pytest.approx([1, 0, 1])
    assert told.loc["false_alarm", "p"] == pytest.approx(2 / 2**10)


@pytest.mark.parametrize("folds", [1, 2, 4, 5])
def test_chance_false_alarms_are_no_gap_however_many_folds_there_are(
    folds: int, monkeypatch: pytest.MonkeyPatch
):
    """Equally good networks, half the patients healthy, a false alarm in a quarter of trainings.

    When Dice was 0 for a false alarm and left out without one, four folds told of a gap of 0.16.
    """
    # Intervals are not looked at, and take most of the time.
    monkeypatch.setitem(PatientMeans.resampled.__kwdefaults__, "resamples", 100)
    found = []
    for draw in range(12):
        random, tables = np.random.default_rng([draw, folds]), []
        for home, away in (("T", "S"), ("S", "T")):
            for fold in range(folds):
                for site in (home, away):
                    set_ = "in_domain" if site == home else f"site-{site}"
                    own = [
                        one
                        for n, one in enumerate(_patients(f"{home}{fold}", set_, site, random))
                        if site == away or n % folds == fold
                    ]
                    rows = [each for pair in own for each in pair]
                    tables.append(frame(rows, train=trained(home), fold=str(fold)))
        told = gaps(pd.concat(tables, ignore_index=True))
        found.append(told.loc[["dice", "false_alarm"], ["gap", "harder", "shift"]].to_numpy())
    dice, alarms = np.mean(found, axis=0)
    # Standard errors of 12 draws of 2 x 20 patients: 0.004 and, of shares of a quarter, 0.035.
    assert dice == pytest.approx(np.zeros(3), abs=0.015)
    assert alarms == pytest.approx(np.zeros(3), abs=0.12)


def _patients(run: str, set_: str, site: str, random: np.random.Generator) -> list[list[Row]]:
    """The rows of 40 patients, every other one healthy."""
    patients = []
    for n in range(20):
        sick = np.clip(random.normal(0.8, 0.05, 1), 0, 1)
        alarm = (random.random(1) < 0.25).astype(float)
        patient = cases(run, set_, site, sick=sick, alarms=alarm)
        named = [_renamed(one, f"{one.case}-{n}") for one in patient]
        patients += [named[:2], named[2:]]
    return patients


def _renamed(one: Row, name: str) -> Row:
    values = {column: getattr(one, column) for column in COLUMNS}
    return Row(**{**values, "case": name, "patient": name})


def test_a_corruption_that_silences_false_alarms_does_not_pass_for_an_improvement():
    """The Dice of the sick falls from .85 to .60; it was told as better by .136."""
    random, rows = np.random.default_rng(0), []
    for severity, dice, alarm in ((0, 0.85, 1), (1, 0.8, 1), (3, 0.7, 0), (5, 0.6, 0)):
        sick = dice + random.normal(0, 0.02, 10)
        corruption = {"corruption": "noise" if severity else "", "severity": severity}
        alarms = np.full(10, alarm)
        rows += cases("r", "in_domain", "x", sick=sick, alarms=alarms, **corruption)
    curves = shift_curves(frame(rows), calibrated={"noise": True})
    lesion = curves[(curves["metric"] == "dice") & (curves["structure"] == "lesion")]
    assert lesion["mean"].tolist() == pytest.approx([0.85, 0.8, 0.7, 0.6], abs=0.03)
    assert lesion["n"].tolist() == [10, 10, 10, 10]
    told = summarise_shifts(curves, MEASURES)
    # By hand: the areas of .85, .8, (.75), .7, (.65), .6 and of 1, 1, (.5), 0, 0, 0.
    area = (0.85 / 2 + 0.8 + 0.75 + 0.7 + 0.65 + 0.6 / 2) / 5
    assert told["test/shift/noise/dice"] == pytest.approx(0.85 - area, abs=0.02)
    assert told["test/shift/noise/false_alarm"] == pytest.approx((0.5 + 1 + 0.5) / 5 - 1)
