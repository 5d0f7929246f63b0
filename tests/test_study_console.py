"""The tables of a study in a terminal of 80 columns: nothing is cut, nothing says too much."""

import io
import re

import pytest
from rich.console import Console
from study_inputs import fill_study

from segshift.report.study_console import print_study, short_variants
from segshift.results import read_study, write_study_tables
from segshift.study.console import oracle_line, print_jobs
from segshift.study.folder import State
from segshift.study.jobs import Job

VARIANTS = ("model=unet2d_residual", "model=unet25d_residual", "model=mednext_small")
SITES = ("hospital-north", "hospital-south")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of two patients at each site."""
    folder = fill_study(
        tmp_path_factory.mktemp("study"),
        sites=SITES, variants=VARIANTS, seeds=("0",), patients=2, noises=(0,), pictures=False,
    )  # fmt: skip
    write_study_tables(folder, read_study(folder))
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
    assert not re.findall(r"\[[-\d., ]+\]", gaps)  # of two patients nothing has an interval
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


def test_jobs_are_listed_by_their_sites_whatever_these_are_called() -> None:
    jobs = [
        Job(
            name=str(number), part="p", train=train, variant="", seed="0", fold="0", steps=1,
            passes=1, oracle=(1, 4) if len(train) == 1 else (0, 0), identity=str(number),
            overrides=(), choices={}, config={"split": {"folds": 4}},
        )
        for number, train in enumerate([("A+B 3",), ("A", "B"), ("[red]C",)])
    ]  # fmt: skip
    text = io.StringIO()
    states = {job.name: State("done", 60.0) for job in jobs}
    print_jobs(jobs, states, console=Console(file=text, width=80))
    listed = [re.split(r"\s{2,}", line.strip()) for line in text.getvalue().splitlines()]
    assert [line[1] for line in listed if line[0] == "p"] == ["A+B 3", "A+B", "[red]C"]
    told = oracle_line(jobs)
    assert told.startswith("oracle:    judges 1 of 4 patients at A+B 3, 1 of 4 patients at [red]C;")
