"""What is lost at another site, split by hand into a harder site and the shift; whose oracle."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from row_inputs import DICE, HD95, MEASURES, SIGNED, row
from study_inputs import fill_study, job_of, line_of, study_of, two_sites

from segshift.metrics import Measure
from segshift.report.study_page import gap_lines
from segshift.report.study_words import answers, missing
from segshift.results import (
    Row,
    Study,
    bootstrap_means,
    gap_table,
    read_study,
    sign_flip_p,
    study_summary,
    study_tables,
    train_test_matrix,
    trained_at,
    variant_table,
)

A, B = trained_at(["A"]), trained_at(["B"])
SPLIT = ["harder", "shift", "oracle", "p", "p_holm"]
BOTH = ("liver", "lesion")
DIFFERENCES = [0.35, 0.4, 0.5, -0.05, 0.4, 0.15]  # of b1 to b6: the oracle minus A's network


def gaps_of(study: Study) -> pd.DataFrame:
    return gap_table(study.rows, study.measures)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return two_sites(tmp_path)


def test_gap_is_split_by_hand_into_a_harder_site_and_the_shift(study: Study) -> None:
    line = line_of(gaps_of(study), train=A, site="B", structure="mean")
    # In domain a1 .425 (cases .55 and .3), a2 .85, a3 .75, a4 .9, a5 .45, a6 .725; outside b1 .55,
    # b2 .3, b3 .3, b4 .5, b5 .5, b6 .3; there the oracle has .9, .7, .8, .45, .9 and .45.
    at_home, outside, oracle = 4.1 / 6, 2.45 / 6, 4.2 / 6
    assert line["in_domain"] == pytest.approx(at_home)
    assert line["out"] == pytest.approx(outside)
    assert line["oracle"] == pytest.approx(oracle)
    assert line["gap"] == pytest.approx(at_home - outside)
    assert line["harder"] == pytest.approx(at_home - oracle)
    assert line["shift"] == pytest.approx(oracle - outside)
    # Only with all signs alike, or but that of b4, is the sum as far from 0; 4 of 64 patterns.
    assert line["p"] == 4 / 64 == sign_flip_p(DIFFERENCES)
    assert (line["patients"], line["paired"], line["tested"], line["unpaired"]) == (6, 6, 6, 0)
    assert line["seeds"] == 2
    assert line["jobs"] == "A00;A01;A10;A11;B"
    back = line_of(gaps_of(study), train=B, site="A", structure="mean")
    # B's network has a1 .45 at A, then .6, .3, .7, .5 and .55; A's own has 4.1 / 6.
    assert back["gap"] == pytest.approx((4.2 - 3.1) / 6)
    assert back["shift"] == pytest.approx((4.1 - 3.1) / 6)
    assert back["jobs"] == "B;A00;A01;A10;A11"


def test_intervals_of_gap_and_shift_are_those_of_patients(study: Study) -> None:
    """A shift's interval draws the same patients for both, so it is that of their differences."""
    gaps = gaps_of(study)
    line = line_of(gaps, train=A, structure="liver")
    for part in ("in_domain", "out", "gap", "harder", "shift"):
        assert line[f"{part}_low"] < line[part] < line[f"{part}_high"], part
    of_differences = bootstrap_means(DIFFERENCES, [f"b{n}" for n in range(1, 7)])
    ends = [line["shift_low"], line["shift_high"]]
    assert ends == pytest.approx([of_differences.low, of_differences.high])
    away = bootstrap_means([0.55, 0.3, 0.3, 0.5, 0.5, 0.3], [f"b{n}" for n in range(1, 7)])
    assert [line["out_low"], line["out_high"]] == pytest.approx([away.low, away.high])


def test_fewer_than_six_patients_have_estimates_and_no_intervals(tmp_path: Path) -> None:
    def rows_of(patients: int) -> list[Row]:
        dice = (
            ("A", "in_domain", "A", 0.9),
            ("A", "site-B", "B", 0.5),
            ("B", "in_domain", "B", 0.8),
        )
        return [
            row(job, set_, f"{site}{i}", site, value + 0.01 * i)
            for job, set_, site, value in dice
            for i in range(patients)
        ]

    ends = [f"{part}{end}" for part in ("gap", "harder", "shift") for end in ("_low", "_high")]
    jobs = [job_of(site, site) for site in "AB"]
    for patients, known in ((5, False), (6, True)):
        line = line_of(gaps_of(study_of(tmp_path, jobs, rows_of(patients))), structure="mean")
        assert line[ends].notna().tolist() == [known] * len(ends)
        assert line["shift"] == pytest.approx(0.3)
        assert line["p"] == 2 / 2**patients


