"""The fingerprint of cases, as numbers, a table and figures."""

import io
import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import REAL_DATA, make_case, reannotated, save_nifti
from rich.console import Console

from segshift import cli
from segshift.cohort import Annotation, write_manifest
from segshift.cohort import fingerprint as room
from segshift.cohort.checks import load_case
from segshift.cohort.fingerprint import Spread, fingerprint, read_facts
from segshift.errors import InputError
from segshift.report.cohort_figures import write_cohort_figures
from segshift.report.fingerprint import print_fingerprint


def cohort(folder, sites=("a", "a", "b")):
    cases = [make_case(folder, f"c{i}", site=s, seed=i) for i, s in enumerate(sites)]
    for case in cases:
        if case.site == "b":  # twice as thick, and without the core
            volume = load_case(case)
            affine = np.diag([1.0, 1, 2, 1])
            save_nifti(case.images[0], volume.image[0], affine)
            box = np.where(volume.label > 0, 5, 0).astype(np.uint8)
            save_nifti(case.annotation.label, box, affine)
    return cases


def test_hand_computed(tmp_path):
    cases = cohort(tmp_path)
    volumes = [load_case(case) for case in cases]
    found = fingerprint(read_facts(cases))
    assert (found.cases, found.patients) == (3, 3)
    assert found.spacing_mm == (Spread(1, 1, 2), Spread(1, 1, 1), Spread(1, 1, 1))
    assert found.shape == (Spread(8, 8, 8), Spread(16, 16, 16), Spread(16, 16, 16))
    box, core = found.structures
    counts = [int((v.label == 1).sum()) for v in volumes]
    assert box.present == core.annotated == 3
    assert core.present == 2
    ml = sorted(np.array(counts) * [1, 1, 2] / 1000)
    assert asdict(box.sizes["ml"]) == pytest.approx(
        {"minimum": ml[0], "median": ml[1], "maximum": ml[2]}
    )
    assert box.voxel_share == pytest.approx(sum(counts) / (3 * 8 * 16 * 16))
    for part, pick in ((found.whole[0], lambda v: v.label < 9), (found.foreground[0], None)):
        pooled = [v.image[0][pick(v) if pick else v.label > 0] for v in volumes]
        pooled = np.concatenate(pooled).astype(float)
        low, middle, high = np.percentile(pooled, [0.5, 50, 99.5])
        expected = (low, middle, high, pooled.mean(), pooled.std())
        assert tuple(asdict(part).values()) == pytest.approx(expected)


def test_ignored_voxels_count_nowhere(tmp_path):
    case = reannotated(make_case(tmp_path, "c"), values=(5, None), ignore_values=(9,))
    volume = load_case(case)
    (fact,) = read_facts([case])
    decided = int((volume.label != 255).sum())
    assert decided < volume.label.size
    assert fact.decided == decided
    assert fact.counts == (int((volume.label == 1).sum()), None)
    assert fact.foreground.shape == (1, fact.counts[0])
    assert fact.whole.shape == (1, decided)
    box, core = fingerprint([fact]).structures
    assert box.voxel_share == fact.counts[0] / decided
    assert (core.annotated, core.present, core.sizes) == (0, 0, {})


def test_a_sample_is_small_and_repeatable(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "SAMPLE", 100)
    cases = cohort(tmp_path)
    once, again = read_facts(cases), read_facts(cases[::-1])[::-1]
    for one, other in zip(once, again, strict=True):
        assert one.whole.shape == one.foreground.shape == (1, 100)
        np.testing.assert_array_equal(one.whole, other.whole)
        np.testing.assert_array_equal(one.foreground, other.foreground)
        for kept in (one.whole, one.foreground):  # a view would keep the whole image alive
            assert kept.base is None or kept.base.size == 100
    monkeypatch.setattr(room, "SAMPLES", 30)
    assert {one.whole.shape for one in read_facts(cases)} == {(1, 10)}


