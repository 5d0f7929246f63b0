"""Tables of a study against numbers that were worked out by hand, and what must hold for any."""

import math
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from study_inputs import fill_study, row, write_jobs

from segshift.errors import InputError
from segshift.report.study_page import gap_lines
from segshift.report.study_words import answers
from segshift.results import (
    Row,
    Study,
    bootstrap_means,
    failure_table,
    gap_table,
    read_study,
    sign_flip_p,
    site_table,
    study_summary,
    study_tables,
    train_test_matrix,
    variant_table,
    write_rows,
    write_study_tables,
)
from segshift.results.study import line_names, place_name, sites_of

LINE = ("part", "variant", "train")
SOURCE = {"part": "single_source"}
BOTH = ("liver", "lesion")


def study_of(folder: Path, jobs: Iterable[dict[str, str]], rows: Iterable[Row]):
    write_jobs(folder, jobs)
    write_rows(folder / "rows.csv", rows)
    return read_study(folder)


@pytest.fixture
def two_sites(tmp_path: Path):
    """A by two folds and two seeds, B by one seed; patient a1 has two cases.

    Dice of A's network in domain: a1-x .8 and .9 (seeds), a1-y .6 and .6, a2 .9 and .8.
    At B, by seed and fold: b1 .4 .5 .6 .7, b2 .3 .3 .3 .3. B's own: b1 .9, b2 .7.
    """
    jobs = [
        {"job": f"A{seed}{fold}", "train": "A", "seed": seed, "fold": fold, **SOURCE}
        for seed in "01"
        for fold in "01"
    ]
    jobs.append({"job": "B", "train": "B", "seed": "0", "fold": "0", **SOURCE})
    rows = [
        row("A00", "in_domain", "a1-x", "A", 0.8, patient="a1"),
        row("A10", "in_domain", "a1-x", "A", 0.9, patient="a1"),
        row("A00", "in_domain", "a1-y", "A", 0.6, patient="a1"),
        row("A10", "in_domain", "a1-y", "A", 0.6, patient="a1"),
        row("A01", "in_domain", "a2", "A", 0.9),
        row("A11", "in_domain", "a2", "A", 0.8),
        row("A00", "site-B", "b1", "B", 0.4),
        row("A01", "site-B", "b1", "B", 0.5),
        row("A10", "site-B", "b1", "B", 0.6),
        row("A11", "site-B", "b1", "B", 0.7),
        *(row(f"A{j}", "site-B", "b2", "B", 0.3) for j in ("00", "01", "10", "11")),
        row("B", "in_domain", "b1", "B", 0.9),
        row("B", "in_domain", "b2", "B", 0.7),
        row("B", "site-A", "a1-x", "A", 0.5, patient="a1"),
        row("B", "site-A", "a1-y", "A", 0.4, patient="a1"),
        row("B", "site-A", "a2", "A", 0.6),
    ]  # fmt: skip
    return study_of(tmp_path, jobs, rows)


def line_of(table: pd.DataFrame, **values: str) -> pd.Series:
    found = table[(table[list(values)] == list(values.values())).all(axis=1)]
    assert len(found) == 1, found
    return found.iloc[0]


def test_matrix_by_hand(two_sites) -> None:
    matrix = train_test_matrix(two_sites.rows)
    home = line_of(matrix, train="A", set="in_domain", structure="liver")
    # Cases .85, .6 and .85; seed 0: (.8 + .6 + .9) / 3, seed 1: (.9 + .6 + .8) / 3.
    assert home["mean"] == pytest.approx((0.85 + 0.6 + 0.85) / 3)
    assert (home["n"], home["patients"], home["seeds"]) == (3, 2, 2)
    assert (home["seed_low"], home["seed_high"]) == pytest.approx((2.3 / 3, 2.3 / 3))
    assert home["jobs"] == "A00;A01;A10;A11"
    out = line_of(matrix, train="A", set="site-B", structure="liver")
    assert out["mean"] == pytest.approx((0.55 + 0.3) / 2)
    assert (out["seed_low"], out["seed_high"]) == pytest.approx((0.375, 0.475))
    once = line_of(matrix, train="B", set="site-A", structure="liver")
    assert once["mean"] == pytest.approx(0.5)
    assert (once["seeds"], once["seed_low"], once["seed_high"]) == pytest.approx((1, 0.5, 0.5))


