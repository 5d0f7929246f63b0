"""Rows survive the file and duplicates do not; the means are those computed by hand."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_inputs import DICE, HD95
from row_inputs import row as measured

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.results import (
    COLUMNS,
    Row,
    append_rows,
    group_tables,
    grouped,
    of_network,
    of_raters,
    read_cases,
    read_rows,
    site_table,
    summarise,
    summarise_groups,
    with_raters,
    write_cases,
    write_rows,
)

EXTRA = ("_low", "_high", "_n", "_patients", "_shrunken", "failed_patients", "failed_of")
BETTER = {"dice": DICE, "hd95_mm": HD95}


def row(
    set_: str, site: str, case: str, structure: str, metric: str, value: float, **other: Any
) -> Row:
    names = {"patient": f"patient-{case}", "structure": structure, "metric": metric, **other}
    return measured("r", set_, case, site, value, **names)


# Site A: the tumour is in a2 only, a3 has neither structure. B has two cases, C one without tumour.
ROWS = [
    row("in_domain", "A", "a1", "liver", "dice", 0.9),
    row("in_domain", "A", "a2", "liver", "dice", 0.7),
    row("in_domain", "A", "a1", "tumour", "dice", math.nan),
    row("in_domain", "A", "a2", "tumour", "dice", 0.4),
    row("in_domain", "A", "a3", "liver", "dice", math.nan),
    row("in_domain", "A", "a3", "tumour", "dice", math.nan),
    row("site-B", "B", "b1", "liver", "dice", 0.5),
    row("site-B", "B", "b2", "liver", "dice", 0.7),
    row("site-B", "B", "b1", "tumour", "dice", 0.0),
    row("site-B", "B", "b2", "tumour", "dice", 0.2),
    row("site-C", "C", "c1", "liver", "dice", 0.8),
    row("site-C", "C", "c1", "tumour", "dice", math.nan),
    row("in_domain", "A", "a1", "liver", "hd95_mm", 2.0),
    row("in_domain", "A", "a2", "liver", "hd95_mm", 4.0),
    row("site-B", "B", "b1", "liver", "hd95_mm", 9.0),
    row("site-C", "C", "c1", "liver", "hd95_mm", 5.0),
]


HEAD = ",".join(COLUMNS) + "\n"


def frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame([[getattr(r, c) for c in COLUMNS] for r in rows], columns=list(COLUMNS))


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
any_rows = st.lists(
    st.builds(
        Row,
        names,
        names,
        names,
        st.integers(0, 5),
        *[names] * 4,
        st.booleans(),
        names,
        st.booleans(),
        names,
        st.floats(allow_infinity=False),
    ),
    max_size=8,
    unique_by=lambda r: (r.run, r.set, r.case, r.structure, r.metric),
)


@settings(deadline=None, max_examples=25)
@given(rows=any_rows)
def test_any_row_reads_back_to_the_last_bit(
    rows: list[Row], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    append_rows(path, rows[:3])
    append_rows(path, rows[3:])
    pd.testing.assert_frame_equal(
        read_rows(path), frame(rows), check_exact=True, check_dtype=bool(rows)
    )


def test_names_that_look_like_numbers_or_like_nothing_stay_strings(tmp_path: Path) -> None:
    odd = measured(
        "1", "1.50", "007", "NA", np.float64(0.1) + 0.2, corruption="1e3", severity=2,
        patient="012", rater="null", structure="nan", metric="+",
    )  # fmt: skip
    write_rows(tmp_path / "rows.csv", [odd])
    (read,) = read_rows(tmp_path / "rows.csv").itertuples(index=False)
    assert Row(*read) == odd


def test_flags_are_true_or_false_and_nothing_else(tmp_path: Path) -> None:
    both = [
        row("s", "A", "a", "liver", "dice", 0.5, postprocessed=flag, reference_empty=flag)
        for flag in (False, True)
    ]
    write_rows(tmp_path / "rows.csv", both)
    read = read_rows(tmp_path / "rows.csv")
    assert read["postprocessed"].tolist() == read["reference_empty"].tolist() == [False, True]
    text = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text(text.replace("true,liver,true", "yes,liver,true"))
    with pytest.raises(InputError, match="column postprocessed: 'yes'; it is true or false"):
        read_rows(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").write_text(text.replace("s,,0,", "s,,mild,"))
    with pytest.raises(InputError, match="column severity: whole numbers"):
        read_rows(tmp_path / "rows.csv")


def test_rows_of_the_network_stand_apart_from_those_of_raters_and_of_post_processing() -> None:
    plain = row("s", "A", "a", "liver", "dice", 0.5)
    better = row("s", "A", "a", "liver", "dice", 0.7, postprocessed=True)
    doubt = row("s", "A", "a", "liver", "ece", 0.1)  # which post-processing does not touch
    person = row("s", "A", "a", "liver", "dice", 0.9, rater="label_2")
    rows = frame([better, plain, doubt, person])
    assert of_network(rows)["value"].tolist() == [0.5, 0.1]
    assert sorted(of_network(rows, postprocessed=True)["value"]) == [0.1, 0.7]
    assert of_raters(rows)["value"].tolist() == [0.9]


def test_the_header_is_written_once_and_earlier_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    for one in ROWS[:3]:
        append_rows(path, [one])
    lines = path.read_text().splitlines()
    assert lines == [
        "run,set,corruption,severity,case,patient,site,rater,postprocessed,structure,"
        "reference_empty,metric,value",
        "r,in_domain,,0,a1,patient-a1,A,,false,liver,false,dice,0.9",
        "r,in_domain,,0,a2,patient-a2,A,,false,liver,false,dice,0.7",
        "r,in_domain,,0,a1,patient-a1,A,,false,tumour,true,dice,nan",
    ]


def test_write_rows_sorts_replaces_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    append_rows(path, ROWS[:1])
    write_rows(path, reversed(ROWS))
    table = read_rows(path)
    keys = list(zip(table["set"], table["case"], table["structure"], table["metric"], strict=True))
    assert len(keys) == len(ROWS)
    assert keys == sorted(keys)
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


def test_a_case_measured_twice_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    write_rows(path, ROWS[:2])
    before = path.read_text()
    with pytest.raises(InputError, match=r"rows\.csv: 1 numbers .*a2.*tumour"):
        write_rows(path, [*ROWS, ROWS[3]])
    assert path.read_text() == before


def test_the_same_case_in_two_sets_or_under_a_corruption_is_no_duplicate(tmp_path: Path) -> None:
    noisy = row("in_domain", "A", "a1", "liver", "dice", 0.1, corruption="noise", severity=3)
    other = row("labels-label_2", "A", "a1", "liver", "dice", 0.1)
    write_rows(tmp_path / "rows.csv", [ROWS[0], noisy, other])
    assert len(read_rows(tmp_path / "rows.csv")) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (",".join(COLUMNS[:-2]) + "\n", r"rows\.csv: columns missing: metric, value"),
        ("", r"rows\.csv"),
        (f"{HEAD}r,s,,0,c,p,x,,false,liver,false,dice,0.5\nr,s,c", r"rows\.csv"),
        (f"{HEAD}r,s,,0,c,p,x,,false,liver,false,dice,good\n", r"rows\.csv: column value"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_rows(tmp_path / "rows.csv")


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_an_infinite_value_is_named_with_what_to_write_instead(
    tmp_path: Path, value: float
) -> None:
    write_rows(tmp_path / "rows.csv", [*ROWS, row("x", "X", "007", "liver", "hd95_mm", value)])
    told = rf"rows\.csv: hd95_mm of liver of case '007' is {value} .*diagonal .* in mm.* NaN for"
    with pytest.raises(InputError, match=told):
        read_rows(tmp_path / "rows.csv")


def test_site_table_by_hand() -> None:
    table = site_table(frame(ROWS)).set_index(["set", "site", "structure"])
    assert list(table.columns) == [
        *(m + part for m in ("dice", "hd95_mm") for part in ("", "_low", "_high", "_n")),
        *("failed_patients", "failed_of", "failed_low", "failed_high"),
    ]
    assert list(table.index) == [
        (set_, site, structure)
        for set_, site in [("in_domain", "A"), ("site-B", "B"), ("site-C", "C")]
        for structure in ("liver", "tumour", "mean")
    ]
    dice = {
        ("in_domain", "A", "liver"): (0.8, 2),
        ("in_domain", "A", "tumour"): (0.4, 1),
        ("in_domain", "A", "mean"): (0.6, 2),
        ("site-B", "B", "mean"): ((0.6 + 0.1) / 2, 2),
        ("site-C", "C", "tumour"): (math.nan, 0),
        ("site-C", "C", "mean"): (0.8, 1),
    }
    for key, (mean, n) in dice.items():
        assert table.loc[key, "dice"] == pytest.approx(mean, nan_ok=True)
        assert table.loc[key, "dice_n"] == n
    assert table.loc[("site-B", "B", "mean"), "hd95_mm"] == 9.0
    assert table.loc[("site-B", "B", "mean"), "hd95_mm_n"] == 1
    assert table.loc[("site-B", "B", "tumour"), "hd95_mm_n"] == 0
    # The tumour of b1 is missed (0.0); nobody is asked of a3, who has no structure.
    assert table.loc[("site-B", "B", "mean"), ["failed_patients", "failed_of"]].tolist() == [1, 2]
    assert table.loc[("in_domain", "A", "mean"), ["failed_patients", "failed_of"]].tolist() == [
        0,
        2,
    ]
    assert table.loc[("site-B", "B", "liver"), "failed_patients"] == 0


def test_summary_by_hand() -> None:
    expected = {
        "test/in_domain/liver/dice": 0.8,
        "test/in_domain/tumour/dice": 0.4,
        "test/in_domain/dice": 0.6,
        "test/site-B/liver/dice": 0.6,
        "test/site-B/tumour/dice": 0.1,
        "test/site-B/dice": 0.35,
        "test/site-C/liver/dice": 0.8,
        "test/site-C/dice": 0.8,
        "test/worst_site/dice": 0.35,
        # B lost 0.2 on the liver and 0.3 on the tumour, C (which has no tumour) nothing.
        "test/gap/dice": ((0.2 + 0.3) / 2 + 0.0) / 2,
        "test/in_domain/liver/hd95_mm": 3.0,
        "test/in_domain/hd95_mm": 3.0,
        "test/site-B/liver/hd95_mm": 9.0,
        "test/site-B/hd95_mm": 9.0,
        "test/site-C/liver/hd95_mm": 5.0,
        "test/site-C/hd95_mm": 5.0,
        "test/worst_site/hd95_mm": 9.0,
        "test/gap/hd95_mm": 7.0 - 3.0,
    }
    summary = summarise(frame(ROWS), BETTER)
    assert {k: v for k, v in summary.items() if not k.endswith(EXTRA)} == pytest.approx(expected)
    counts = {key: value for key, value in summary.items() if key.endswith("_n")}
    assert counts == {
        "test/in_domain/dice_n": 2,
        "test/in_domain/hd95_mm_n": 2,
        "test/site-B/dice_n": 2,
        "test/site-B/hd95_mm_n": 1,
        "test/site-C/dice_n": 1,
        "test/site-C/hd95_mm_n": 1,
    }
    assert summary["test/worst_site/dice_patients"] == 2
    assert summary["test/worst_site/hd95_mm_patients"] == 1
    failed = {key: value for key, value in summary.items() if "/failed_" in key}
    # One of two: Clopper and Pearson, by R's binom.test(1, 2).
    assert failed["test/site-B/failed_patients"] == 1
    assert failed["test/site-B/failed_low"] == pytest.approx(0.01257912, abs=1e-7)
    assert failed["test/site-B/failed_high"] == pytest.approx(0.98742088, abs=1e-7)
    json.dumps(summary, allow_nan=False)


def test_the_worst_site_is_found_inside_a_set_of_several_sites() -> None:
    rows = [
        row("outside", site, f"{site}{i}", "liver", "dice", value)
        for site, values in {"good": [0.9, 0.9, 0.9], "bad": [0.1]}.items()
        for i, value in enumerate(values)
    ]
    summary = summarise(frame(rows), BETTER)
    assert summary["test/worst_site/dice"] == pytest.approx(0.1)
    assert summary["test/outside/dice"] == pytest.approx(0.7)


def test_a_patient_with_many_cases_weighs_as_much_as_one_with_one() -> None:
    rows = [row("in_domain", "A", f"a{i}", "liver", "dice", 0.2, patient="often") for i in range(9)]
    rows.append(row("in_domain", "A", "b", "liver", "dice", 0.8, patient="once"))
    assert summarise(frame(rows), BETTER)["test/in_domain/dice"] == pytest.approx(0.5)
    table = site_table(frame(rows)).set_index("structure")
    assert table.loc["liver", "dice"] == pytest.approx(0.5)
    assert table.loc["liver", "dice_n"] == 10


def test_the_scope_says_whose_masks_a_summary_is_of() -> None:
    summary = summarise(frame(ROWS), BETTER, scope="raters")
    assert summary["raters/in_domain/dice"] == pytest.approx(0.6)
    assert not any(key.startswith("test") for key in summary)


def test_a_table_shows_how_well_people_agree_where_several_have_drawn() -> None:
    people = [
        row("in_domain", "A", case, "liver", "dice", value, rater="label_2")
        for case, value in (("a1", 0.8), ("a2", 0.9))
    ]
    table = with_raters(site_table(frame(ROWS)), frame(people))
    table = table.set_index(["set", "site", "structure"])
    assert table.loc[("in_domain", "A", "liver"), "dice_raters"] == pytest.approx(0.85)
    assert table.loc[("in_domain", "A", "mean"), "dice_raters_n"] == 2
    assert math.isnan(table.loc[("site-B", "B", "liver"), "dice_raters"])
    assert "dice_raters" not in with_raters(site_table(frame(ROWS)), frame([]))


@pytest.mark.parametrize("wanted", [{"in_domain"}, {"site-B", "site-C"}])
def test_no_gap_without_both_sides(wanted: set[str]) -> None:
    summary = summarise(frame([r for r in ROWS if r.set in wanted]), BETTER)
    assert ("test/worst_site/dice" in summary) == (len(wanted) > 1)  # of one site none is worst
    assert not any(key.startswith("test/gap") for key in summary)


@settings(deadline=None, max_examples=6)
@given(st.permutations(ROWS))
def test_the_order_of_the_rows_does_not_matter(rows: list[Row]) -> None:
    pd.testing.assert_frame_equal(site_table(frame(rows)), site_table(frame(ROWS)))
    assert summarise(frame(rows), BETTER) == pytest.approx(summarise(frame(ROWS), BETTER))


@settings(deadline=None, max_examples=6)
@given(st.floats(0, 0.3))
def test_losing_dice_at_another_site_widens_the_gap_by_its_share(loss: float) -> None:
    worse = [r if r.set != "site-C" else row("site-C", "C", "c1", r.structure, r.metric,
             r.value - loss) for r in ROWS]  # fmt: skip
    before, after = (summarise(frame(rows), BETTER) for rows in (ROWS, worse))
    assert after["test/gap/dice"] - before["test/gap/dice"] == pytest.approx(loss / 2)


def test_no_rows_give_no_numbers() -> None:
    assert summarise(frame([]), BETTER) == {}
    assert site_table(frame([])).empty
    assert list(site_table(frame([])).columns) == ["set", "site", "structure"]


def test_tables_do_not_change_the_rows() -> None:
    rows = frame(ROWS)
    site_table(rows)
    summarise(rows, BETTER)
    pd.testing.assert_frame_equal(rows, frame(ROWS))


def test_rows_of_two_runs_are_not_pooled() -> None:
    rows = frame(ROWS)
    rows.loc[0, "run"] = "other"
    for table in (site_table, lambda r: summarise(r, BETTER)):
        with pytest.raises(InputError, match="other, r"):
            table(rows)


def test_a_metric_without_a_direction_is_refused() -> None:
    with pytest.raises(InputError, match="hd95_mm"):
        summarise(frame(ROWS), {"dice": DICE})


def evaluated(name: str, site: str, **tags: str) -> Case:
    return Case(name, f"patient-{name}", site, (Path("i.nii"),), tags=tags)


# Site A follows two guidelines, and one of them is B's too; nobody knows that of C. One rater.
CASES = {
    "in_domain": [
        evaluated("a1", "A", guideline="tight", rater="x"),
        evaluated("a2", "A", guideline="wide", rater="x"),
        evaluated("a3", "A", guideline="wide", rater="x"),
    ],
    "site-B": [evaluated(name, "B", guideline="wide", rater="x") for name in ("b1", "b2")],
    "site-C": [evaluated("c1", "C", rater="x", truth="c1/t.nii")],
}


@pytest.fixture
def cases(tmp_path: Path) -> pd.DataFrame:
    write_cases(tmp_path / "run" / "cases.csv", CASES)
    return read_cases(tmp_path / "run" / "cases.csv")


def test_every_evaluated_case_is_a_line_with_all_its_columns(tmp_path: Path) -> None:
    odd = evaluated("007", "NA", case="mine", guideline="a, b")
    write_cases(tmp_path / "c.csv", {"x;y": [odd], "in_domain": [odd], "site-C": CASES["site-C"]})
    assert (tmp_path / "c.csv").read_text().splitlines() == [
        "set,case,patient,site,original_case,guideline,rater,truth",
        'in_domain,007,patient-007,NA,mine,"a, b",,',
        "site-C,c1,patient-c1,C,,,x,c1/t.nii",
        'x;y,007,patient-007,NA,mine,"a, b",,',
    ]
    first = read_cases(tmp_path / "c.csv").iloc[0]
    assert (first["case"], first["site"], first["rater"]) == ("007", "NA", "")


@pytest.mark.parametrize("text", ["", "case,patient\na,b\n"])
def test_a_broken_file_of_cases_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(InputError, match=r"cases\.csv: (not a table|columns missing: set, site)"):
        read_cases(tmp_path / "cases.csv")


def test_groups_by_hand(cases: pd.DataFrame) -> None:
    table = grouped(frame(ROWS), cases, column="guideline")
    table = table.set_index(["set", "guideline", "structure"])
    dice = {
        ("in_domain", "tight", "liver"): (0.9, 1),
        ("in_domain", "tight", "tumour"): (math.nan, 0),
        ("in_domain", "tight", "mean"): (0.9, 1),
        ("in_domain", "wide", "liver"): (0.7, 1),
        ("in_domain", "wide", "mean"): ((0.7 + 0.4) / 2, 1),
        ("site-B", "wide", "mean"): ((0.6 + 0.1) / 2, 2),
    }
    for key, (mean, n) in dice.items():
        assert table.loc[key, "dice"] == pytest.approx(mean, nan_ok=True)
        assert table.loc[key, "dice_n"] == n
    assert set(table.index.droplevel("structure")) == {key[:2] for key in dice}  # c1 is in none
    assert summarise_groups(frame(ROWS), cases) == pytest.approx(
        {
            "test/in_domain/guideline-tight/dice": 0.9,
            "test/in_domain/guideline-tight/hd95_mm": 2.0,
            "test/in_domain/guideline-wide/dice": 0.55,
            "test/in_domain/guideline-wide/hd95_mm": 4.0,
            "test/site-B/guideline-wide/dice": 0.35,
            "test/site-B/guideline-wide/hd95_mm": 9.0,
        }
    )


def test_any_column_can_be_grouped_by_even_the_case(cases: pd.DataFrame) -> None:
    table = grouped(frame(ROWS), cases, column="case")
    assert set(table["case"]) == {row.case for row in ROWS}
    odd = cases.assign(guideline=cases["guideline"].replace({"wide": " wi/de "}))
    assert "test/site-B/guideline-wi_de/dice" in summarise_groups(frame(ROWS), odd)
    blank = cases.assign(guideline=cases["guideline"].replace({"wide": " "}))
    assert summarise_groups(frame(ROWS), blank) == {}


def test_a_case_with_two_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cases.csv").write_text("set,case,patient,site\ns,a,p,x\nt,a,p,x\ns,a,p,x\n")
    with pytest.raises(InputError, match="several lines of .*'set': 's', 'case': 'a'"):
        read_cases(tmp_path / "cases.csv")


def test_a_table_is_shown_only_where_it_says_more_than_sets_and_sites(cases: pd.DataFrame) -> None:
    rows = frame(ROWS)
    assert list(group_tables(rows, cases)) == ["guideline"]  # one rater is no group
    pd.testing.assert_frame_equal(
        group_tables(rows, cases)["guideline"], grouped(rows, cases, column="guideline")
    )
    # One guideline for each site, and sites apart or together in their sets.
    of_site = cases.assign(guideline=cases["site"].map({"A": "one", "B": "two", "C": "three"}))
    together = rows.assign(set="everyone")
    assert group_tables(rows, of_site) == {}
    assert group_tables(together, of_site.assign(set="everyone")) == {}
    # B and C share theirs: that is a set of its own, or says more than their sites.
    shared = cases.assign(guideline=cases["site"].map({"A": "one", "B": "two", "C": "two"}))
    with pytest.raises(InputError, match="1 cases have rows but no line in cases.csv"):
        group_tables(rows, shared[shared["case"] != rows["case"].iloc[0]])
    assert group_tables(rows, shared) == {}
    assert list(group_tables(together, shared.assign(set="everyone"))) == ["guideline"]
    assert summarise_groups(rows, shared)["test/site-C/guideline-two/dice"] == pytest.approx(0.8)


def test_groups_need_their_column_and_every_case(cases: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no column 'vendor'.*guideline"):
        grouped(frame(ROWS), cases, column="vendor")
    with pytest.raises(InputError, match=r"1 cases have rows but no line .*'site-B', 'b2'"):
        grouped(frame(ROWS), cases[cases["case"] != "b2"], column="guideline")
    assert group_tables(frame(ROWS), cases.drop(columns=["guideline", "rater"])) == {}
    assert summarise_groups(frame([]), cases[:0]) == {}
