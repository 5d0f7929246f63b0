"""What is read of a study: whose rows, which masks, and what was trained where."""

import json
from pathlib import Path

import pytest
from row_inputs import DICE, row
from study_inputs import job_of, line_of, study_of, write_jobs

from segshift.errors import InputError
from segshift.results import (
    Row,
    line_names,
    place_name,
    read_study,
    sites_of,
    train_test_matrix,
    trained_at,
    write_measures,
    write_rows,
)

A = trained_at(["A"])


def test_unfinished_jobs_are_in_no_table(tmp_path: Path) -> None:
    jobs = [job_of("A", "A"), job_of("B", "B", status="failed")]
    rows = [row("A", "in_domain", "a", "A", 0.9), row("B", "in_domain", "b", "B", 0.5)]
    study = study_of(tmp_path, jobs, rows)
    assert train_test_matrix(study.rows)["train"].unique().tolist() == [A]


def test_rows_of_an_unknown_job_or_metric_are_refused(tmp_path: Path) -> None:
    of_metrics = [
        row("A", "in_domain", "a", "A", 0.9),
        row("A", "in_domain", "a", "A", 9.0, metric="hd95_mm"),
    ]
    with pytest.raises(InputError, match="'B'.*jobs.csv lacks"):
        study_of(tmp_path, [job_of("A", "A")], [row("B", "in_domain", "b", "B", 0.5)])
    with pytest.raises(InputError, match="no jobs.csv"):
        read_study(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not said for the metric.*hd95_mm"):
        study_of(tmp_path, [job_of("A", "A")], of_metrics, measures=[DICE])
    (tmp_path / "metrics.json").unlink()
    with pytest.raises(InputError, match="metrics.json is absent"):
        read_study(tmp_path)


def test_two_networks_are_not_taken_for_one_that_was_repeated(tmp_path: Path) -> None:
    """As of `train_patients=2`, which once left two held-out sites with the same training site."""
    jobs = [job_of(name, "A", seed="0") for name in ("one", "two")]
    rows = [row(job, "in_domain", "a", "A", value) for job, value in (("one", 0.9), ("two", 0.5))]
    same = r'one and two are both part=single_source, train=\["A"\], seed=0;'
    with pytest.raises(InputError, match=same):
        study_of(tmp_path, jobs, rows)
    jobs[1]["status"] = "failed"  # its rows are in no mean
    assert len(study_of(tmp_path, jobs, rows).rows) == 1
    jobs[1] |= {"status": "done", "seed": "1"}
    assert len(study_of(tmp_path, jobs, rows).rows) == 2


def test_one_site_is_told_from_two_that_are_called_alike(tmp_path: Path) -> None:
    """The same part, seed and fold, and the same name for a reader: yet two networks."""
    jobs = [job_of("one", "A+B 3", seed="0"), job_of("two", "A", "B 3", seed="0")]
    rows = [
        row("one", "in_domain", "x", "A+B 3", 0.9),
        row("two", "in_domain", "y", "A", 0.5),
        row("two", "site-A+B 3", "x", "A+B 3", 0.6),
    ]
    study = study_of(tmp_path, jobs, rows)
    assert len(study.rows) == 3
    of_one, of_two = trained_at(["A+B 3"]), trained_at(["A", "B 3"])
    assert set(study.rows["train"]) == {of_one, of_two}
    assert line_names(study.jobs) == {
        ("single_source", of_one): f"A+B 3 (single_source) ({of_one})",
        ("single_source", of_two): f"A+B 3 (single_source) ({of_two})",
    }


def test_masks_are_judged_with_post_processing_where_a_run_has_it(tmp_path: Path) -> None:
    """A's network has a rule for the liver alone, that of B none at all."""
    rows: list[Row] = []
    for job, plain, after in (("A", 0.5, 0.7), ("B", 0.6, None)):
        site = {"A": "A", "B": "B"}[job]
        for structure, value in (("liver", plain), ("tumour", 0.4)):
            noise = {"structure": structure, "corruption": "noise", "severity": 3}
            rows.append(row(job, "in_domain", site, site, value, structure=structure))
            rows.append(row(job, "in_domain", site, site, value - 0.3, **noise))
            if structure == "liver" and after:
                rows.append(row(job, "in_domain", site, site, after, postprocessed=True))
                rows.append(row(job, "in_domain", site, site, 0.45, postprocessed=True, **noise))
        rows.append(row(job, "in_domain", site, site, 0.95, rater="dora"))
    jobs = [job_of(site, site) for site in "AB"]
    expected = {
        False: {("A", "liver"): 0.5, ("A", "tumour"): 0.4, ("A", "mean"): 0.45,
                ("B", "liver"): 0.6, ("B", "tumour"): 0.4, ("B", "mean"): 0.5},
        True: {("A", "liver"): 0.7, ("A", "tumour"): 0.4, ("A", "mean"): 0.55,
               ("B", "liver"): 0.6, ("B", "tumour"): 0.4, ("B", "mean"): 0.5},
    }  # fmt: skip
    study_of(tmp_path, jobs, rows)
    for postprocessed, means in expected.items():
        study = read_study(tmp_path, postprocessed=postprocessed)
        assert len(study.rows) == 2 * 2 * 2  # jobs, structures, with and without noise
        matrix = train_test_matrix(study.rows)
        for (site, structure), mean in means.items():
            line = line_of(matrix, train=trained_at([site]), structure=structure)
            assert line["mean"] == pytest.approx(mean)
        noisy = line_of(study.rows, run="A", structure="liver", corruption="noise")
        assert noisy["value"] == pytest.approx(0.45 if postprocessed else 0.2)
        assert study.raters["value"].tolist() == [0.95] * 2  # nobody post-processes people
    assert read_study(tmp_path).rows["postprocessed"].eq(False).all()  # unless it is asked for


def test_the_training_sites_are_a_list_whatever_they_are_called(tmp_path: Path) -> None:
    odd = ("a+b", "a", "b 3", 'the "best"', "x,y", "[1]", "", "K\u00f6ln")
    cell = trained_at(odd)
    assert sites_of(cell) == tuple(sorted(odd))
    assert trained_at(reversed(odd)) == cell
    assert "K\u00f6ln" in cell  # as a person reads it
    assert sites_of(trained_at(["a+b"])) == ("a+b",) != sites_of(trained_at(["a", "b"]))
    assert json.loads(cell) == sorted(odd)
    # Through the file, whose cells are put in quotes.
    write_jobs(tmp_path, [job_of("one", *odd)])
    write_rows(tmp_path / "rows.csv", [row("one", "in_domain", "c", "a+b", 0.5)])
    write_measures(tmp_path, [DICE])
    assert read_study(tmp_path).rows["train"].map(sites_of).tolist() == [tuple(sorted(odd))]


@pytest.mark.parametrize("cell", ["A", "A+B", "", '["A"', "12", '"AB"', '{"A": 1}', "null"])
def test_another_cell_than_a_list_is_refused(cell: str) -> None:
    with pytest.raises(InputError, match=r'a list of sites is wanted: \["dijon"\]'):
        sites_of(cell)


def test_names_of_places() -> None:
    assert place_name("in_domain", "a") == place_name("site-a", "a") == "a"
    assert place_name("guideline-old", "a") == "guideline-old at a"
    assert place_name("site-a", "a+b") == "site-a at a+b"