def test_shift_is_paired_where_the_oracle_has_not_measured_all(tmp_path: Path) -> None:
    rows = [
        row("A", "in_domain", "a", "A", 0.9),
        *(row("A", "site-B", f"b{i}", "B", v) for i, v in enumerate((0.6, 0.5, 0.1))),
        *(row("B", "in_domain", f"b{i}", "B", v) for i, v in enumerate((0.8, 0.8))),
        row("B", "site-A", "a", "A", 0.4),
    ]
    jobs = [job_of(site, site) for site in "AB"]
    line = line_of(gaps_of(study_of(tmp_path, jobs, rows)), train=A, structure="liver")
    assert line["gap"] == pytest.approx(0.9 - 0.4)
    assert line["shift"] == pytest.approx(0.8 - 0.55)  # b0 and b1 only
    assert line["harder"] == pytest.approx(0.5 - 0.25)
    assert (line["patients"], line["paired"], line["tested"], line["unpaired"]) == (3, 2, 2, 1)


def test_a_patient_with_two_cases_weighs_one_in_every_part(tmp_path: Path) -> None:
    """Of b1 the oracle has measured one of two cases; the shift is of that one."""
    twice = {"patient": "b1"}
    rows = [
        row("A", "in_domain", "a1-x", "A", 0.4, patient="a1"),
        row("A", "in_domain", "a1-y", "A", 0.8, patient="a1"),
        row("A", "in_domain", "a2", "A", 1.0),
        row("A", "site-B", "b1-x", "B", 0.2, **twice),
        row("A", "site-B", "b1-y", "B", 0.6, **twice),
        row("A", "site-B", "b2", "B", 0.5),
        row("B", "in_domain", "b1-x", "B", 0.7, **twice),
        row("B", "in_domain", "b2", "B", 0.9),
    ]
    jobs = [job_of(site, site) for site in "AB"]
    line = line_of(gaps_of(study_of(tmp_path, jobs, rows)), train=A, structure="mean")
    assert line["in_domain"] == pytest.approx((0.6 + 1) / 2)  # of cases it were 2.2 / 3
    assert line["out"] == pytest.approx((0.4 + 0.5) / 2)
    assert line["shift"] == pytest.approx(((0.7 - 0.2) + (0.9 - 0.5)) / 2)
    assert (line["patients"], line["paired"], line["unpaired"]) == (2, 2, 0)


def test_intervals_of_the_mean_are_of_studies_that_saw_the_rare_structures(tmp_path: Path) -> None:
    """Of 60 patients of B six each have one of three; without them a mean would be the liver's.

    1 of 180 resamples lacks one of them, and the interval of six patients leaves out 1 of 410.
    """
    rare = {"lesion": 0, "cyst": 3, "clot": 6}  # the last digit of who has it
    rows = [
        row(job, set_, f"{site}{i}", site, value + 0.001 * i, structure=structure)
        for job, set_, site, liver, lesion in (
            ("A", "in_domain", "A", 0.94, 0.7),
            ("A", "site-B", "B", 0.94, 0.1),
            ("B", "in_domain", "B", 0.94, 0.3),
        )
        for i in range(60)
        for structure, value in {"liver": liver, **dict.fromkeys(rare, lesion)}.items()
        if structure == "liver" or site == "A" or i % 10 == rare[structure]
    ]
    gaps = gaps_of(study_of(tmp_path, [job_of(site, site) for site in "AB"], rows))
    line = line_of(gaps, train=A, structure="mean")
    # Patients have .0295 more in the mean; at B those with a lesion .025, a cyst .028, a clot .031.
    assert line["gap"] == pytest.approx((3 * 0.7295 - 0.125 - 0.128 - 0.131) / 4)
    for part in ("gap", "shift", "harder", "out"):
        assert abs(line[f"{part}_low"] - line[part]) < 0.02, part
        assert abs(line[f"{part}_high"] - line[part]) < 0.02, part
    assert (line["patients"], line["paired"], line["tested"], line["unpaired"]) == (6, 6, 60, 0)
    shown = gaps[gaps["train"] == A]
    (sentence,) = answers(shown, measure=DICE, sites=("A", "B"))
    assert "too few" not in sentence
    assert "at B (60 patients), of which" in sentence
    (told,) = gap_lines(shown, measure=DICE, sites=("A", "B"))
    assert told["patients"] == "60"
    assert told["cells"][-1].beside.startswith("[")  # the interval of the shift


