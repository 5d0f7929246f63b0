"""How often the chosen post-processing harms, and how often it is there when it would help.

`OMP_NUM_THREADS=1 python bench/postprocessing.py [--draws=400] [--patients 8 12 16 32] [--seed=0]`
prints a table. In every draw the references of training, the validation cases at home and the test
cases away are drawn anew; the rules are chosen at home and done to the cases away.

A case is up to three balls and a prediction that finds each with a probability of 0.8, is too
large in half of the cases, lacks a voxel in twenty and has false blobs of 0.8 ml (median). Columns:
the share of draws in which the mean score of the test cases falls by more than 0.01 (through all
rules, or through removals alone, whose harm a gain by filling could hide), the worst fall; the
share in which false blobs take at least 0.02 from the mean score both at home and away; how often
components are removed, of all draws and of these costly ones. The score is Dice where the reference
has something, elsewhere 1 if nothing is predicted, else 0.
"""

import argparse
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from segshift.postprocessing import (
    Choice,
    JudgedCase,
    Rule,
    chosen_rules,
    effects,
    merged,
    postprocessed,
    reference_components,
)
from segshift.seeds import generator

SHAPE, SPACING_MM = (16, 64, 64), (4.0, 2.0, 2.0)
HARM, COST = 0.01, 0.02  # of the mean score
TRAINED = 4  # training patients for each of validation
TESTED = 25  # patients away
APART_MM = 10.0  # a distant blob from every other voxel that is predicted or true
GRID_MM = [np.arange(n) * s for n, s in zip(SHAPE, SPACING_MM, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """The patients of a hospital: how many have the structure, of which size, with which blobs."""

    name: str
    median_ml: float
    spread: float = 0.8  # standard deviation of the log volume
    most: int = 3  # balls
    absent: float = 0.25
    found: float = 0.8  # the probability of each
    blobs: float = 1.0  # false ones, the mean of a Poisson distribution
    distant: bool = False


@dataclass(frozen=True, slots=True)
class SimulatedCase:
    """Masks (D, H, W); `clean` is the prediction without its false blobs."""

    reference: np.ndarray
    predicted: np.ndarray
    clean: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What came of one choice: the change of the mean test score, the cost of blobs on each side.

    `worst` is the smaller of the changes through all rules and through removals alone.
    """

    worst: float
    cost: tuple[float, float]
    rules: tuple[str, ...]

    @property
    def harmed(self) -> bool:
        """Whether the test cases are worse for it."""
        return self.worst < -HARM

    @property
    def costly(self) -> bool:
        """Whether blobs cost enough at both hospitals to be worth removing."""
        return min(self.cost) >= COST

    @property
    def removes(self) -> bool:
        """Whether components are removed."""
        return any(rule != "fill_holes" for rule in self.rules)


SMALL = Population(name="small lesions", median_ml=1.0)
LARGE = Population(name="large lesions", median_ml=20.0)
DISTANT = Population(name="large lesions, distant blobs", median_ml=20.0, distant=True)
ORGAN = Population(
    name="organ, distant blobs",
    median_ml=20.0, spread=0.3, most=1, absent=0.0, found=1.0, distant=True,
)  # fmt: skip
ORGAN_2 = replace(ORGAN, name="organ, twice the distant blobs", blobs=2.0)
ALIKE = (SMALL, LARGE, DISTANT, ORGAN, ORGAN_2)
PAIRS = (*((each, each) for each in ALIKE), (LARGE, SMALL))


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--patients", type=int, nargs="+", default=[8, 12, 16, 32])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| home | away | patients | harmed | worst | costly | removes | of costly | chosen |")
    print("|---|---|---|---|---|---|---|---|---|")
    for home, away in PAIRS:
        for patients in options.patients:
            draws = [
                drawn(home, away, patients=patients, seed=options.seed, number=number)
                for number in range(options.draws)
            ]
            print(f"| {home.name} | {away.name} | {patients} | {line(draws)} |", flush=True)


def line(draws: list[Draw]) -> str:
    """Cells of the table."""
    costly = [draw for draw in draws if draw.costly]
    names = Counter(" + ".join(draw.rules) or "none" for draw in draws).most_common(4)
    cells = (
        share([draw.harmed for draw in draws]),
        f"{min(draw.worst for draw in draws):+.3f}",
        share([draw.costly for draw in draws]),
        share([draw.removes for draw in draws]),
        share([draw.removes for draw in costly]),
        ", ".join(f"{name} {count}" for name, count in names),
    )
    return " | ".join(cells)


def share(those: list[bool]) -> str:
    """As a percentage."""
    return f"{100 * sum(those) / len(those):.1f} %" if those else "-"


def drawn(home: Population, away: Population, *, patients: int, seed: int, number: int) -> Draw:
    """One training: its references, its validation cases, and the test cases away."""
    random = generator(seed, "postprocessing", home.name, away.name, patients, number)
    training = [references(home, random) for _ in range(TRAINED * patients)]
    validation = [simulated(home, random) for _ in range(patients)]
    tested = [simulated(away, random) for _ in range(TESTED)]
    rules = chosen(training, validation).rules["it"]
    removals = tuple(rule for rule in rules if rule.rule != "fill_holes")
    return Draw(
        worst=min(gain(rules, tested), gain(removals, tested)),
        cost=(cost(validation), cost(tested)),
        rules=tuple(str(rule) for rule in rules),
    )


def gain(rules: tuple[Rule, ...], cases: list[SimulatedCase]) -> float:
    """What the rules add to the mean score."""
    gains = []
    for case in cases if rules else ():
        labels = case.predicted.astype(np.uint8)
        after = postprocessed(labels, {"it": rules}, SPACING_MM, structures=["it"], exclusive=True)
        gains.append(score(after > 0, case.reference) - score(case.predicted, case.reference))
    return float(np.mean(gains)) if gains else 0.0


def chosen(training: list[np.ndarray], validation: list[SimulatedCase]) -> Choice:
    """By the functions that a run calls."""
    known = [*training, *(case.reference for case in validation)]
    components = merged(reference_components(mask, SPACING_MM) for mask in known)
    everywhere = np.ones(SHAPE, dtype=bool)
    judged = [
        JudgedCase(
            patient=str(number), labels=case.predicted.astype(np.uint8),
            references=[case.reference], counted=everywhere, spacing_mm=SPACING_MM,
        )
        for number, case in enumerate(validation)
    ]  # fmt: skip
    tables = [effects(case, exclusive=True) for case in judged]
    return chosen_rules(tables, structures=["it"], references=[components])


def score(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Dice where the reference has something, elsewhere 1 if nothing is predicted, else 0."""
    if not reference.any():
        return float(not predicted.any())
    return float(2 * (predicted & reference).sum() / (predicted.sum() + reference.sum()))


def cost(cases: list[SimulatedCase]) -> float:
    """What the false blobs take from the mean score."""
    lost = [score(c.clean, c.reference) - score(c.predicted, c.reference) for c in cases]
    return float(np.mean(lost))


def references(population: Population, random: np.random.Generator) -> np.ndarray:
    """One patient's true mask (D, H, W)."""
    mask = np.zeros(SHAPE, dtype=bool)
    if random.random() >= population.absent:
        for _ in range(random.integers(1, population.most + 1)):
            volume_ml = np.exp(random.normal(np.log(population.median_ml), population.spread))
            mask |= ball(random, volume_ml)
    return mask


def simulated(population: Population, random: np.random.Generator) -> SimulatedCase:
    """One patient with a prediction."""
    reference = references(population, random)
    predicted = ndimage.binary_dilation(reference) if random.random() < 0.5 else reference.copy()
    predicted &= random.random(SHAPE) > 0.05
    labelled, count = ndimage.label(predicted, np.ones((3, 3, 3)))
    for component in range(1, count + 1):
        if random.random() >= population.found:
            predicted[labelled == component] = False
    clean, known = predicted.copy(), predicted | reference
    for _ in range(random.poisson(population.blobs)):
        volume_ml = np.exp(random.normal(np.log(0.8), 0.7))
        blob = ball(random, volume_ml, away_from=known if population.distant else None)
        predicted |= blob & ~reference
    return SimulatedCase(reference, predicted, clean)


def ball(
    random: np.random.Generator, volume_ml: float, *, away_from: np.ndarray | None = None
) -> np.ndarray:
    """A ball (D, H, W) at a random place; with `away_from` at least APART_MM from that mask."""
    radius_mm = (volume_ml * 1000 * 3 / 4 / np.pi) ** (1 / 3)
    while True:
        centre = [
            random.uniform(0.15, 0.85) * n * s for n, s in zip(SHAPE, SPACING_MM, strict=True)
        ]
        squares = [(axis - middle) ** 2 for axis, middle in zip(GRID_MM, centre, strict=True)]
        far2 = squares[0][:, None, None] + squares[1][:, None] + squares[2]
        if away_from is None or not (away_from & (far2 <= (radius_mm + APART_MM) ** 2)).any():
            return far2 <= radius_mm**2


if __name__ == "__main__":
    main()
