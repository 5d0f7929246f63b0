"""The tables of a study in a terminal of 80 columns: nothing is cut, nothing says too much."""

import io
import re

import pytest
from rich.console import Console
from study_inputs import fill_study

from segshift.report.study_console import print_study, short_variants
from segshift.results import gap_table, read_study, train_test_matrix

VARIANTS = ("model=unet2d_residual", "model=unet25d_residual", "model=mednext_small")
SITES = ("hospital-north", "hospital-south")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of two patients at each site."""
    folder = fill_study(
        tmp_path_factory.mktemp("study"),
        sites=SITES, variants=VARIANTS, seeds=("0",), patients=2, noises=(0,), pictures=False,
    )  # fmt: skip
    rows = read_study(folder).rows
    dice = rows[rows["metric"] == "dice"]
    train_test_matrix(dice).to_csv(folder / "matrix.csv", index=False)
    gap_table(dice).to_csv(folder / "gaps.csv", index=False)
    text = io.StringIO()
    print_study(folder, console=Console(file=text, width=80))
    return text.getvalue()


def test_no_name_is_cut_at_80_columns(said: str) -> None:
    assert max(map(len, said.splitlines())) <= 80
    gaps = said.split("worse in dice than at home")[1].split("Of 6 pairs")[0]
    assert "trained at -> tested at" in gaps
    assert "model" in gaps.splitlines()[3].split()
    for variant in VARIANTS:
        name = variant.removeprefix("model=")
        assert len(re.findall(rf"^ {name} ", gaps, flags=re.MULTILINE)) == 2, variant
    for here, there in (SITES, SITES[::-1]):
        assert len(re.findall(rf"^ {here} -> {there} ", gaps, flags=re.MULTILINE)) == 3


def test_a_shift_of_two_patients_is_an_estimate(said: str) -> None:
    gaps = said.split("worse in dice than at home")[1].split("Of 6 pairs")[0]
    assert len(re.findall(r"\[[-\d., ]+\]", gaps)) == 6  # of the gaps alone
    sentences = " ".join(said.split("Of 6 pairs")[1].split())
    told = "2 patients are too few to tell what the shift costs (estimate 0.100, p 0.5)."
    assert sentences.count(told) == 6
    assert "because of the shift" not in sentences


@pytest.mark.parametrize(
    ("variants", "varied", "short"),
    [
        (["model=a", "model=b"], "model", ["a", "b"]),
        (["model=a loss.fp=0.3", "model=b loss.fp=1=2"], "model loss.fp", ["a 0.3", "b 1=2"]),
        (["model=a", "loss=a"], "variant", ["model=a", "loss=a"]),
        (["model=<i>, b", "model=c"], "variant", ["model=<i>, b", "model=c"]),
        (["~augment", "~shift"], "variant", ["~augment", "~shift"]),
        ([""], "", [""]),
    ],
)
def test_variants_are_named_by_what_differs(
    variants: list[str], varied: str, short: list[str]
) -> None:
    assert short_variants(variants) == (varied, dict(zip(variants, short, strict=True)))