def test_patients_of_the_mean_that_the_oracle_lacks_are_those_of_any_structure(
    tmp_path: Path,
) -> None:
    """The oracle has measured 10 of 20 livers, and all 8 lesions."""
    rows = [row("A", "in_domain", f"a{i}", "A", 0.9, structure=s) for i in range(2) for s in BOTH]
    for job, set_, livers in (("A", "site-B", 20), ("B", "in_domain", 10)):
        rows += [row(job, set_, f"b{i}", "B", 0.8, structure="liver") for i in range(livers)]
        rows += [row(job, set_, f"b{i}", "B", 0.5, structure="lesion") for i in range(8)]
    study = study_of(tmp_path, [job_of(site, site) for site in "AB"], rows)
    gaps = gaps_of(study).set_index("structure")
    columns = ["patients", "paired", "tested", "unpaired"]
    assert gaps.loc["liver", columns].tolist() == [20, 10, 10, 10]
    assert gaps.loc["lesion", columns].tolist() == [8, 8, 8, 0]
    assert gaps.loc["mean", columns].tolist() == [8, 8, 10, 10]


def test_without_an_oracle_the_gap_is_not_split(tmp_path: Path) -> None:
    rows = [row("A", "in_domain", "a", "A", 0.9), row("A", "site-B", "b", "B", 0.5)]
    line = line_of(gaps_of(study_of(tmp_path, [job_of("A", "A")], rows)), structure="mean")
    assert line["gap"] == pytest.approx(0.4)
    assert line[SPLIT].isna().all()
    assert line["paired"] == 0
    assert line["jobs"] == "A"


def test_a_set_of_another_site_has_that_sites_oracle_whatever_it_is_called(tmp_path: Path) -> None:
    """The scanners of one vendor, at A (where the network was trained) and at B and C."""
    rows = [
        row("A", "in_domain", "a1", "A", 0.9),
        row("A", "vendor-ge", "a2", "A", 0.8),
        row("A", "vendor-ge", "b1", "B", 0.4), row("A", "vendor-ge", "b2", "B", 0.6),
        row("A", "vendor-ge", "c1", "C", 0.3),
        row("B", "in_domain", "b1", "B", 0.7), row("B", "in_domain", "b2", "B", 0.8),
        row("B", "in_domain", "b3", "B", 0.1),  # of another vendor
    ]  # fmt: skip
    jobs = [job_of(site, site) for site in "AB"]
    gaps = gaps_of(study_of(tmp_path, jobs, rows)).query("structure == 'mean'")
    at_b = line_of(gaps, train=A, set="vendor-ge", site="B")
    assert at_b["gap"] == pytest.approx(0.9 - 0.5)
    assert at_b["oracle"] == pytest.approx(0.75)  # of the same two patients
    assert at_b["shift"] == pytest.approx(0.75 - 0.5)
    assert at_b["harder"] == pytest.approx(0.9 - 0.75)
    assert (at_b["paired"], at_b["unpaired"], at_b["jobs"]) == (2, 0, "A;B")
    for site, gap in (("A", 0.1), ("C", 0.6)):  # its own site, and one without a network
        line = line_of(gaps, train=A, set="vendor-ge", site=site)
        assert line["gap"] == pytest.approx(gap)
        assert line[SPLIT].isna().all()
        assert line["jobs"] == "A"


