"""Do images differ, and do the patients? Two of the three kinds of shift, by measurements."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.attribution.evidence import Evidence, Sides
from segshift.attribution.permutation import (
    family_p,
    kernel,
    mmd,
    rank_differences,
    share_at_least,
    smallest_share,
)
from segshift.units import NO_PHYSICAL_SIZE, Units

KNOWN = 0.9  # of the patients; a number that fewer have is left out
TOLD = 3  # names in a detail
WHO = ("reference", "predicted")


def covariate(sides: Sides) -> Evidence:
    """Are images acquired differently? The MMD of image statistics and of the first filters.

    Both are functions of the image alone, so no annotation habit can move them. Each has a kernel;
    the two are averaged into one.
    """
    blocks = [_known(sides.patients(start)) for start in ("image/", "network/")]
    blocks = [block for block in blocks if not block.empty]
    if not blocks:
        return Evidence(
            kind="covariate", statistic=np.nan, p=np.nan, smallest_p=1.0, detail="nothing measured"
        )
    members = sides.choices()
    similar = np.mean([kernel(block.to_numpy(dtype=float)) for block in blocks], axis=0)
    statistics = mmd(similar, members)
    return Evidence(
        kind="covariate",
        statistic=float(statistics[0]),
        p=share_at_least(statistics),
        smallest_p=smallest_share(statistics),
        detail=f"furthest apart: {_furthest(blocks[0], members[:1])}",
    )


def prevalence(sides: Sides) -> Evidence:
    """Do structures differ in size or number, in the references and in the predictions?

    Both must say so, of the same quantity and in the same direction, so p is the larger of the two
    (an intersection-union test, Berger 1982): neither an annotation habit, which moves references
    alone, nor a network that fails, which moves predictions alone, passes for other patients.
    Sizes are compared where all cases have a physical one; elsewhere numbers of components alone,
    and as long as they do not differ it is unknown whether the patients do.
    """
    members, units = sides.choices(), sides.units
    sized = len(units) == 1 and units[0].known
    found = []
    for who in WHO:
        kinds = [*([units[0].size_name] if sized else []), "count"]
        tables = [sides.patients(f"{what}/{who}/") for what in kinds]
        quantities = pd.concat(tables, axis=1)
        differences = rank_differences(quantities.to_numpy(dtype=float), members)
        found.append((quantities, differences[0], *family_p(differences)))
    (references, of_reference, p_reference, least), (_, of_prediction, p_prediction, other) = found
    alike = np.sign(of_reference) == np.sign(of_prediction)
    p = np.where(alike, np.maximum(p_reference, p_prediction), 1.0)
    best = int(np.lexsort((-np.abs(of_reference), p))[0])
    return Evidence(
        kind="prevalence",
        statistic=float(of_reference[best]),
        p=float(p[best]),
        smallest_p=max(least, other),
        complete=sized,
        detail=_medians(references.iloc[:, best], at_home=sides.sizes[0], units=units)
        + ("" if sized else f"; sizes: {_why(units)}"),
    )


def _why(units: Sequence[Units]) -> str:
    """Why sizes are not compared."""
    if all(each.known for each in units):
        return f"unknown: measured in {' and '.join(each.size for each in units)}"
    return NO_PHYSICAL_SIZE


def _known(numbers: pd.DataFrame) -> pd.DataFrame:
    """Without those that many patients lack, whatever their site."""
    return numbers.loc[:, numbers.notna().mean() >= KNOWN]


def _furthest(numbers: pd.DataFrame, real: NDArray[np.bool_]) -> str:
    """The names of the numbers that differ most, and in which direction."""
    differences = rank_differences(numbers.to_numpy(dtype=float), real)[0]
    order = np.argsort(-np.abs(differences), kind="stable")[:TOLD]
    names = [
        f"{numbers.columns[i].split('/')[-1]} {'higher' if differences[i] > 0 else 'lower'}"
        for i in order
    ]
    return ", ".join(names)


def _medians(values: "pd.Series[float]", *, at_home: int, units: Sequence[Units]) -> str:
    what, _, structure = str(values.name).split("/", 2)
    measured = next((each for each in units if each.size_name == what), None)
    unit = f" {measured.size}" if measured else ""
    home, away = values.iloc[:at_home].median(), values.iloc[at_home:].median()
    name = f"{measured.sized if measured else 'number'} of {structure}"
    return f"{name}: median {_plain(away)}{unit} against {_plain(home)}{unit} in in_domain"


def _plain(value: float) -> str:
    """Three digits or all before the point, never an exponent of ten: 1051, 28.4."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
