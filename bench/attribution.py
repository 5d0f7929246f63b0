"""Which shift is it, where the truth is known: ten draws of the simulated hospitals, 40 answers.

`python bench/attribution.py [run=RUN] [seeds=0-9] [patients=14] [redraws=0] [folder=FOLDER]` trains
one network at alpha (unless a run is given), draws every seed's patients anew at alpha, beta,
gamma, delta and at a second alpha, and asks `segshift.attribution` for the kind of each site's
shift against the first alpha. The bounds in `segshift.attribution` were chosen on the seeds 100 to
103. Prints a line a pair, then Markdown: how often the kinds that are shown are the true ones. With
`redraws`, also of so many draws of as many patients from those of all seeds, the two alphas
together.
"""

import contextlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from omegaconf import OmegaConf

from segshift import build, environment
from segshift.attribution import attributed
from segshift.attribution.measuring import measure
from segshift.cohort import Case
from segshift.cohort.phantom import simulated_cohort
from segshift.seeds import generator

ROOT = Path(__file__).parents[1]
DEFAULTS = {"run": "", "seeds": "0-9", "patients": "14", "redraws": "0", "folder": ""}
TRUTH: dict[str, frozenset[str]] = {
    "beta": frozenset({"covariate"}),
    "gamma": frozenset({"prevalence"}),
    "delta": frozenset({"concept"}),
    "alpha2": frozenset(),
}
SEED = 1001  # of the patients that the network learns from
TRAINING = (
    "model=unet2d", "model.filters=[12,24,48,96,128]", "plan.batch=12", "trainer.epochs=12",
    f"data.cohort.seed={SEED}", "data.cohort.sites.alpha.patients=40", "logger=none",
    "split.val_fraction=0.1",  # 4 of 40, as in the recorded tables
)  # fmt: skip


def main(options: dict[str, str]) -> None:
    """Train, draw, measure, answer, count."""
    start, patients = time.perf_counter(), int(options["patients"])
    first, _, last = options["seeds"].partition("-")
    tables, answers = [], []
    with contextlib.ExitStack() as stack:
        folder = Path(options["folder"] or stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoint = options["run"] or _trained(folder)
        run = build.load(checkpoint, precision=environment.precision("auto", "auto"))
        for seed in range(int(first), int(last or first) + 1):
            sets = _drawn(seed, folder=folder, patients=patients)
            table = measure(run, sets, store=folder / "store", device=torch.device("cpu"))
            answers.append(attributed(table, train="alpha"))
            tables.append(table.assign(patient=f"{seed} " + table["patient"]))
            _print_lines(f"seed {seed}", answers[-1])
    _print_counts("seeds", answers)
    redraws = range(int(options["redraws"]))
    again = [_redrawn(pd.concat(tables), patients=patients, number=n) for n in redraws]
    if again:
        _print_counts("redraws", [attributed(table, train="alpha") for table in again])
    print(f"\n{time.perf_counter() - start:.0f} s")


def _print_lines(what: str, answers: pd.DataFrame) -> None:
    for site, own in answers.groupby("site", sort=False):
        lines = own.to_dict("records")
        said = (f"{x['kind']} {x['answer']} (p {x['p_corrected']:.2g})" for x in lines)
        print(f"{what} {site:<7} {', '.join(said)}", flush=True)


def _print_counts(what: str, answers: Sequence[pd.DataFrame]) -> None:
    print(f"\n| site | true shift | right, of {len(answers)} {what} | wrong |\n|---|---|---|---|")
    for site, truth in TRUTH.items():
        own = [table[table["site"] == site] for table in answers]
        shown = [frozenset(lines.loc[lines["answer"] == "yes", "kind"]) for lines in own]
        wrong = Counter(", ".join(sorted(kinds)) or "none" for kinds in shown if kinds != truth)
        told = "; ".join(f"{kinds}: {times}" for kinds, times in wrong.items())
        print(f"| {site} | {', '.join(truth) or 'none'} | {shown.count(truth)} | {told} |")


def _redrawn(table: pd.DataFrame, *, patients: int, number: int) -> pd.DataFrame:
    """Patients of all seeds, each in one set at most; the alphas are of one kind."""
    random = generator(SEED, "redraw", number)
    site = table["site"].replace("alpha2", "alpha")
    parts = []
    for name, of_site in table.groupby(site):
        order = random.permutation(len(of_site))
        names = ("in_domain", "site-alpha2") if name == "alpha" else (f"site-{name}",)
        for place, set_ in enumerate(names):
            chosen = order[place * patients : (place + 1) * patients]
            parts.append(of_site.iloc[chosen].assign(set=set_))
    return pd.concat(parts)


def _drawn(seed: int, *, folder: Path, patients: int) -> dict[str, tuple[Case, ...]]:
    """The cases of in_domain and of each site, of patients that no other seed has."""
    grid: Any = OmegaConf.to_container(
        OmegaConf.load(build.conf_folder() / "data" / "phantom.yaml").cohort
    )
    sites = {name: {**site, "patients": patients} for name, site in grid["sites"].items()}
    cohort = simulated_cohort(
        folder / "phantom",
        seed=seed,
        sites={**sites, "alpha2": sites["alpha"]},
        shape=grid["shape"],
        spacing_mm=grid["spacing_mm"],
    )
    names = {"alpha": "in_domain", **{site: f"site-{site}" for site in TRUTH}}
    return {
        name: tuple(case for case in cohort.cases if case.site == site)
        for site, name in names.items()
    }


def _trained(folder: Path) -> str:
    run = folder / "run"
    few = [f"data.cohort.sites.{site}.patients=1" for site in ("beta", "gamma", "delta")]
    where = [f"data.cohort.folder={folder / 'phantom'}", f"store={folder / 'store'}"]
    subprocess.run(
        [sys.executable, ROOT / "train.py", *TRAINING, *few, *where, f"hydra.run.dir={run}"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return str(run)


if __name__ == "__main__":
    main(DEFAULTS | dict(each.split("=", 1) for each in sys.argv[1:]))