@pytest.mark.parametrize("sites", [["A"], ["A", "B"]])
def test_at_a_site_that_the_network_knows_there_is_nothing_to_split(
    tmp_path: Path, sites: list[str]
) -> None:
    """Other people's masks of A: A's network alone would be no oracle of one that knows A."""
    rows = [
        *(row("net", "in_domain", f"a{i}", "A", 0.9) for i in range(6)),
        *(row("net", "guideline-b", f"a{i}", "A", 0.6) for i in range(6)),
        *(row("other", "in_domain", f"a{i}", "A", 0.8) for i in range(6)),
    ]
    jobs = [job_of("net", *sites, part="mine"), job_of("other", "A")]
    study = study_of(tmp_path, jobs, rows)
    line = line_of(gaps_of(study), set="guideline-b", structure="mean")
    assert (line["part"], line["train"]) == ("mine", trained_at(sites))
    assert line["gap"] == pytest.approx(0.3)
    assert line["gap_low"] == pytest.approx(0.3)
    assert line[SPLIT].isna().all()
    assert (line["paired"], line["tested"], line["unpaired"]) == (0, 0, 6)
    assert line["jobs"] == "net"
    tables = study_tables(study)
    (sentence,) = answers(tables.gaps, measure=DICE, sites=sites)
    assert sentence.endswith("; it was trained at A, so the gap is not split.")
    told = missing(study, tables, measure=DICE, attributed=True, pictures=True)
    assert not any("harder" in each for each in told)
    summary = study_summary(study, tables)
    split = {key for key in summary if "/harder/" in key or "/shift/" in key}
    assert not split
    assert any(key.endswith("guideline-b at A/gap/dice") for key in summary)


def test_the_oracle_is_of_the_same_variant_and_of_the_own_part_first(tmp_path: Path) -> None:
    """Each network of B has a Dice of its own, so the oracle tells which it was."""
    others = [
        ("mine", "loss=dice", 0.61), ("other", "loss=dice", 0.62),
        ("single_source", "loss=dice", 0.63), ("mine", "loss=focal", 0.64),
    ]  # fmt: skip
    rows = [row("A", "in_domain", "a", "A", 0.9), row("A", "site-B", "b", "B", 0.5)]
    rows += [row(f"B{n}", "in_domain", "b", "B", dice) for n, (*_, dice) in enumerate(others)]
    own = job_of("A", "A", part="mine", variant="loss=dice")
    jobs = [
        job_of(f"B{n}", "B", part=part, variant=variant)
        for n, (part, variant, _) in enumerate(others)
    ]
    for there, oracle in (([0, 1, 2, 3], 0.61), ([1, 2, 3], 0.63), ([1, 3], 0.62), ([3], math.nan)):
        chosen = [jobs[n] for n in there]
        known = [one for one in rows if one.run in {"A", *(job["job"] for job in chosen)}]
        gaps = gaps_of(study_of(tmp_path, [own, *chosen], known))
        line = line_of(gaps, train=A, structure="mean")
        assert line["oracle"] == pytest.approx(oracle, nan_ok=True)


def test_a_network_of_several_sites_is_no_oracle(tmp_path: Path) -> None:
    rows = [row("A", "in_domain", "a", "A", 0.9), row("A", "site-B", "b", "B", 0.5)]
    rows.append(row("BC", "in_domain", "b", "B", 0.8))
    study = study_of(tmp_path, [job_of("A", "A"), job_of("BC", "B", "C")], rows)
    line = line_of(gaps_of(study), train=A, structure="mean")
    assert line[SPLIT].isna().all()