def test_a_case_without_label(tmp_path):
    case = reannotated(make_case(tmp_path, "c"), label=None)
    found = fingerprint(read_facts([case]))
    assert found.foreground == (None,)
    assert [s.annotated for s in found.structures] == [0, 0]
    assert found.whole[0].median > 0


def test_wrong_cases_are_named(tmp_path):
    cases = cohort(tmp_path)
    double = replace(cases[1], images=cases[1].images * 2)
    with pytest.raises(InputError, match=r"'c1' has 2 channel\(s\), the cases before it 1"):
        read_facts([cases[0], double])
    image = np.full((8, 16, 16), np.nan, np.float32)
    save_nifti(cases[0].images[0], image)
    with pytest.raises(InputError, match="'c0'"):
        read_facts(cases)
    with pytest.raises(InputError, match="'c0'"):
        read_facts([reannotated(cases[0], label=None)])


def test_the_table_has_a_column_per_site(tmp_path):
    facts = read_facts(cohort(tmp_path))
    console = Console(file=io.StringIO(), width=200)
    print_fingerprint(
        facts, name="boxes", channels=["image"], structures=["box", "core"], console=console
    )
    text = console.file.getvalue()
    rows = {line.split("  ")[0].strip(): line.split() for line in text.splitlines()}
    assert "all" in text
    assert rows["cases"] == ["cases", "3", "2", "1"]
    assert "1 (1 to 2)" in text
    assert "0 of 1" in text


def test_the_command_writes_figures(tmp_path, capsys):
    cases = cohort(tmp_path)
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["box", "core"])
    cli.main(["cohort", "show", str(tmp_path / "m.csv"), "--figures", str(tmp_path / "f")])
    text = capsys.readouterr().out
    assert "fingerprint" in text
    for name in ("spacing", "intensities", "volumes"):
        path = tmp_path / "f" / f"{name}.png"
        assert str(path.name) in text
        assert path.stat().st_size > 5000
    only = "{box: 5, background: 9}"
    cli.main(["cohort", "show", str(tmp_path / "m.csv"), "--structures", only])
    assert "core" not in capsys.readouterr().out
    for wrong in ("{box: [", "[1, 2]"):
        with pytest.raises(SystemExit, match=r"error: (--|data\.)structures"):
            cli.main(["cohort", "show", str(tmp_path / "m.csv"), "--structures", wrong])


def test_a_terminal_that_lacks_a_letter_gets_its_number(tmp_path, monkeypatch):
    cases = [replace(case, site="\u91cd\u5e86") for case in cohort(tmp_path)]
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["box", "core"])
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)
    cli.main(["cohort", "show", str(tmp_path / "m.csv")])
    terminal.seek(0)
    assert "\\u91cd\\u5e86" in terminal.read()


def test_a_cohort_without_labels_is_shown_too(tmp_path):
    cases = [replace(case, annotation=Annotation()) for case in cohort(tmp_path)]
    facts = read_facts(cases)
    print_fingerprint(facts, name="n", channels=["image"], structures=[])
    paths = write_cohort_figures(facts, tmp_path / "f", channels=["image"], structures=[])
    assert [path.name for path in paths] == ["spacing.png", "intensities.png"]


def test_a_fingerprint_is_plain_values(tmp_path):
    json.dumps(asdict(fingerprint(read_facts(cohort(tmp_path)))))


@pytest.mark.real_data
def test_two_hospitals():
    from segshift.cohort import read_manifest

    rules = {
        "cavity": {"dijon": 3, "toronto": 1},
        "myocardium": {"dijon": 2},
        "background": {"dijon": 1},
    }
    both = read_manifest(REAL_DATA / "cardiac" / "manifest.csv", structures=rules)
    facts = read_facts(both.cases)
    dijon, toronto = (
        fingerprint([one for one in facts if one.site == site]) for site in ("dijon", "toronto")
    )
    assert dijon.cases + toronto.cases == 96
    assert toronto.structures[1].annotated == 0
    assert 20 < dijon.structures[0].sizes["ml"].median < 300