def test_intervals_are_those_of_patients_not_of_cases(two_sites) -> None:
    home = line_of(train_test_matrix(two_sites.rows), train="A", set="in_domain", structure="liver")
    by_patient = bootstrap_means([0.85, 0.6, 0.85], ["a1", "a1", "a2"])
    by_case = bootstrap_means([0.85, 0.6, 0.85], ["x", "y", "z"])
    assert (home["low"], home["high"]) == pytest.approx((by_patient.low, by_patient.high))
    assert (home["low"], home["high"]) != pytest.approx((by_case.low, by_case.high))


def test_gap_is_split_by_hand_into_a_harder_site_and_the_shift(two_sites) -> None:
    line = line_of(gap_table(two_sites.rows), train="A", site="B", structure="mean")
    at_home, outside, oracle = 2.3 / 3, 0.425, 0.8
    assert line["in_domain"] == pytest.approx(at_home)
    assert line["out"] == pytest.approx(outside)
    assert line["oracle"] == pytest.approx(oracle)
    assert line["gap"] == pytest.approx(at_home - outside)
    assert line["harder"] == pytest.approx(at_home - oracle)
    assert line["shift"] == pytest.approx(oracle - outside)
    assert line["p"] == sign_flip_p([0.35, 0.4])
    assert (line["patients"], line["paired"], line["tested"], line["unpaired"]) == (2, 2, 2, 0)
    assert line["seeds"] == 2
    assert line["jobs"] == "A00;A01;A10;A11;B"


def test_shift_is_paired_where_the_oracle_has_not_measured_all(tmp_path: Path) -> None:
    jobs = [{"job": x, "train": x, **SOURCE} for x in "AB"]
    rows = [
        row("A", "in_domain", "a", "A", 0.9),
        *(row("A", "site-B", f"b{i}", "B", v) for i, v in enumerate((0.6, 0.5, 0.1))),
        *(row("B", "in_domain", f"b{i}", "B", v) for i, v in enumerate((0.8, 0.8))),
        row("B", "site-A", "a", "A", 0.4),
    ]
    line = line_of(gap_table(study_of(tmp_path, jobs, rows).rows), train="A", structure="liver")
    assert line["gap"] == pytest.approx(0.9 - 0.4)
    assert line["shift"] == pytest.approx(0.8 - 0.55)  # b0 and b1 only
    assert line["harder"] == pytest.approx(0.5 - 0.25)
    assert (line["patients"], line["paired"], line["tested"], line["unpaired"]) == (3, 2, 2, 1)


def test_intervals_of_the_mean_are_of_studies_that_saw_the_rare_structure(tmp_path: Path) -> None:
    """3 of 30 patients of B have a lesion; without one of them a mean would be the liver's."""
    rows = [
        row(job, set_, f"{site}{i}", site, value + 0.001 * i, structure=structure)
        for job, set_, site, liver, lesion in (
            ("A", "in_domain", "A", 0.95, 0.7),
            ("A", "site-B", "B", 0.95, 0.1),
            ("B", "in_domain", "B", 0.95, 0.3),
        )
        for i in range(30)
        for structure, value in (("liver", liver), ("lesion", lesion))
        if structure == "liver" or site == "A" or i % 10 == 0
    ]
    jobs = [{"job": x, "train": x, **SOURCE} for x in "AB"]
    gaps = gap_table(study_of(tmp_path, jobs, rows).rows).query("train == 'A'")
    line = line_of(gaps, structure="mean")
    assert line["gap"] == pytest.approx((0.9645 + 0.7145) / 2 - (0.9645 + 0.11) / 2)
    for part in ("gap", "shift", "harder", "out"):
        assert abs(line[f"{part}_low"] - line[part]) < 0.02, part
        assert abs(line[f"{part}_high"] - line[part]) < 0.02, part
    assert (line["patients"], line["paired"], line["tested"], line["unpaired"]) == (3, 3, 30, 0)
    (sentence,) = answers(gaps, metric="dice", sites=("A", "B"))
    assert "too few" not in sentence
    assert "at B (30 patients), of which" in sentence
    (shown,) = gap_lines(gaps, metric="dice", sites=("A", "B"))
    assert shown["patients"] == "30"
    assert shown["cells"][-1].interval  # of the shift