def test_sites_may_be_called_anything_and_are_kept_apart(tmp_path: Path) -> None:
    """`A+B 3` is one site; A and `B 3` are two, and one network was trained at both."""
    sites, pair = ("A", "A+B 3", "B 3"), ["A", "B 3"]
    dice = {  # by what was trained there, at A, at A+B 3 and at B 3
        ("A",): (0.9, 0.4, 0.6), ("A+B 3",): (0.3, 0.7, 0.2), ("B 3",): (0.5, 0.35, 0.8),
        tuple(pair): (0.85, 0.5, 0.75),
    }  # fmt: skip
    jobs = [job_of("+".join(own) + "!" * len(own), *own) for own in dice]
    jobs[-1]["part"] = "leave_site_out"
    rows = [
        row(job["job"], "in_domain" if site in own else f"site-{site}", f"of {site}", site, value)
        for job, (own, values) in zip(jobs, dice.items(), strict=True)
        for site, value in zip(sites, values, strict=True)
    ]
    study = study_of(tmp_path, jobs, rows)
    tables = study_tables(study)
    means = tables.matrix.query("structure == 'mean'")
    found = {(line["train"], line["site"]): line["mean"] for _, line in means.iterrows()}
    assert found == {
        (trained_at(own), site): value
        for own, values in dice.items()
        for site, value in zip(sites, values, strict=True)
    }
    gaps = tables.gaps.query("structure == 'mean'").set_index(["train", "site"])
    alone = {site: trained_at([site]) for site in sites}
    parts = {  # in domain, outside and the oracle
        (alone["A"], "A+B 3"): (0.9, 0.4, 0.7), (alone["A"], "B 3"): (0.9, 0.6, 0.8),
        (alone["A+B 3"], "A"): (0.7, 0.3, 0.9), (alone["A+B 3"], "B 3"): (0.7, 0.2, 0.8),
        (alone["B 3"], "A"): (0.8, 0.5, 0.9), (alone["B 3"], "A+B 3"): (0.8, 0.35, 0.7),
        (trained_at(pair), "A+B 3"): (0.8, 0.5, 0.7),
    }  # fmt: skip
    assert set(gaps.index) == set(parts)
    for where, numbers in parts.items():
        assert gaps.loc[where, ["in_domain", "out", "oracle"]].tolist() == pytest.approx(numbers)
    line = gaps.loc[(trained_at(pair), "A+B 3")]
    assert line[["gap", "harder", "shift"]].tolist() == pytest.approx([0.3, 0.1, 0.2])
    assert set(zip(tables.leave_site_out["train"], tables.leave_site_out["site"], strict=True)) == {
        (trained_at(pair), "A+B 3")
    }
    summary = study_summary(study, tables)
    of_pair, of_site = "study/A+B 3 (leave_site_out)", "study/A+B 3 (single_source)"
    assert summary[f"{of_pair}/A+B 3/dice"] == 0.5
    assert summary[f"{of_pair}/A+B 3/gap/dice"] == pytest.approx(0.3)
    assert summary[f"{of_site}/A+B 3/dice"] == 0.7
    assert summary[f"{of_site}/A/dice"] == 0.3
    assert summary[f"{of_site}/A/shift/dice"] == pytest.approx(0.6)
    assert summary["study/A/A+B 3/dice"] == 0.4
    keys = [key for key in summary if key.endswith("/dice") and key.count("/") == 3]
    assert len(keys) == len(dice) * len(sites)


def test_positive_is_worse_for_a_metric_where_lower_is_better(study: Study) -> None:
    rows = study.rows.assign(value=30 * (1 - study.rows["value"]), metric="hd95_mm")
    dice, mm = gaps_of(study), gap_table(rows, {"hd95_mm": HD95})
    for name in ("gap", "harder", "shift", "gap_low", "gap_high", "shift_low", "shift_high"):
        assert dice[name].notna().all()
        np.testing.assert_allclose(mm[name], 30 * dice[name], atol=1e-9)
    np.testing.assert_array_equal(mm["p"], dice["p"])


def test_which_end_is_better_is_what_a_metric_of_another_package_declares(tmp_path: Path) -> None:
    """A share of which less is better, and another name for a share of which more is."""
    lower = Measure("false_positive_rate", "", "lower")
    higher = Measure("specificity", "", "higher")
    rates = (("A", "in_domain", "A", 0.1), ("A", "site-B", "B", 0.4), ("B", "in_domain", "B", 0.2))
    rows = [
        row(job, set_, f"{site}{i}", site, rate + 0.05 * severity + 0.01 * i, metric=lower.name,
            corruption="noise" if severity else "", severity=severity)
        for job, set_, site, rate in (*rates, ("A", "site-C", "C", 0.3))
        for severity in (0, 5)
        for i in range(6)
    ]  # fmt: skip
    rows += [
        Row(**{**{c: getattr(r, c) for c in Row.__slots__}, "metric": "specificity",
               "value": 1 - r.value})
        for r in rows
    ]  # fmt: skip
    jobs = [job_of(site, site) for site in "AB"]
    study = study_of(tmp_path, jobs, rows, measures=[lower, higher])
    tables = study_tables(study)
    summary = study_summary(study, tables)
    for metric in (lower.name, higher.name):
        line = line_of(tables.gaps, metric=metric, site="B", structure="mean")
        assert line[["gap", "harder", "shift"]].tolist() == pytest.approx([0.3, 0.1, 0.2])
        assert line["gap_low"] > 0
        assert summary[f"study/gap/{metric}"] == pytest.approx((0.3 + 0.2) / 2)
        areas = tables.shift_areas[tables.shift_areas["metric"] == metric]
        assert len(areas) == 2 * 4  # the structure and the mean, of each training and set
        np.testing.assert_allclose(areas["loss"], 0.25 / 2)
        assert summary[f"study/shift/noise/{metric}"] == pytest.approx(0.25 / 2)
    assert summary["study/worst/false_positive_rate"] == pytest.approx(0.425)  # at B
    assert summary["study/worst/specificity"] == pytest.approx(0.575)


