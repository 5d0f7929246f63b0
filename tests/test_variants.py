"""Variants of a study are compared like runs, on the means over their seeds and folds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from row_inputs import DICE, HD95, MEASURES, row

from segshift.errors import InputError
from segshift.results import Row, compare, pair, variant_table
from segshift.results.rows import COLUMNS
from segshift.results.variants import VARIANTS

DICES = np.random.default_rng(0).uniform(0.6, 0.9, 8)


def of_job(variant: str, seed: int, *, gain: float, train: str = '["A"]') -> pd.DataFrame:
    """Eight patients of two sites with two cases each, one of them under noise as well."""
    job = f"{train}-{variant}-{seed}"
    rows: list[Row] = []
    for site, set_ in (("A", "in_domain"), ("B", "site-B")):
        for p, dice in enumerate(DICES):
            for c in range(2):
                value = float(dice + gain + 0.01 * seed)
                one = row(job, set_, f"{site}{p}-{c}", site, value, patient=f"{site}{p}")
                noisy = replace(one, corruption="noise", severity=3, value=0.5)
                far = replace(one, metric="hd95_mm", value=10 * (1 - value))
                bias = replace(one, metric="volume_difference_relative", value=0.1)
                rows += [one, far, bias, *([noisy] if c else [])]
    table = pd.DataFrame([[getattr(r, c) for c in COLUMNS] for r in rows], columns=list(COLUMNS))
    line = {"part": "p", "variant": variant, "train": train, "seed": str(seed), "fold": "0"}
    return table.assign(**line)


def study() -> pd.DataFrame:
    gains = {"loss=dice": 0.0, "loss=focal": 0.02, "loss=topk": 0.04}
    jobs = [of_job(name, seed, gain=gain) for name, gain in gains.items() for seed in (0, 1)]
    return pd.concat([*jobs, of_job("loss=dice", 0, gain=0.0, train='["B"]')], ignore_index=True)


def test_pairs_of_variants_by_hand() -> None:
    table = variant_table(study(), MEASURES)
    assert list(table.columns) == VARIANTS
    assert len(table) == 3 * 2 * 2  # pairs, sets, metrics with a good end; one training has one
    dice = table[(table["metric"] == "dice") & (table["set"] == "site-B")]
    lines = dice.set_index(["baseline", "variant"])
    assert lines["difference"].to_dict() == pytest.approx(
        {
            ("loss=dice", "loss=focal"): 0.02,
            ("loss=dice", "loss=topk"): 0.04,
            ("loss=focal", "loss=topk"): 0.02,
        }
    )
    assert lines["p"].tolist() == [2 / 2**8] * 3
    assert lines["p_holm"].tolist() == pytest.approx([6 * 2 / 2**8] * 3)  # of both sets
    assert (lines["n"] == 16).all()
    assert (lines["patients"] == 8).all()
    assert lines["jobs"].iloc[0].count(";") == 3


def test_a_line_is_that_of_comparing_the_means_over_seeds() -> None:
    rows = study()
    plain = rows[
        (rows["set"] == "in_domain") & (rows["corruption"] == "") & (rows["train"] != '["B"]')
    ]
    keys = [
        "variant",
        "set",
        "corruption",
        "severity",
        "case",
        "patient",
        "site",
        "structure",
        "metric",
    ]
    means = plain.groupby(keys)["value"].mean().reset_index()
    two = {name: own for name, own in means.groupby("variant") if name != "loss=topk"}
    expected = compare(pair(two, metric="hd95_mm"), measure=HD95).differences.iloc[0]
    table = variant_table(rows, MEASURES)
    here = table.query("set == 'in_domain' and metric == 'hd95_mm' and variant == 'loss=focal'")
    for number in ("difference", "low", "high", "p", "n", "patients"):
        assert here.iloc[0][number] == pytest.approx(expected[number])


def test_a_study_without_rows_or_without_variants_has_no_line() -> None:
    rows = study()
    for some in (rows.iloc[:0], rows[rows["variant"] == "loss=dice"]):
        table = variant_table(some, MEASURES)
        assert table.empty
        assert list(table.columns) == VARIANTS


def test_a_metric_that_nothing_is_known_of_is_refused() -> None:
    with pytest.raises(InputError, match="hd95_mm, volume_difference_relative"):
        variant_table(study(), {"dice": DICE})
