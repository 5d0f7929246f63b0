"""How many turned labels `segshift cohort check` notices, and how many good ones it accuses.

`python bench/orientation.py [hippocampus folder]` simulates the default hospitals with the seeds
1 to 10 in a temporary folder. In each cohort every label, one at a time, is mirrored along each
axis and transposed in the slice (stretched to the image's shape). Of a Decathlon folder, the cases
from the hundredth on are one site, and 20 of them, drawn at random, are turned. The bounds of
`segshift.audit.orientation` were chosen on the seed 0 and on public sets, this folder's among them.
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from segshift.audit.orientation import Poses, poses, turned_cases
from segshift.audit.pooling import pooled
from segshift.build import conf_folder
from segshift.cohort import Cohort
from segshift.cohort.checks import load_case
from segshift.cohort.importers import import_msd
from segshift.cohort.phantom import simulated_cohort
from segshift.seeds import generator

SEEDS = range(1, 11)
FIRST_CASE, TURNED_CASES = 100, 20
TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "left-right": lambda label: np.flip(label, 2),
    "front-back": lambda label: np.flip(label, 1),
    "up-down": lambda label: np.flip(label, 0),
    "transposed": lambda label: label.swapaxes(1, 2),
}


def main() -> None:
    """Print a line for each kind of cohort."""
    options = OmegaConf.load(Path(str(conf_folder())) / "data" / "phantom.yaml").cohort
    grid = OmegaConf.to_container(options)
    assert isinstance(grid, dict)
    counts = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            cohort = simulated_cohort(
                folder,
                seed=seed,
                sites=grid["sites"],
                shape=grid["shape"],
                spacing_mm=grid["spacing_mm"],
            )
            counts.append(_counted(cohort, range(len(cohort.cases))))
    _print(f"simulated, seeds {SEEDS[0]} to {SEEDS[-1]}", counts)
    if len(sys.argv) > 1:
        cases, channels, structures = import_msd(sys.argv[1])
        cohort = Cohort("held out", channels, structures, cases[FIRST_CASE:])
        random = generator(0, "orientation", "held out")
        chosen = random.choice(len(cohort.cases), TURNED_CASES, replace=False).tolist()
        _print(f"{Path(sys.argv[1]).name}, cases from {FIRST_CASE}", [_counted(cohort, chosen)])


def _counted(cohort: Cohort, chosen: Sequence[int]) -> dict[str, np.ndarray]:
    """(noticed, out of) for every turn of the chosen cases; (accused, out of) for `as they are`."""
    sites, known, turned = [], [], {}
    count = len(cohort.structures)
    for index, case in enumerate(cohort.cases):
        volume = load_case(case)
        small = pooled(volume.image[0], (32, 64, 64))
        label = np.where(volume.label <= count, volume.label, 0)
        sites.append(case.site)
        known.append(poses(small, label, count))
        if index in chosen:
            turned[index] = {name: poses(small, turn(label), count) for name, turn in TURNS.items()}
    found = {"as they are": np.array([len(turned_cases(sites, known)), len(known)])}
    for name in TURNS:
        hits = sum(_noticed(sites, known, index, own[name]) for index, own in turned.items())
        found[name] = np.array([hits, len(turned)])
    return found


def _noticed(sites: Sequence[str], known: Sequence[Poses], index: int, turned: Poses) -> bool:
    return index in turned_cases(sites, [*known[:index], turned, *known[index + 1 :]])


def _print(what: str, counts: Sequence[dict[str, np.ndarray]]) -> None:
    total = {name: sum(one[name] for one in counts) for name in counts[0]}
    text = ", ".join(f"{name} {hits} of {size}" for name, (hits, size) in total.items())
    print(f"{what}: {text}", flush=True)


if __name__ == "__main__":
    main()
