"""A metric of another package, lower is better, through a run, a study and a comparison.

Every one of these once asked a list of our own names which end is better, and had it inverted.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import composed, make_case, save_nifti

from segshift import evaluation
from segshift.cli import main
from segshift.cohort import write_manifest
from segshift.cohort.images import read_label
from segshift.errors import InputError
from segshift.metrics import Measure
from segshift.results import read_measures, read_study, study_summary, study_tables, trained_at

RATE = "false_positive_rate"
METRICS = "metrics=[{_target_: own_metric.FalsePositiveRate},{_target_: segshift.metrics.Dice}]"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Score masks that are the references, with so many false slices at each site."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    cases = [
        make_case(tmp_path, f"{site}{n}", site=site) for site in ("good", "poor") for n in range(6)
    ]
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["box", "core"])

    def scored(name: str, false: dict[str, int], *, metrics: str = METRICS) -> Path:
        for case in cases:
            mask = read_label(case.annotation.label).astype(np.uint8)
            mask[: false[case.site]][mask[: false[case.site]] == 0] = 5
            save_nifti(tmp_path / name / f"{case.id}.nii.gz", mask)
        words = [f"predictions={tmp_path / name}", f"references={tmp_path / 'm.csv'}", metrics]
        folder = tmp_path / "runs" / name
        evaluation.evaluate(composed(*words, job="evaluate"), folder, command="x", choices={})
        return folder

    return scored


def test_a_run_says_which_end_is_better_and_tells_the_worst_site_by_it(run, capsys):
    folder = run("one", {"good": 0, "poor": 2})
    measures = read_measures(folder)
    assert next(iter(measures.values())) == Measure(RATE, "", "lower")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary[f"test/worst_site/{RATE}"] == summary[f"test/site-poor/{RATE}"] > 0
    assert summary[f"test/site-good/{RATE}"] == 0
    table = capsys.readouterr().out
    assert any("poor" in line and "worst" in line for line in table.splitlines())


def test_compare_reads_it_from_the_runs(run, tmp_path, monkeypatch, capsys):
    few, many = run("few", {"good": 0, "poor": 1}), run("many", {"good": 2, "poor": 3})
    monkeypatch.chdir(tmp_path)
    main(["compare", str(few), str(many), "--metric", RATE, "-o", "out"])
    assert f"{RATE}, lower is better" in capsys.readouterr().out
    runs = pd.read_csv(tmp_path / "out" / "runs.csv")
    runs = runs[runs["metric"] == RATE]
    assert set(runs.loc[runs["rank"] == 1, "run"]) == {"runs/few"}


def test_a_study_loses_where_it_grows(run, tmp_path):
    """The gap is positive where it grows, also after the way through files."""
    folder = run("one", {"good": 1, "poor": 3})
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    rows["set"] = rows["set"].replace({"site-good": "in_domain"})
    study = tmp_path / "study"
    study.mkdir()
    rows.assign(run="job").to_csv(study / "rows.csv", index=False)
    (study / "metrics.json").write_text((folder / "metrics.json").read_text())
    line = ["job", "single_source", trained_at(["good"]), "", "0", "", "done", "1", "1"]
    columns = ["job", "part", "train", "variant", "seed", "fold", "status", "seconds", "steps"]
    pd.DataFrame([line], columns=columns).to_csv(study / "jobs.csv", index=False)
    found = read_study(study)
    tables = study_tables(found)
    gaps = tables.gaps.set_index(["metric", "structure"])
    assert gaps.loc[(RATE, "mean"), "gap"] > 0
    assert gaps.loc[("dice", "mean"), "gap"] > 0  # which falls
    summary = study_summary(found, tables)
    assert summary[f"study/gap/{RATE}"] == summary[f"study/good/poor/gap/{RATE}"] > 0


def test_one_that_says_nothing_of_its_ends_is_refused_at_once(run):
    with pytest.raises(InputError, match="Undeclared says unit=None.*better: higher, lower, zero"):
        run("one", {"good": 0, "poor": 0}, metrics="metrics=[{_target_: own_metric.Undeclared}]")
