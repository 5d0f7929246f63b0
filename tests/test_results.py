"""Rows survive the file and duplicates do not; the means are those computed by hand."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segshift.cohort import Case
from segshift.errors import InputError
from segshift.results import (
    COLUMNS,
    Row,
    append_rows,
    group_tables,
    grouped,
    read_cases,
    read_rows,
    site_table,
    summarise,
    summarise_groups,
    write_cases,
    write_rows,
)

EXTRA = ("_low", "_high", "_n")
BETTER = {"dice": True, "hd95_mm": False}


def row(set_: str, site: str, case: str, structure: str, metric: str, value: float) -> Row:
    return Row("r", set_, case, f"patient-{case}", site, structure, metric, value)


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


def frame(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame([[getattr(r, c) for c in COLUMNS] for r in rows], columns=list(COLUMNS))


names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8)
any_rows = st.lists(
    st.builds(Row, *[names] * 7, st.floats(allow_infinity=False)),
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
    odd = Row("1", "1.50", "007", "012", "NA", "nan", "dice", np.float64(0.1) + 0.2)
    write_rows(tmp_path / "rows.csv", [odd])
    (read,) = read_rows(tmp_path / "rows.csv").itertuples(index=False)
    assert Row(*read) == odd


def test_the_header_is_written_once_and_earlier_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    for one in ROWS[:3]:
        append_rows(path, [one])
    lines = path.read_text().splitlines()
    assert lines == [
        "run,set,case,patient,site,structure,metric,value",
        "r,in_domain,a1,patient-a1,A,liver,dice,0.9",
        "r,in_domain,a2,patient-a2,A,liver,dice,0.7",
        "r,in_domain,a1,patient-a1,A,tumour,dice,nan",
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


def test_the_same_case_in_two_sets_is_no_duplicate(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.csv", [ROWS[0], row("a+noise3", "A", "a1", "liver", "dice", 0.1)])
    assert len(read_rows(tmp_path / "rows.csv")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run,set,case,site,structure,metric\n", r"rows\.csv: columns missing: patient, value"),
        ("", r"rows\.csv"),
        (",".join(COLUMNS) + "\nr,s,c,p,x,liver,dice,0.5\nr,s,c", r"rows\.csv"),
        (",".join(COLUMNS) + "\nr,s,c,p,x,liver,dice,good\n", r"rows\.csv"),
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
        metric + part for metric in ("dice", "hd95_mm") for part in ("", "_low", "_high", "_n")
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


def test_shifted_sets_count_neither_for_the_gap_nor_for_the_worst_site() -> None:
    noisy = [
        row(f"{set_}+noise3", site, "n", "liver", "dice", 0.01)
        for set_, site in (("in_domain", "A"), ("site-B", "B"))
    ]
    plain, with_noise = summarise(frame(ROWS), BETTER), summarise(frame([*ROWS, *noisy]), BETTER)
    for key in ("test/gap/dice", "test/worst_site/dice"):
        assert with_noise[key] == plain[key]
    assert with_noise["test/in_domain+noise3/dice"] == pytest.approx(0.01)


@pytest.mark.parametrize("wanted", [{"in_domain"}, {"site-B", "site-C"}])
def test_no_gap_without_both_sides(wanted: set[str]) -> None:
    summary = summarise(frame([r for r in ROWS if r.set in wanted]), BETTER)
    assert "test/worst_site/dice" in summary
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
        summarise(frame(ROWS), {"dice": True})


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
    write_cases(tmp_path / "c.csv", {"in_domain": [odd], "site-C": CASES["site-C"], "x+n3": [odd]})
    assert (tmp_path / "c.csv").read_text().splitlines() == [
        "case,sets,patient,site,original_case,guideline,rater,truth",
        '007,in_domain;x+n3,patient-007,NA,mine,"a, b",,',
        "c1,site-C,patient-c1,C,,,x,c1/t.nii",
    ]
    first = read_cases(tmp_path / "c.csv").iloc[0]
    assert (first["case"], first["site"], first["rater"]) == ("007", "NA", "")


@pytest.mark.parametrize("text", ["", "case,patient\na,b\n"])
def test_a_broken_file_of_cases_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(InputError, match=r"cases\.csv: (not a table|columns missing: sets, site)"):
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
    (tmp_path / "cases.csv").write_text("case,sets,patient,site\na,s,p,x\na,s,p,x\n")
    with pytest.raises(InputError, match=r"the case\(s\) \['a'\] have several lines"):
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
    assert group_tables(rows, of_site) == group_tables(together, of_site) == {}
    # B and C share theirs: that is a set of its own, or says more than their sites.
    shared = cases.assign(guideline=cases["site"].map({"A": "one", "B": "two", "C": "two"}))
    assert group_tables(rows, shared) == {}
    assert list(group_tables(together, shared)) == ["guideline"]
    assert summarise_groups(rows, shared)["test/site-C/guideline-two/dice"] == pytest.approx(0.8)


def test_groups_need_their_column_and_every_case(cases: pd.DataFrame) -> None:
    with pytest.raises(InputError, match="no column 'vendor'.*guideline"):
        grouped(frame(ROWS), cases, column="vendor")
    with pytest.raises(InputError, match=r"1 cases have rows but no line .*'b2'"):
        grouped(frame(ROWS), cases[cases["case"] != "b2"], column="guideline")
    assert group_tables(frame(ROWS), cases.drop(columns=["guideline", "rater"])) == {}
    assert summarise_groups(frame([]), cases[:0]) == {}
