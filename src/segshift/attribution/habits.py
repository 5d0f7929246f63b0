"""Do annotators draw further out, or in? A constant offset of well-predicted boundaries.

The network's own bias is what it shows in in_domain; the habit is the difference to that.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from segshift.attribution.evidence import Evidence, Sides, names
from segshift.attribution.permutation import choices, share_at_least, smallest_share
from segshift.results import sign_flip_p
from segshift.units import NO_PHYSICAL_SIZE

JUDGED_BY = 0.8  # median Dice in in_domain; a structure that is predicted worse tells of no habit
WELL = 0.9  # of that median: who reaches it, but for an offset, is well predicted


@dataclass(frozen=True, slots=True, kw_only=True)
class Habit:
    """What one structure says: how far further out its boundary is drawn than in in_domain.

    `p_offset` is of the offset, `p_gain` of the Dice `gained` by removing it in the `patients` of
    the target with well-predicted cases; `smallest_p` is what either could have been at best.
    Lengths are in the one unit that all cases have.
    """

    structure: str
    further_out: float
    gained: float
    p_offset: float
    p_gain: float
    smallest_p: float
    patients: int
    step: float  # a quarter of a voxel edge

    @property
    def p(self) -> float:
        """Both must hold."""
        return max(self.p_offset, self.p_gain)

    @property
    def large(self) -> bool:
        """Whether it is at least a quarter of a voxel edge."""
        return abs(self.further_out) >= self.step


def concept(sides: Sides) -> Evidence:
    """Does a constant offset of the boundary tell the target's references from in_domain's?

    In cases that are well predicted but for an offset, of any structure (Bonferroni over them):
    the offset differs (permutation of patients), and moving the predicted boundary by what the
    other patients of the target show raises the Dice (sign flips of patients, one-sided).
    """
    units = [unit for unit in ("mm", "px") if sides.known(f"offset_{unit}/")]
    if len(units) > 1:
        return Evidence(
            kind="concept", statistic=np.nan, p=np.nan, smallest_p=1.0,
            detail=f"{NO_PHYSICAL_SIZE} of some cases: offsets in mm and px are not compared",
        )  # fmt: skip
    starts = [f"offset_{unit}/" for unit in units]
    found = [
        habit
        for start in starts
        for name in names(sides.home, start)
        if (habit := _habit(sides, name.removeprefix(start), start)) is not None
    ]
    if not found:
        return Evidence(
            kind="concept", statistic=np.nan, p=np.nan, smallest_p=1.0,
            detail="too few patients with well-predicted structures",
        )  # fmt: skip
    best = min(found, key=lambda habit: (not habit.large, habit.p, -abs(habit.further_out)))
    where = "outside" if best.further_out > 0 else "inside"
    return Evidence(
        kind="concept",
        statistic=best.further_out,
        p=min(best.p * len(found), 1.0),
        smallest_p=min(habit.smallest_p for habit in found) * len(found),
        large=best.large,
        detail=(
            f"{best.structure} drawn {abs(best.further_out):.2g} {units[0]} further {where}; "
            f"removing that changes Dice by {best.gained:+.3f} "
            f"(well-predicted patients: {best.patients})"
        ),
    )


def _habit(sides: Sides, structure: str, offset: str) -> Habit | None:
    """Of its column that begins with `offset`; None for fewer than two well-predicted patients.

    Also where the structure is usually predicted too badly.
    """
    columns = [n for n in names(sides.home, "dice/") if n.split("/", 2)[2] == structure]
    shifts = np.array([float(name.split("/", 2)[1]) for name in columns])
    best_home, best_away = (side[columns].max(axis=1) for side in (sides.home, sides.away))
    usual = best_home.median()
    # A prediction far off everywhere has no offset to tell of.
    home, away = (
        side[(best >= WELL * usual) & side[offset + structure].notna()]
        for side, best in ((sides.home, best_home), (sides.away, best_away))
    )
    patients = home["patient"].nunique(), away["patient"].nunique()
    if not usual >= JUDGED_BY or min(patients) < 2:
        return None
    sizes = [f"{each.size_name}/predicted/{structure}" for each in sides.units]
    offsets = _offsets(home, away, offset + structure, sizes)
    at_home, there = offsets[: patients[0]], offsets[patients[0] :]
    members = choices(*patients, seed=sides.seed, identity=(sides.target, structure))
    apart = np.abs(_differences(offsets.to_numpy(), members))
    others = (there.sum() - there) / (patients[1] - 1) - at_home.mean()
    gains = _gains(away, columns, shifts, others)
    two_sided = sign_flip_p(gains, identity=(sides.target, structure), seed=sides.seed)
    return Habit(
        structure=structure,
        further_out=float(at_home.mean() - there.mean()),
        gained=float(gains.mean()),
        p_offset=share_at_least(apart),
        p_gain=two_sided / 2 if gains.mean() > 0 else 1.0,
        smallest_p=max(smallest_share(apart), 0.5 ** patients[1]),
        patients=patients[1],
        step=float(np.diff(shifts).min()),
    )


def _offsets(
    home: pd.DataFrame, away: pd.DataFrame, column: str, sizes: list[str]
) -> "pd.Series[float]":
    """By patient, home first, without what the size of the predicted structure explains.

    Networks draw large lesions further in than small ones, which is no habit of annotators: a
    line through everybody's offsets over the logarithm of the size is taken off. The size is the
    predicted one, in whatever unit a case has it, which no habit moves.
    """
    both = pd.concat([side.groupby("patient")[[column, *sizes]].mean() for side in (home, away)])
    offset = both[column]
    size = np.log1p(both[sizes].sum(axis=1).to_numpy(dtype=float))
    size -= size.mean()
    varied = float(size @ size)
    slope = float(size @ offset.to_numpy(dtype=float)) / varied if varied > 0 else 0.0
    adjusted: pd.Series[float] = offset - slope * size
    return adjusted


def _differences(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Mean outside minus inside each choice, (choices,), of values (patients,)."""
    inside = members.astype(float)
    counts = inside.sum(axis=1)
    total = values.sum()
    return np.asarray((total - inside @ values) / (len(values) - counts) - inside @ values / counts)


def _gains(
    cases: pd.DataFrame, columns: list[str], shifts: np.ndarray, others: "pd.Series[float]"
) -> np.ndarray:
    """Dice gained (patients,) by moving each patient's boundaries back by what others show."""
    wanted = -others.loc[cases["patient"]].to_numpy()
    dice = cases[columns].to_numpy(dtype=float)
    at = np.abs(shifts - wanted[:, None]).argmin(axis=1)
    moved = np.take_along_axis(dice, at[:, None], axis=1)[:, 0]
    unmoved = dice[:, np.abs(shifts).argmin()]
    gained = pd.Series(moved - unmoved, index=cases["patient"].to_numpy())
    return gained.groupby(level=0).mean().to_numpy()