def test_patients_of_the_mean_that_the_oracle_lacks_are_those_of_any_structure(
    tmp_path: Path,
) -> None:
    """The oracle has measured 10 of 20 livers, and all 8 lesions."""
    rows = [row("A", "in_domain", f"a{i}", "A", 0.9, structure=s) for i in range(2) for s in BOTH]
    for job, set_, livers in (("A", "site-B", 20), ("B", "in_domain", 10)):
        rows += [row(job, set_, f"b{i}", "B", 0.8, structure="liver") for i in range(livers)]
        rows += [row(job, set_, f"b{i}", "B", 0.5, structure="lesion") for i in range(8)]
    jobs = [{"job": x, "train": x, **SOURCE} for x in "AB"]
    gaps = gap_table(study_of(tmp_path, jobs, rows).rows).set_index("structure")
    columns = ["patients", "paired", "tested", "unpaired"]
    assert gaps.loc["liver", columns].tolist() == [20, 10, 10, 10]
    assert gaps.loc["lesion", columns].tolist() == [8, 8, 8, 0]
    assert gaps.loc["mean", columns].tolist() == [8, 8, 10, 10]


def test_without_an_oracle_the_gap_is_not_split(tmp_path: Path) -> None:
    rows = [row("A", "in_domain", "a", "A", 0.9), row("A", "site-B", "b", "B", 0.5)]
    study = study_of(tmp_path, [{"job": "A", "train": "A", **SOURCE}], rows)
    line = line_of(gap_table(study.rows), structure="mean")
    assert line["gap"] == pytest.approx(0.4)
    assert line[["harder", "shift", "oracle", "p", "p_holm"]].isna().all()
    assert line["paired"] == 0


def test_positive_is_worse_for_a_metric_where_lower_is_better(two_sites, tmp_path: Path) -> None:
    rows = two_sites.rows.assign(value=30 * (1 - two_sites.rows["value"]), metric="hd95_mm")
    dice, mm = gap_table(two_sites.rows), gap_table(rows)
    for name in ("gap", "harder", "shift", "gap_low", "gap_high", "shift_low", "shift_high"):
        np.testing.assert_allclose(mm[name], 30 * dice[name], atol=1e-9)
    np.testing.assert_array_equal(mm["p"], dice["p"])


def test_signed_metrics_are_in_the_matrix_but_have_no_gap(two_sites) -> None:
    rows = two_sites.rows.assign(metric="volume_difference_relative")
    assert len(train_test_matrix(rows)) == len(train_test_matrix(two_sites.rows))
    assert gap_table(rows).empty
    assert variant_table(rows).empty


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory):
    return read_study(fill_study(tmp_path_factory.mktemp("study"), pictures=False))


def test_the_parts_add_up_exactly_everywhere(whole) -> None:
    gaps = gap_table(whole.rows)
    assert len(gaps) == (6 + 3) * 2 * 3  # pairs, metrics, structures and their mean
    np.testing.assert_allclose(gaps["gap"], gaps["harder"] + gaps["shift"], rtol=0, atol=1e-14)
    signs = np.where(gaps["metric"] == "dice", 1, -1)
    np.testing.assert_allclose(gaps["gap"], signs * (gaps["in_domain"] - gaps["out"]), atol=1e-14)
    np.testing.assert_allclose(gaps["shift"], np.where(signs > 0, 0.1, 3.0))
    assert (gaps["p_holm"] >= gaps["p"]).all()
    assert gaps.groupby(["metric", "structure"])["p_holm"].max().tolist() == pytest.approx(
        [9 * 0.03125] * 6
    )


