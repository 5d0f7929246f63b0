"""`segshift attribute RUN`: measure a run's test cases once, then say which shift it is."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from segshift import build, environment
from segshift.attribution.answers import attributed
from segshift.cohort import Case
from segshift.errors import InputError
from segshift.results import read_cases, trained_at
from segshift.results.drafts import write_whole
from segshift.splits import IN_DOMAIN, Split, from_file

MEASUREMENTS, ANSWERS = "measurements.csv", "attribution.csv"


def has_target(folder: Path) -> bool:
    """Whether a run was tested on in_domain and on a set of other patients."""
    cases = read_cases(folder / "cases.csv")
    patients = {name: set(own) for name, own in cases.groupby("set")["patient"]}
    home = patients.pop(IN_DOMAIN, set())
    return bool(home) and any(home.isdisjoint(own) for own in patients.values())


def attribute(
    folder: str | Path, *, data: Mapping[str, Any] | None = None, seed: int = 0
) -> pd.DataFrame:
    """Write measurements.csv and attribution.csv of a run into its folder; return the latter.

    Predicts the cases of in_domain and of the other sets in its `split.json` once more, without
    shifts and without post-processing, as gaps are; sets of in_domain's own patients are left out.
    `data` is the config of where the cases lie now, if not where the run read them. Raises
    InputError for what is no run's folder, for a case that is gone or whose patient was trained on,
    and without a set to compare.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name that of a run")
    if (folder / "jobs.csv").is_file():
        raise InputError(
            f"{folder} is a study; name one of its runs, {folder / 'jobs'}/..., or ask of all of "
            "them by study.attribute=true in the study's command"
        )
    checkpoint = build.checkpoint_file(folder)
    sides = folder / "split.json"
    if not sides.is_file():
        raise InputError(f"{folder} has no {sides.name}: who was tested is not known")

    import torch

    from segshift.attribution.measuring import measure

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run = build.load(checkpoint, precision=environment.precision("auto", "auto"))
    config = run.config.copy()
    if data is not None:
        config.data = data
    cohort = build.cohort_of(config).with_structures(run.plan.structures)
    # The run's own sides: a split of today's cohort may judge patients that it has learned from.
    split = from_file(cohort, path=str(sides), seed=0, val_fraction=0.5)
    tests = _compared(split, folder, seen=run.patients)
    environment.keep_freed_memory()
    table = measure(run, tests, store=Path(run.config.store), device=device)
    train = trained_at({case.site for case in split.train})
    answers = attributed(table, train=train, seed=seed)
    for name, content in ((MEASUREMENTS, table), (ANSWERS, answers)):
        write_whole(folder / name, content.to_csv(index=False))
    return answers


def _compared(split: Split, folder: Path, *, seen: Collection[str]) -> dict[str, tuple[Case, ...]]:
    """in_domain and the sets of other patients: the tests take two samples for independent."""
    patients = {name: {case.patient for case in cases} for name, cases in split.tests.items()}
    if learned := sorted(set().union(*patients.values()) & set(seen)):
        raise InputError(
            f"{folder} was trained or chosen on the patient(s) {learned[:5]}, whom its split.json "
            "and the manifest of today have among those to judge; correct the manifest"
        )
    home = patients.get(IN_DOMAIN, set())
    same = [name for name, who in patients.items() if name != IN_DOMAIN and who & home]
    tests = {name: cases for name, cases in split.tests.items() if name not in same}
    why = f"{', '.join(same)} judge(s) patients of {IN_DOMAIN}, and the tests take two groups"
    if IN_DOMAIN not in tests or len(tests) < 2:
        raise InputError(
            f"{folder} was tested on {', '.join(split.tests)}; a shift is told by {IN_DOMAIN} and "
            "a set of other patients: take a run of split=leave_site_out or split=single_source"
            + (f" ({why})" if same else "")
        )
    if same:
        print(f"left out: {why}")
    return tests
