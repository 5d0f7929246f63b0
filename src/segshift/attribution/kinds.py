"""Do images differ, and do the patients? Two of the three kinds of shift, by measurements."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.attribution.evidence import Evidence, Sides
from segshift.attribution.pairs import Owners, kernel, larger, weights
from segshift.attribution.permutation import Array, family_p, of_choices, p_values
from segshift.attribution.studentised import brunner_munzel, mmd
from segshift.results.significance import ROUNDING
from segshift.units import NO_PHYSICAL_SIZE, Units

KNOWN = 0.9  # of the patients; a number that fewer have is left out
TOLD = 3  # names in a detail
WHO = ("reference", "predicted")


def covariate(sides: Sides) -> Evidence:
    """Are images acquired differently? The MMD of image statistics and of the first filters.

    Both are functions of the image alone, so no annotation habit can move them. Each has a kernel;
    the two are averaged into one.
    """
    owners = sides.owners
    blocks = [_known(sides.cases(start), owners) for start in ("image/", "network/")]
    blocks = [block for block in blocks if not block.empty]
    if not blocks:
        return Evidence(
            kind="covariate", statistic=np.nan, p=np.nan, smallest_p=1.0, detail="nothing measured"
        )
    similar = np.mean([kernel(block.to_numpy(float), owners) for block in blocks], axis=0)
    statistics = of_choices(partial(mmd, similar), sides.choices(*sides.sizes))
    p = p_values(statistics)
    return Evidence(
        kind="covariate",
        statistic=float(statistics[0]),
        p=float(p[0]),
        smallest_p=float(p.min()),
        detail=f"furthest apart: {_furthest(sides, blocks[0])}",
    )


def prevalence(sides: Sides) -> Evidence:
    """Do structures differ in size or number, in the references and in the predictions?

    Both must say so, of the same quantity and in the same direction, so p is the larger of the two
    (an intersection-union test, Berger 1982): neither an annotation habit, which moves references
    alone, nor a network that fails, which moves predictions alone, passes for other patients.
    Sizes are compared where all cases have a physical one; elsewhere numbers of components alone,
    and as long as they do not differ it is unknown whether the patients do.
    """
    units = sides.units
    sized = len(units) == 1 and units[0].known
    kinds = [*([units[0].size_name] if sized else []), "count"]
    tables = {
        who: pd.concat([sides.cases(f"{what}/{who}/") for what in kinds], axis=1) for who in WHO
    }
    reference, prediction = (_told_apart(sides, table) for table in tables.values())
    both = reference.tested & prediction.tested
    if not both.any():
        return Evidence(
            kind="prevalence", statistic=np.nan, p=np.nan, smallest_p=1.0,
            detail="no structure is annotated on both sides",
        )  # fmt: skip
    alike = np.sign(reference.effects - 0.5) == np.sign(prediction.effects - 0.5)
    p = np.where(alike & both, np.maximum(reference.p, prediction.p), 1.0)
    best = int(np.lexsort((-np.abs(reference.effects - 0.5), p, ~both))[0])
    of_patients = tables["reference"].iloc[:, best].groupby(sides.owners).median()
    return Evidence(
        kind="prevalence",
        statistic=float(reference.effects[best]),
        p=float(p[best]),
        smallest_p=max(reference.smallest_p, prediction.smallest_p),
        complete=sized,
        detail=_medians(of_patients, at_home=sides.sizes[0], units=units)
        + ("" if sized else f"; sizes: {_why(units)}"),
    )


def _why(units: Sequence[Units]) -> str:
    """Why sizes are not compared."""
    if all(each.known for each in units):
        return f"unknown: measured in {' and '.join(each.size for each in units)}"
    return NO_PHYSICAL_SIZE


@dataclass(frozen=True, slots=True)
class _ToldApart:
    """Of several quantities (q,) how often a case away has more than one at home, and its p.

    `p` is corrected for all that were `tested`; `smallest_p` is what it could have been at best.
    """

    effects: Array
    p: Array
    tested: NDArray[np.bool_]
    smallest_p: float


def _told_apart(sides: Sides, quantities: pd.DataFrame) -> _ToldApart:
    """Those that the same patients have are permuted together, others apart (Bonferroni).

    Only patients with a value are permuted: how many have one may be up to the site.
    """
    owners = sides.owners
    tables = np.stack([larger(x, owners) for x in quantities.to_numpy(float).T])
    known = ~np.isnan(np.diagonal(tables, axis1=1, axis2=2))
    home = np.arange(known.shape[1]) < sides.sizes[0]
    tested = np.asarray((known & home).any(axis=1) & (known & ~home).any(axis=1))
    groups = np.unique(known[tested], axis=0)
    p, smallest = np.ones(len(tables)), 1.0
    for who in groups:
        own = np.flatnonzero(tested & (known == who).all(axis=1))
        members = sides.choices(int((who & home).sum()), int((who & ~home).sum()))
        statistics = [
            of_choices(partial(brunner_munzel, tables[q][np.ix_(who, who)]), members) for q in own
        ]
        of_group, least = family_p(np.stack(statistics, axis=1))
        p[own] = np.minimum(of_group * len(groups), 1.0)
        smallest = min(smallest, least * len(groups))
    return _ToldApart(_effects(tables, home), p, tested, smallest)


def _effects(tables: Array, home: NDArray[np.bool_]) -> Array:
    """Of `larger` (q, n, n) how often a case away has more than one at home (q,); 0.5 of none."""
    across = tables[:, ~home][:, :, home].reshape(len(tables), -1)
    known = ~np.isnan(across)
    above = np.where(known, across - 0.5, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.asarray(0.5 + np.where(np.abs(above) > ROUNDING, above, 0.0))


def _known(numbers: pd.DataFrame, owners: Owners) -> pd.DataFrame:
    """Without those that many patients lack, whatever their site."""
    return numbers.loc[:, weights(owners) @ numbers.notna() >= KNOWN]


def _furthest(sides: Sides, numbers: pd.DataFrame) -> str:
    """The names of the numbers that differ most, and in which direction."""
    owners = sides.owners
    tables = np.stack([larger(x, owners) for x in numbers.to_numpy(float).T])
    effects = _effects(tables, np.arange(sum(sides.sizes)) < sides.sizes[0]) - 0.5
    order = np.argsort(-np.abs(effects), kind="stable")[:TOLD]
    names = [
        f"{numbers.columns[i].split('/')[-1]} {'higher' if effects[i] > 0 else 'lower'}"
        for i in order
    ]
    return ", ".join(names)


def _medians(values: "pd.Series[float]", *, at_home: int, units: Sequence[Units]) -> str:
    """Of values of patients, those at home first."""
    what, _, structure = str(values.name).split("/", 2)
    measured = next((each for each in units if each.size_name == what), None)
    unit = f" {measured.size}" if measured else ""
    home, away = values.iloc[:at_home].median(), values.iloc[at_home:].median()
    name = f"{measured.sized if measured else 'number'} of {structure}"
    return f"{name}: median {_plain(away)}{unit} against {_plain(home)}{unit} in in_domain"


def _plain(value: float) -> str:
    """Three digits or all before the point, never an exponent of ten: 1051, 28.4."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