def test_networks_of_several_sites_are_lines_too_and_have_a_table(whole) -> None:
    tables = study_tables(whole)
    means = tables.matrix.query("metric == 'dice' and structure == 'mean'")
    of_two = means[means["train"] == "bern+dijon"].set_index("site")["set"].to_dict()
    assert of_two == {"bern": "in_domain", "dijon": "in_domain", "toronto": "site-toronto"}
    left_out = tables.leave_site_out
    assert set(zip(left_out["train"], left_out["site"], strict=True)) == {
        ("bern+dijon", "toronto"), ("bern+toronto", "dijon"), ("dijon+toronto", "bern"),
    }  # fmt: skip
    line = line_of(left_out, site="toronto", metric="dice", structure="mean")
    assert line["harder"] == pytest.approx(0.05)
    assert (line["failed"], line["failed_n"]) == (0, 2 * 6 * 2)
    assert "single_source-toronto" in line["jobs"]  # its oracle


def test_sets_under_a_shift_are_in_no_table(whole) -> None:
    plain = whole.rows[~whole.rows["set"].str.contains("noise")]
    for table in (train_test_matrix, gap_table, variant_table, failure_table):
        pd.testing.assert_frame_equal(table(whole.rows), table(plain))


def test_tables_do_not_depend_on_the_order_of_rows_and_jobs(tmp_path: Path) -> None:
    sites, seeds = ("bern", "dijon"), tuple("012")
    folder = fill_study(tmp_path, sites=sites, seeds=seeds, noises=(0,), pictures=False)
    tables = {
        name: pd.read_csv(folder / f"{name}.csv", dtype="str", keep_default_na=False)
        for name in ("rows", "jobs")
    }
    values = np.random.default_rng(0).uniform(0, 1, len(tables["rows"]))
    tables["rows"]["value"] = list(map(repr, values.tolist()))
    found = []
    for shuffled in (False, True):
        for name, table in tables.items():
            lines = table.sample(frac=1, random_state=0) if shuffled else table
            lines.to_csv(folder / f"{name}.csv", index=False)
        found.append(study_tables(read_study(folder)))
    for name in ("matrix", "gaps", "leave_site_out", "variants", "failures"):
        first, again = (getattr(each, name) for each in found)
        pd.testing.assert_frame_equal(first, again, check_exact=True)


def test_matrix_of_one_job_is_its_site_table(whole, tmp_path: Path) -> None:
    """An independent way to the same numbers: the tables of a run."""
    job = whole.rows["run"].iloc[0]
    own = whole.rows[whole.rows["run"] == job]
    matrix = train_test_matrix(own).query("metric == 'dice'")
    sites = site_table(own[~own["set"].str.contains("noise")])
    keys = ["set", "site", "structure"]
    both = matrix.merge(sites, on=keys)
    assert len(both) == len(matrix) == len(sites)
    for ours, theirs in (("mean", "dice"), ("low", "dice_low"), ("high", "dice_high")):
        np.testing.assert_array_equal(both[ours], both[theirs])


def test_variants_are_compared_within_the_same_training_sites_and_set(tmp_path: Path) -> None:
    variants = ("loss=dice", "loss=focal", "loss=topk")
    folder = fill_study(
        tmp_path, sites=("bern", "dijon"), variants=variants, seeds=("0",), pictures=False
    )
    study = read_study(folder)
    table = variant_table(study.rows)
    assert len(table) == 3 * 2 * 2 * 2  # pairs of variants, trainings, sets, metrics
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
    assert dice["sign_flip_holm"].tolist() == pytest.approx([12 * 0.03125] * 12)
    # One that has no results is left out; the others are still compared.
    half = study.rows[study.rows["variant"] != "loss=topk"]
    assert len(variant_table(half)) == 8
    line = table.iloc[0]
    assert all(name.startswith("single_source-bern") for name in line["jobs"].split(";"))


