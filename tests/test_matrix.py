"""Tables of a study against numbers that were worked out by hand, and what must hold for any."""

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from report_inputs import write_table
from row_inputs import row
from scipy.stats import binomtest
from study_inputs import add_raters, fill_study, job_of, line_of, study_of, two_sites, write_jobs

from segshift.results import (
    Study,
    StudyTables,
    acquired,
    bootstrap_means,
    failure_table,
    gap_table,
    line_names,
    read_rows,
    read_study,
    site_table,
    study_summary,
    study_tables,
    train_test_matrix,
    trained_at,
    variant_table,
    write_study_tables,
)

A, B = trained_at(["A"]), trained_at(["B"])
FAILED = ["failed_patients", "failed_of", "failed_low", "failed_high"]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return two_sites(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = fill_study(tmp_path_factory.mktemp("study"), pictures=False)
    add_raters(folder)
    return read_study(folder)


@pytest.fixture(scope="module")
def tables(whole: Study) -> StudyTables:
    return study_tables(whole)


def test_matrix_by_hand(study: Study) -> None:
    matrix = train_test_matrix(study.rows)
    home = line_of(matrix, train=A, set="in_domain", structure="liver")
    # Patients .425 (of cases .55 and .3), .85, .75, .9, .45, .725; a mean of cases were 4.525 / 7.
    # Seed 0: .4 .9 .7 .9 .5 .8, seed 1: .45 .8 .8 .9 .4 .65.
    assert home["mean"] == pytest.approx(4.1 / 6)
    assert (home["n"], home["patients"], home["seeds"]) == (7, 6, 2)
    assert (home["seed_low"], home["seed_high"]) == pytest.approx((4.0 / 6, 4.2 / 6))
    assert home["jobs"] == "A00;A01;A10;A11"
    out = line_of(matrix, train=A, set="site-B", structure="liver")
    # Patients .55 .3 .3 .5 .5 .3; seed 0: .45 .3 .2 .5 .5 .2, seed 1: .65 .3 .4 .5 .5 .4.
    assert out["mean"] == pytest.approx(2.45 / 6)
    assert (out["seed_low"], out["seed_high"]) == pytest.approx((2.15 / 6, 2.75 / 6))
    once = line_of(matrix, train=B, set="site-A", structure="liver")
    assert once["mean"] == pytest.approx((0.45 + 0.6 + 0.3 + 0.7 + 0.5 + 0.55) / 6)
    assert (once["seeds"], once["n"], once["patients"]) == (1, 7, 6)
    assert once["seed_low"] == once["seed_high"] == pytest.approx(once["mean"])


def test_intervals_are_those_of_patients_not_of_cases(study: Study) -> None:
    home = line_of(train_test_matrix(study.rows), train=A, set="in_domain", structure="liver")
    cases = [0.55, 0.3, 0.85, 0.75, 0.9, 0.45, 0.725]
    by_patient = bootstrap_means(cases, ["a1", "a1", "a2", "a3", "a4", "a5", "a6"])
    by_case = bootstrap_means(cases, list("tuvwxyz"))
    assert (home["low"], home["high"]) == pytest.approx((by_patient.low, by_patient.high))
    assert abs(home["low"] - by_case.low) > 0.02
    # The worse cases are those of one patient, so the mean over patients is not that of cases.
    assert home["mean"] - by_case.mean == pytest.approx(4.1 / 6 - 4.525 / 7)


def test_fewer_than_six_patients_have_no_interval_whatever_their_cases(study: Study) -> None:
    rows = study.rows[study.rows["patient"] != "a6"]
    matrix = train_test_matrix(rows)
    home = line_of(matrix, train=A, set="in_domain", structure="liver")
    assert (home["n"], home["patients"]) == (6, 5)
    assert home["mean"] == pytest.approx(3.375 / 5)
    assert home[["low", "high"]].isna().all()
    assert line_of(matrix, train=A, set="site-B", structure="liver")[["low", "high"]].notna().all()


def test_failed_patients_stand_beside_dice_by_hand(tmp_path: Path) -> None:
    """Of means over seeds: p has failed in one of two cases, q in one of two seeds, so not."""
    dice: dict[tuple[str, str, str], tuple[float, float]] = {  # seeds 0 and 1
        ("p", "p-x", "liver"): (0.0, 0.1), ("p", "p-y", "liver"): (0.9, 0.9),
        ("q", "q", "liver"): (0.0, 0.5), ("r", "r", "liver"): (0.8, 0.8),
        ("s", "s", "liver"): (math.nan, math.nan),
        ("p", "p-x", "tumour"): (0.7, 0.7), ("r", "r", "tumour"): (0.1, 0.0),
        ("s", "s", "tumour"): (0.1, 0.1),  # is no failure yet
    }  # fmt: skip
    rows = [
        row(f"A{seed}", "in_domain", case, "A", value, patient=patient, structure=structure)
        for (patient, case, structure), values in dice.items()
        for seed, value in enumerate(values)
    ]
    rows += [replace(one, metric="hd95_mm", value=0.0) for one in rows]
    rows += [row("A0", "site-B", f"b{n}", "B", 0.9) for n in range(12)]
    jobs = [job_of(f"A{seed}", "A", seed=str(seed)) for seed in (0, 1)]
    matrix = train_test_matrix(study_of(tmp_path, jobs, rows).rows)
    # p of p, q, r by the liver; r of p, r, s by the tumour; both of all by either.
    for structure, counts in (("liver", (1, 3)), ("tumour", (1, 3)), ("mean", (2, 4))):
        line = line_of(matrix, set="in_domain", metric="dice", structure=structure)
        exact = binomtest(*counts).proportion_ci(0.95, method="exact")
        assert line[FAILED].tolist() == pytest.approx([*counts, exact.low, exact.high])
    nobody = line_of(matrix, set="site-B", structure="mean")
    # Of 12 none has failed: with a share of 26.5 % that happens in 1 of 40 studies.
    assert nobody[FAILED].tolist() == pytest.approx([0, 12, 0, 1 - 0.025 ** (1 / 12)])
    others = matrix[matrix["metric"] != "dice"]
    assert len(others) == 3
    assert others[FAILED].isna().all(axis=None)


def test_failures_count_every_seed_and_fold(study: Study) -> None:
    rows = study.rows
    lost = (rows["run"] == "A00") & (rows["case"] == "b1")
    changed = rows.assign(value=rows["value"].where(~lost, 0.0))
    line = line_of(failure_table(changed), train=A, site="B")
    assert (line["failed"], line["failed_n"]) == (1 / 24, 24)
    # As a patient b1 has not failed: the mean over seeds and folds is .45.
    means = line_of(train_test_matrix(changed), train=A, site="B", structure="mean")
    assert (means["failed_patients"], means["failed_of"]) == (0, 6)


def test_networks_of_several_sites_are_lines_too_and_have_a_table(tables: StudyTables) -> None:
    means = tables.matrix.query("metric == 'dice' and structure == 'mean'")
    two = trained_at(["dijon", "bern"])
    assert two == '["bern", "dijon"]'
    of_two = means[means["train"] == two].set_index("site")["set"].to_dict()
    assert of_two == {"bern": "in_domain", "dijon": "in_domain", "toronto": "site-toronto"}
    left_out = tables.leave_site_out
    assert set(zip(left_out["train"], left_out["site"], strict=True)) == {
        (two, "toronto"), ('["bern", "toronto"]', "dijon"), ('["dijon", "toronto"]', "bern"),
    }  # fmt: skip
    line = line_of(left_out, site="toronto", metric="dice", structure="mean")
    assert line["harder"] == pytest.approx(0.05)
    assert (line["failed"], line["failed_n"]) == (0, 2 * 6 * 2)
    assert (line["false_alarm"], line["false_alarm_n"]) == (0.5, 2 * 2)
    assert "single_source-toronto" in line["jobs"]  # its oracle


def test_corrupted_images_are_in_no_table_of_images_as_acquired(whole: Study) -> None:
    plain = acquired(whole.rows)
    assert len(whole.rows) > 2 * len(plain) > 0
    for table in (train_test_matrix, failure_table):
        pd.testing.assert_frame_equal(table(whole.rows), table(plain))
    # A table of variants needs two.
    two = whole.rows.assign(variant="loss=" + whole.rows["seed"])
    for of_measures, rows in ((gap_table, whole.rows), (variant_table, two)):
        table = of_measures(rows, whole.measures)
        assert len(table) > 0
        pd.testing.assert_frame_equal(table, of_measures(acquired(rows), whole.measures))


def test_tables_do_not_depend_on_the_order_of_rows_and_jobs(tmp_path: Path) -> None:
    sites, seeds = ("bern", "dijon"), tuple("012")
    folder = fill_study(tmp_path, sites=sites, seeds=seeds, noises=(0, 3), pictures=False)
    add_raters(folder)
    tables = {
        name: pd.read_csv(folder / f"{name}.csv", dtype="str", keep_default_na=False)
        for name in ("rows", "jobs")
    }
    undefined = tables["rows"]["value"] == "nan"
    values = np.random.default_rng(0).uniform(0, 1, len(tables["rows"]))
    texts = pd.Series(list(map(repr, values.tolist())), dtype="str")
    drawn = tables["rows"]["rater"] != ""  # by one person, whichever job has measured it
    tables["rows"]["value"] = tables["rows"]["value"].where(undefined | drawn, texts)
    found = []
    for shuffled in (False, True):
        for name, table in tables.items():
            lines = table.sample(frac=1, random_state=0) if shuffled else table
            lines.to_csv(folder / f"{name}.csv", index=False)
        found.append(study_tables(read_study(folder)))
    for field in fields(found[0]):
        first, again = (getattr(each, field.name) for each in found)
        assert len(first) > 0 or field.name in ("leave_site_out", "variants")
        pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_matrix_of_one_job_is_its_site_table(whole: Study) -> None:
    """An independent way to the same numbers: the tables of a run."""
    job = next(name for name in whole.jobs["job"] if name.startswith("single_source-bern"))
    own = whole.rows[whole.rows["run"] == job]
    matrix = train_test_matrix(own).query("metric == 'dice'")
    sites = site_table(acquired(own))
    both = matrix.merge(sites, on=["set", "site", "structure"], suffixes=("", "_of_run"))
    assert len(both) == len(matrix) == len(sites) == 3 * 3
    names = {"mean": "dice", "low": "dice_low", "high": "dice_high", "n": "dice_n"}
    for ours, theirs in (names | {name: f"{name}_of_run" for name in FAILED}).items():
        np.testing.assert_array_equal(both[ours], both[theirs])
    # At home the fold has three patients.
    assert both["low"].isna().tolist() == (both["set"] == "in_domain").tolist()


def test_variants_are_compared_within_the_same_training_sites_and_set(tmp_path: Path) -> None:
    variants = ("loss=dice", "loss=focal", "loss=topk")
    folder = fill_study(
        tmp_path, sites=("bern", "dijon"), variants=variants, seeds=("0",), pictures=False
    )
    study = read_study(folder)
    table = variant_table(study.rows, study.measures)
    assert len(table) == 3 * 2 * 2 * 4  # pairs of variants, trainings, sets, metrics
    dice = table[table["metric"] == "dice"]
    steps = (
        dice["baseline"]
        .str.cat(dice["variant"], sep=">")
        .map(
            {
                "loss=dice>loss=focal": 0.02,
                "loss=dice>loss=topk": 0.04,
                "loss=focal>loss=topk": 0.02,
            }
        )
    )
    np.testing.assert_allclose(dice["difference"], steps)
    assert dice["p_holm"].tolist() == pytest.approx([12 * 0.03125] * 12)
    alarms = table[table["metric"] == "false_alarm"]
    assert (alarms["difference"] == 0).all()
    assert (alarms["patients"] == 2).all()
    # One that has no results is left out; the others are still compared.
    half = study.rows[study.rows["variant"] != "loss=topk"]
    assert len(variant_table(half, study.measures)) == 2 * 2 * 4
    line = table.iloc[0]
    assert all(name.startswith("single_source-bern") for name in line["jobs"].split(";"))


def test_every_line_of_every_table_says_its_jobs_and_patients(whole: Study) -> None:
    dice = whole.rows[(whole.rows["metric"] == "dice") & (whole.rows["structure"] == "liver")]
    dice = dice.assign(variant="loss=" + dice["seed"])  # a table of variants needs two
    jobs = set(whole.jobs["job"])
    tables = study_tables(replace(whole, rows=dice))
    for field in fields(tables):
        table = getattr(tables, field.name)
        assert len(table) > 0, field.name
        counts = [name for name in table if name in ("patients", "failed_n")]
        assert counts, field.name
        assert (table[counts] > 0).all(axis=None), field.name
        if field.name == "raters":  # whichever job has measured them
            assert "jobs" not in table
            continue
        for named in table["jobs"]:
            assert set(named.split(";")) <= jobs, field.name
    line = line_of(
        tables.shifts[tables.shifts["severity"] == 3],
        train=trained_at(["bern"]), set="in_domain", variant="loss=1", metric="dice",
        structure="mean",
    )  # fmt: skip
    own = whole.jobs[(whole.jobs["train"] == trained_at(["bern"])) & (whole.jobs["seed"] == "1")]
    assert line["jobs"] == ";".join(sorted(own["job"]))
    assert (line["n"], line["patients"]) == (6, 6)


def test_jobs_behind_a_shift_are_those_that_tested_it(tmp_path: Path) -> None:
    plain, noise, blur = ("", 0), ("noise", 3), ("blur", 2)
    seen = {
        "one": ("in_domain", [plain, noise]), "two": ("in_domain", [plain]),
        "three": ("site-B", [plain, blur]),
    }  # fmt: skip
    rows = [
        row(job, set_, f"{job}-a", "A", 0.9, corruption=corruption, severity=severity)
        for job, (set_, tested) in seen.items()
        for corruption, severity in tested
    ]
    jobs = [job_of(job, "A", fold=job) for job in seen]
    shifts = study_tables(study_of(tmp_path, jobs, rows)).shifts.query("structure == 'mean'")
    found = shifts.set_index(["set", "corruption", "severity"])["jobs"].to_dict()
    assert found == {
        ("in_domain", "noise", 0): "one;two",
        ("in_domain", "noise", 3): "one",
        ("site-B", "blur", 0): "three",
        ("site-B", "blur", 2): "three",
    }


def test_a_study_without_rows_has_empty_tables(tmp_path: Path) -> None:
    write_jobs(tmp_path, [job_of("A", "A", status="waiting")])
    study = read_study(tmp_path)
    tables = write_study_tables(tmp_path, study)
    assert all(getattr(tables, field.name).empty for field in fields(tables))
    columns = set(pd.read_csv(tmp_path / "matrix.csv").columns)
    assert {"mean", "low", "n", *FAILED} <= columns
    assert {"set", "site", "mean"} <= set(pd.read_csv(tmp_path / "raters.csv").columns)
    assert study_summary(study, tables) == {"jobs/all": 1, "jobs/done": 0, "time/jobs_s": 0}


def test_one_job_of_two_parts_is_measured_once_in_each(tmp_path: Path) -> None:
    jobs = [job_of("A", "A", part=part) for part in ("one", "two")]
    study = study_of(tmp_path, jobs, [row("A", "in_domain", "a", "A", 0.9)])
    matrix = train_test_matrix(study.rows).query("structure == 'mean'")
    assert matrix[["part", "n", "mean"]].to_numpy().tolist() == [["one", 1, 0.9], ["two", 1, 0.9]]
    assert line_names(study.jobs) == {("one", A): "A (one)", ("two", A): "A (two)"}
    assert study_summary(study, study_tables(study))["jobs/all"] == 1


def shared_with_a_second_part(folder: Path) -> None:
    """The networks of bern are those of the part z, too."""
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    again = jobs[jobs["train"] == trained_at(["bern"])].assign(part="z")
    assert len(again) > 0
    pd.concat([jobs, again]).to_csv(folder / "jobs.csv", index=False)


def test_what_two_parts_share_is_one_test_of_holms_correction(tmp_path: Path) -> None:
    variants = ("loss=dice", "loss=focal")
    folder = fill_study(tmp_path, seeds=("0",), variants=variants, noises=(0,), pictures=False)
    once = read_study(folder)
    before = study_tables(once)
    shared_with_a_second_part(folder)
    shared = read_study(folder)
    after = study_tables(shared)
    assert len(after.gaps) > len(before.gaps) > 0
    keys = ["variant", "train", "set", "site", "metric", "structure"]
    assert (before.gaps["p_holm"] > before.gaps["p"]).any()
    for table, ours, names in (
        ("gaps", ["gap", "shift", "p", "p_holm"], keys),
        ("variants", ["p", "p_holm"], ["baseline", *keys[:3], "metric"]),
    ):
        first, again = getattr(before, table), getattr(after, table)
        both = again.merge(first, on=names, suffixes=("", "_once"))
        assert len(both) == len(again) > 0
        for name in ours:
            np.testing.assert_allclose(both[name], both[f"{name}_once"], err_msg=name)
    for part in ("single_source", "z"):
        assert (after.gaps["part"] == part).any()
    summary = study_summary(shared, after)
    assert summary["jobs/all"] == once.jobs["job"].nunique() == len(once.jobs)
    of_all = (0.1 + 0.15 + 0.05) * 3 / 9
    assert summary["study/loss=dice/gap/dice"] == pytest.approx(of_all)


def test_a_shift_costs_what_lies_between_its_curve_and_no_shift(
    whole: Study, tables: StudyTables
) -> None:
    """0.05 Dice a severity up to 3, in every set of every network; beyond 3 the curve is level."""
    lost = (0.025 + 0.075 + 0.125 + 2 * 0.15) / 5
    areas = tables.shift_areas[tables.shift_areas["metric"] == "dice"]
    lines = whole.rows[["part", "variant", "train"]].drop_duplicates()
    assert len(areas[["part", "variant", "train"]].drop_duplicates()) == len(lines) == 6
    assert set(areas["corruption"]) == {"noise"}
    np.testing.assert_allclose(areas["loss"], lost)
    np.testing.assert_allclose(areas["area"], areas["start"] - lost)
    summary = study_summary(whole, tables)
    assert summary["study/shift/noise/dice"] == pytest.approx(lost)
    assert summary["study/shift/noise/hd95_mm"] == pytest.approx(30 * lost)


def test_a_job_of_two_parts_counts_once_in_what_a_shift_costs(tmp_path: Path) -> None:
    folder = fill_study(tmp_path, seeds=("0",), noises=(0, 3), pictures=False)
    rows = read_rows(folder / "rows.csv")
    hit = rows["run"].str.startswith("single_source-bern") & (rows["severity"] == 3)
    # Of the others a shift costs less, so weights matter.
    write_table(folder, rows.assign(value=rows["value"].where(~hit, 0.3 * rows["value"])))
    lost = []
    for again in (False, True):
        if again:
            shared_with_a_second_part(folder)
        write_study_tables(folder, read_study(folder))
        summary = json.loads((folder / "summary.json").read_text())
        lost.append(summary["study/shift/noise/dice"])
    assert lost[1] == pytest.approx(lost[0], abs=1e-12)


def test_undefined_values_are_in_no_mean_and_one_patient_has_no_interval(tmp_path: Path) -> None:
    rows = [
        row("A", "in_domain", "a", "A", math.nan),
        row("A", "in_domain", "b", "A", 0.5),
        row("A", "in_domain", "a", "A", math.nan, structure="tumour"),
        row("A", "site-B", "c", "B", math.nan),
        row("A", "site-B", "c", "B", 0.5, structure="tumour"),
    ]
    study = study_of(tmp_path, [job_of("A", "A")], rows)
    matrix = train_test_matrix(study.rows)
    line = line_of(matrix, set="in_domain", structure="mean")
    assert (line["mean"], line["n"], line["patients"]) == (0.5, 1, 1)
    assert math.isnan(line["low"])
    assert line[FAILED[:2]].tolist() == [0, 1]
    nothing = line_of(matrix, set="in_domain", structure="tumour")
    assert (nothing["n"], nothing["patients"]) == (0, 0)
    assert nothing[["mean", *FAILED]].isna().all()
    # No structure is defined on both sides.
    assert gap_table(study.rows, study.measures).empty


def test_people_agree_at_a_site_by_hand(tmp_path: Path) -> None:
    """Carl and Dora have drawn cases of B, which two networks of A and B's own are tested on."""
    drawn = {("b1", "carl"): 0.9, ("b1", "dora"): 0.5, ("b2", "carl"): 0.8}
    sets = {"A0": "site-B", "A1": "site-B", "B": "in_domain"}
    rows = [row(job, set_, case, "B", 0.1) for job, set_ in sets.items() for case in ("b1", "b2")]
    rows += [
        row(job, set_, case, "B", value, rater=rater)
        for job, set_ in sets.items()
        for (case, rater), value in drawn.items()
        if job != "B" or case == "b1"  # the fold of B's own
    ]
    jobs = [job_of(f"A{seed}", "A", seed=str(seed)) for seed in (0, 1)]
    study = study_of(tmp_path, [*jobs, job_of("B", "B")], rows)
    assert len(study.raters) == 3 + 2
    assert set(study.rows["value"]) == {0.1}  # nobody's masks pass for those of a network
    found = write_study_tables(tmp_path, study).raters
    np.testing.assert_allclose(train_test_matrix(study.rows)["mean"], 0.1)
    expected = {  # of b1 the mean over raters, of a site that over patients
        "site-B": ((0.7 + 0.8) / 2, 2), "in_domain": (0.7, 1),
    }  # fmt: skip
    assert len(found) == 2 * 2  # the liver, and the mean over structures
    for set_, (mean, n) in expected.items():
        for structure in ("liver", "mean"):
            line = line_of(found, set=set_, site="B", metric="dice", structure=structure)
            assert line["mean"] == pytest.approx(mean)
            assert (line["n"], line["patients"]) == (n, n)
            assert line[["low", "high"]].isna().all()
    written = pd.read_csv(tmp_path / "raters.csv")
    pd.testing.assert_frame_equal(written, found, check_dtype=False)


def test_people_who_have_drawn_six_patients_have_an_interval(
    whole: Study, tables: StudyTables
) -> None:
    """Dora has drawn all of bern with a Dice of .9; every job that tests it has measured her."""
    raters = tables.raters
    assert set(zip(raters["set"], raters["site"], strict=True)) == {
        ("in_domain", "bern"), ("site-bern", "bern"),
    }  # fmt: skip
    assert len(raters) == 2 * 3
    for name in ("mean", "low", "high"):
        np.testing.assert_allclose(raters[name], 0.9)
    assert (raters[["n", "patients"]] == 6).all(axis=None)
    assert whole.rows["rater"].eq("").all()


def test_summary_keys(whole: Study, tables: StudyTables) -> None:
    summary = study_summary(whole, tables)
    expected: dict[str, Any] = {
        "study/bern/bern/dice": 0.755,
        "study/bern/toronto/dice": 0.605,
        "study/bern+dijon/toronto/dice": 0.605,
        "study/bern/toronto/gap/dice": 0.15,
        "study/bern/toronto/harder/dice": 0.05,
        "study/bern/toronto/shift/dice": 0.1,
        "study/bern/toronto/gap/false_alarm": 0.5,
        "study/worst/dice": 0.605,
        "study/worst/hd95_mm": 11.85,
        "study/worst/false_alarm": 0.5,
        "study/gap/dice": (0.1 + 0.15 + 0.05) * 3 / 9,
        "time/jobs_s": 18 * 60,
    }
    assert {key: summary[key] for key in expected} == pytest.approx(expected)
    assert summary["study/bern/toronto/gap/dice_low"] < 0.15
    assert "study/bern/toronto/gap/false_alarm_low" not in summary  # of two patients
