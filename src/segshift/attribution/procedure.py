"""`segshift attribute RUN`: measure a run's test cases once, then say which shift it is."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from segshift import build, environment
from segshift.attribution.answers import attributed
from segshift.cohort import Case
from segshift.errors import InputError
from segshift.postprocessing import read_rules
from segshift.results import IN_DOMAIN

MEASUREMENTS, ANSWERS = "measurements.csv", "attribution.csv"


def attribute(folder: str | Path, *, seed: int = 0) -> pd.DataFrame:
    """Write measurements.csv and attribution.csv of a run into its folder; return the latter.

    Predicts the cases of in_domain and of the other evaluation sets once more, without shifts.
    Raises InputError for what is no run's folder, and for a run without in_domain or another set.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name that of a run")
    checkpoint = build.checkpoint_file(folder)

    import torch

    from segshift.attribution.measuring import measure

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = build.load(checkpoint, precision=environment.precision("auto", "auto"))
    run.module.rules = read_rules(checkpoint)
    cohort = build.with_structures(build.cohort_of(run.config), run.plan.structures)
    split = build.split_of(run.config, cohort)
    _check(split.tests, folder)
    environment.keep_freed_memory()
    table = measure(run, split.tests, store=Path(run.config.store), device=device)
    sites = sorted({case.site for case in split.train})
    answers = attributed(table, train="+".join(sites), seed=seed)
    for name, content in ((MEASUREMENTS, table), (ANSWERS, answers)):
        draft = folder / f".{name}.{os.getpid()}"
        content.to_csv(draft, index=False)
        draft.replace(folder / name)
    return answers


def _check(tests: Mapping[str, Sequence[Case]], folder: Path) -> None:
    if IN_DOMAIN not in tests or len(tests) < 2:
        raise InputError(
            f"{folder} was tested on {', '.join(tests)}; a shift is told by {IN_DOMAIN} and the "
            "set of another site: take a run of split=leave_site_out or split=single_source"
        )