def test_failures_count_every_seed_and_fold(two_sites) -> None:
    rows = two_sites.rows
    lost = (rows["run"] == "A00") & (rows["case"] == "b1")
    table = failure_table(rows.assign(value=rows["value"].where(~lost, 0.0)))
    line = line_of(table, train="A", site="B")
    assert (line["failed"], line["failed_n"]) == (1 / 8, 8)


def test_unfinished_jobs_are_in_no_table(tmp_path: Path) -> None:
    jobs = [{"job": x, "train": x, **SOURCE} for x in "AB"]
    jobs[1]["status"] = "failed"
    rows = [row("A", "in_domain", "a", "A", 0.9), row("B", "in_domain", "b", "B", 0.5)]
    study = study_of(tmp_path, jobs, rows)
    assert train_test_matrix(study.rows)["train"].unique().tolist() == ["A"]


def test_rows_of_an_unknown_job_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'B'.*jobs.csv lacks"):
        study_of(tmp_path, [{"job": "A"}], [row("B", "in_domain", "b", "B", 0.5)])
    with pytest.raises(InputError, match="no jobs.csv"):
        read_study(tmp_path / "nowhere")


def test_two_networks_are_not_taken_for_one_that_was_repeated(tmp_path: Path) -> None:
    """As of `train_patients=2`, which once left two held-out sites with the same training site."""
    jobs = [{"job": job, "train": "A", "seed": "0", **SOURCE} for job in ("one", "two")]
    rows = [row(job, "in_domain", "a", "A", value) for job, value in (("one", 0.9), ("two", 0.5))]
    same = "one and two are both part=single_source, train=A, seed=0;"
    with pytest.raises(InputError, match=same):
        study_of(tmp_path, jobs, rows)
    jobs[1]["status"] = "failed"  # its rows are in no mean
    assert len(study_of(tmp_path, jobs, rows).rows) == 1
    jobs[1] |= {"status": "done", "seed": "1"}
    assert len(study_of(tmp_path, jobs, rows).rows) == 2


def test_every_line_of_every_table_says_its_jobs_and_patients(whole) -> None:
    dice = whole.rows[(whole.rows["metric"] == "dice") & (whole.rows["structure"] == "liver")]
    dice = dice.assign(variant="loss=" + dice["seed"])  # a table of variants needs two
    jobs = set(whole.jobs["job"])
    tables = study_tables(Study(whole.jobs, dice))
    for field in fields(tables):
        table = getattr(tables, field.name)
        assert len(table) > 0, field.name
        for named in table["jobs"]:
            assert set(named.split(";")) <= jobs, field.name
        counts = [name for name in table if name in ("patients", "failed_n")]
        assert counts, field.name
        assert (table[counts] > 0).all(axis=None), field.name
    line = line_of(
        tables.shifts[tables.shifts["severity"] == 3],
        train="bern", set="in_domain", variant="loss=1", metric="dice", structure="mean",
    )  # fmt: skip
    own = whole.jobs[(whole.jobs["train"] == "bern") & (whole.jobs["seed"] == "1")]
    assert line["jobs"] == ";".join(sorted(own["job"]))
    assert (line["n"], line["patients"]) == (6, 6)


def test_jobs_behind_a_shift_are_those_that_tested_it(tmp_path: Path) -> None:
    sets = {"one": ("in_domain", "in_domain+noise3"), "two": ("in_domain",), "three": ("site-B",)}
    jobs = [{"job": job, "train": "A", "fold": job, **SOURCE} for job in sets]
    rows = [row(job, name, f"{job}-a", "A", 0.9) for job, own in sets.items() for name in own]
    rows.append(row("three", "site-B+blur2", "three-a", "A", 0.9))
    shifts = study_tables(study_of(tmp_path, jobs, rows)).shifts.query("structure == 'mean'")
    found = shifts.set_index(["set", "shift", "severity"])["jobs"].to_dict()
    assert found == {
        ("in_domain", "noise", 0): "one;two",
        ("in_domain", "noise", 3): "one",
        ("site-B", "blur", 0): "three",
        ("site-B", "blur", 2): "three",
    }