def test_the_worst_place_of_jobs_in_two_parts_is_that_of_one(study: Study) -> None:
    """The same places once more would pull the shrunken means together."""
    twice = replace(
        study,
        jobs=pd.concat([study.jobs, study.jobs.assign(part="again")]),
        rows=pd.concat([study.rows, study.rows.assign(part="again")]),
    )
    worst, again = (
        {key: value for key, value in study_summary(each, study_tables(each)).items()
         if "/worst/" in key}
        for each in (study, twice)
    )  # fmt: skip
    assert worst
    assert again == worst


def test_signed_metrics_are_in_the_matrix_but_have_no_gap(study: Study) -> None:
    rows = study.rows.assign(metric="volume_difference_relative")
    assert len(train_test_matrix(rows)) == len(train_test_matrix(study.rows))
    for table in (gap_table, variant_table):
        assert table(rows, {SIGNED.name: SIGNED}).empty
    mine = Measure("mine", "mm", "zero")  # told by what it declares, not by its name
    assert gap_table(rows.assign(metric="mine"), {"mine": mine}).empty
    signed = replace(study, rows=rows, measures=MEASURES)
    summary = study_summary(signed, study_tables(signed))
    assert "study/A/B/volume_difference_relative" in summary
    assert not any("worst" in key or "gap" in key for key in summary)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return read_study(fill_study(tmp_path_factory.mktemp("study"), pictures=False))


def test_the_parts_add_up_exactly_everywhere(whole: Study) -> None:
    gaps = gaps_of(whole)
    # Pairs, then structures and their mean: of two metrics two, of false alarms the tumour's.
    assert len(gaps) == (6 + 3) * (2 * 3 + 2 * 2)
    np.testing.assert_allclose(gaps["gap"], gaps["harder"] + gaps["shift"], rtol=0, atol=1e-14)
    signs = np.where(gaps["metric"] == "dice", 1, -1)
    np.testing.assert_allclose(gaps["gap"], signs * (gaps["in_domain"] - gaps["out"]), atol=1e-14)
    lost = {"dice": 0.1, "hd95_mm": 3.0, "false_alarm": 0.5, "false_alarm_ml": 0.5}
    np.testing.assert_allclose(gaps["shift"], gaps["metric"].map(lost))
    assert (gaps["p_holm"] >= gaps["p"]).all()
    masks = gaps[gaps["metric"].isin(["dice", "hd95_mm"])]
    assert masks.groupby(["metric", "structure"])["p_holm"].max().tolist() == pytest.approx(
        [9 * 0.03125] * 6
    )
    # Of two healthy patients one has a false alarm away from home.
    alarms = gaps[gaps["metric"].isin(["false_alarm", "false_alarm_ml"])]
    assert (alarms["tested"] == 2).all()
    assert (alarms["p"] == 1).all()
    assert alarms["shift_low"].isna().all()


def test_the_split_of_the_mean_needs_an_oracle_of_all_structures(tmp_path: Path) -> None:
    rows = [
        *(row("A", "in_domain", "a", "A", 0.9, structure=s) for s in ("liver", "tumour")),
        *(row("A", "site-B", "b", "B", 0.5, structure=s) for s in ("liver", "tumour")),
        row("B", "in_domain", "b", "B", 0.8),
    ]
    gaps = gaps_of(study_of(tmp_path, [job_of(site, site) for site in "AB"], rows))
    assert line_of(gaps, structure="liver")["shift"] == pytest.approx(0.3)
    for structure in ("tumour", "mean"):
        line = line_of(gaps, structure=structure)
        assert line["gap"] == pytest.approx(0.4)
        assert math.isnan(line["shift"])
        assert math.isnan(line["harder"])
        assert math.isnan(line["p"])