def test_a_study_without_rows_has_empty_tables(tmp_path: Path) -> None:
    write_jobs(tmp_path, [{"job": "A", "train": "A", "status": "waiting", **SOURCE}])
    study = read_study(tmp_path)
    tables = write_study_tables(tmp_path, study)
    assert tables.matrix.empty
    assert tables.gaps.empty
    assert {"mean", "low", "n"} <= set(pd.read_csv(tmp_path / "matrix.csv").columns)
    assert study_summary(study, tables) == {"jobs/all": 1, "jobs/done": 0, "time/jobs_s": 0}


def test_one_job_of_two_parts_is_measured_once_in_each(tmp_path: Path) -> None:
    jobs = [{"job": "A", "train": "A", "part": part} for part in ("one", "two")]
    study = study_of(tmp_path, jobs, [row("A", "in_domain", "a", "A", 0.9)])
    matrix = train_test_matrix(study.rows).query("structure == 'mean'")
    assert matrix[["part", "n", "mean"]].to_numpy().tolist() == [["one", 1, 0.9], ["two", 1, 0.9]]
    assert line_names(study.jobs) == {("one", "A"): "A (one)", ("two", "A"): "A (two)"}
    assert study_summary(study, study_tables(study))["jobs/all"] == 1


def test_what_two_parts_share_is_one_test_of_holms_correction(tmp_path: Path) -> None:
    variants = ("loss=dice", "loss=focal")
    folder = fill_study(tmp_path, seeds=("0",), variants=variants, noises=(0,), pictures=False)
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    once = study_tables(read_study(folder))
    again = jobs[jobs["train"] == "bern"].assign(part="z")
    pd.concat([jobs, again]).to_csv(folder / "jobs.csv", index=False)
    shared = read_study(folder)
    twice = study_tables(shared)
    assert len(twice.gaps) > len(once.gaps) > 0
    keys = ["variant", "train", "set", "site", "metric", "structure"]
    assert (once.gaps["p_holm"] > once.gaps["p"]).any()
    for table, ours, names in (
        ("gaps", ["gap", "shift", "p", "p_holm"], keys),
        ("variants", ["sign_flip_p", "sign_flip_holm"], ["baseline", *keys[:3], "metric"]),
    ):
        first, again = getattr(once, table), getattr(twice, table)
        both = again.merge(first, on=names, suffixes=("", "_once"))
        assert len(both) == len(again) > 0
        for name in ours:
            np.testing.assert_allclose(both[name], both[f"{name}_once"], err_msg=name)
    for part in ("single_source", "z"):
        assert (twice.gaps["part"] == part).any()
    summary = study_summary(shared, twice)
    assert summary["jobs/all"] == len(jobs)
    of_all = (0.1 + 0.15 + 0.05) * 3 / 9
    assert summary["study/loss=dice/gap/dice"] == pytest.approx(of_all)


def test_a_shift_costs_what_lies_between_its_curve_and_no_shift(whole) -> None:
    """0.05 Dice a severity up to 3, in every set of every network; beyond 3 the curve is level."""
    lost = (0.025 + 0.075 + 0.125 + 2 * 0.15) / 5
    tables = study_tables(whole)
    areas = tables.shift_areas[tables.shift_areas["metric"] == "dice"]
    lines = whole.rows[["part", "variant", "train"]].drop_duplicates()
    assert len(areas[["part", "variant", "train"]].drop_duplicates()) == len(lines) == 6
    np.testing.assert_allclose(areas["loss"], lost)
    np.testing.assert_allclose(areas["area"], areas["start"] - lost)
    summary = study_summary(whole, tables)
    assert summary["study/shift/noise/dice"] == pytest.approx(lost)
    assert summary["study/shift/noise/hd95_mm"] == pytest.approx(30 * lost)


def test_a_job_of_two_parts_counts_once_in_what_a_shift_costs(tmp_path: Path) -> None:
    folder = fill_study(tmp_path, seeds=("0",), noises=(0, 3), pictures=False)
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False, dtype={"value": float})
    hit = rows["run"].str.startswith("single_source-bern") & rows["set"].str.endswith("noise3")
    rows.loc[hit, "value"] *= 0.3  # of the others a shift costs less, so weights matter
    rows.to_csv(folder / "rows.csv", index=False)
    jobs = pd.read_csv(folder / "jobs.csv", dtype="str", keep_default_na=False)
    key = "study/shift/noise/dice"
    once = study_summary(read_study(folder), write_study_tables(folder, read_study(folder)))
    pd.concat([jobs, jobs[jobs["train"] == "bern"].assign(part="z")]).to_csv(
        folder / "jobs.csv", index=False
    )
    twice = study_summary(read_study(folder), write_study_tables(folder, read_study(folder)))
    assert twice[key] == pytest.approx(once[key], abs=1e-12)


def test_undefined_values_are_in_no_mean_and_one_patient_has_no_interval(tmp_path: Path) -> None:
    rows = [
        row("A", "in_domain", "a", "A", math.nan),
        row("A", "in_domain", "b", "A", 0.5),
        row("A", "in_domain", "a", "A", math.nan, structure="tumour"),
        row("A", "site-B", "c", "B", math.nan),
        row("A", "site-B", "c", "B", 0.5, structure="tumour"),
    ]
    study = study_of(tmp_path, [{"job": "A", "train": "A", **SOURCE}], rows)
    matrix = train_test_matrix(study.rows)
    line = line_of(matrix, set="in_domain", structure="mean")
    assert (line["mean"], line["n"], line["patients"]) == (0.5, 1, 1)
    assert math.isnan(line["low"])
    assert gap_table(study.rows).empty  # no structure is defined on both sides


def test_the_split_of_the_mean_needs_an_oracle_of_all_structures(tmp_path: Path) -> None:
    jobs = [{"job": x, "train": x, **SOURCE} for x in "AB"]
    rows = [
        *(row("A", "in_domain", "a", "A", 0.9, structure=s) for s in ("liver", "tumour")),
        *(row("A", "site-B", "b", "B", 0.5, structure=s) for s in ("liver", "tumour")),
        row("B", "in_domain", "b", "B", 0.8),
    ]
    gaps = gap_table(study_of(tmp_path, jobs, rows).rows)
    assert line_of(gaps, structure="liver")["shift"] == pytest.approx(0.3)
    for structure in ("tumour", "mean"):
        line = line_of(gaps, structure=structure)
        assert line["gap"] == pytest.approx(0.4)
        assert math.isnan(line["shift"])
        assert math.isnan(line["harder"])
        assert math.isnan(line["p"])


def test_summary_keys(whole) -> None:
    summary = study_summary(whole, study_tables(whole))
    assert summary["study/bern/bern/dice"] == pytest.approx(0.755)
    assert summary["study/bern/toronto/dice"] == pytest.approx(0.605)
    assert summary["study/bern/toronto/gap/dice"] == pytest.approx(0.15)
    assert summary["study/bern/toronto/harder/dice"] == pytest.approx(0.05)
    assert summary["study/bern/toronto/shift/dice"] == pytest.approx(0.1)
    assert summary["study/bern/toronto/gap/dice_low"] < 0.15
    assert summary["study/worst/dice"] == pytest.approx(0.605)
    assert summary["study/worst/hd95_mm"] == pytest.approx(11.85)
    assert summary["study/gap/dice"] == pytest.approx((0.1 + 0.15 + 0.05) * 3 / 9)
    assert summary["time/jobs_s"] == 18 * 60


def test_names_of_sites_and_sets() -> None:
    known = {"a", "b", "a+b"}
    assert sites_of("a+b", known) == ("a+b",)
    assert sites_of("b+a", known) == ("b", "a")
    assert sites_of("a+elsewhere", known) == ("a+elsewhere",)
    assert place_name("in_domain", "a") == place_name("site-a", "a") == "a"
    assert place_name("guideline-old", "a") == "guideline-old at a"
