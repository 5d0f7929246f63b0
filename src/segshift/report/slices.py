"""Which cases are shown, and their stored slices.

A run keeps a slice or two of every tested case in `figures/slices/<set>/`. Shown are the best,
median and worst case of each set, and the worst cases of all sets. Rows in, those of a network on
images as they were acquired; `Shown` out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segshift.metrics import Measure
from segshift.results import IN_DOMAIN
from segshift.results.names import slice_folder

SHOWN_FAILURES = 6


@dataclass(frozen=True, slots=True)
class Slice:
    """One slice: image (H, W), masks of the structures (K, H, W), pixel spacing (y, x).

    Where it is not known, pixels are square: it is there for the picture's proportions.
    """

    image: NDArray[np.float32]
    reference: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    spacing_mm: tuple[float, float]

    def window(self) -> tuple[float, float]:
        """The intensities that are shown as black and white: all but the outermost hundredths."""
        low, high = np.percentile(self.image, [1, 99])
        return float(low), float(max(high, low + 1e-6))

    def grey(self) -> NDArray[np.uint8]:
        """The image (H, W) under its window, 0 black and 255 white."""
        low, high = self.window()
        grey: NDArray[np.uint8] = np.rint(
            255 * np.clip((self.image - low) / (high - low), 0, 1)
        ).astype(np.uint8)
        return grey

    def classes(self, masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Masks (K, H, W) as one map (H, W): 0 for none, k + 1; a smaller structure lies on top."""
        classes = np.zeros(masks.shape[1:], dtype=np.uint8)
        for k in np.argsort(-masks.sum(axis=(1, 2)), kind="stable"):
            classes[masks[k]] = k + 1
        return classes


@dataclass(frozen=True, slots=True)
class Shown:
    """A case with a picture: why it is shown, and the value that says so."""

    why: str
    set: str
    case: str
    site: str
    value: float
    path: Path


def sets_of(rows: pd.DataFrame) -> list[str]:
    """The evaluation sets, `in_domain` first."""
    return sorted(rows["set"].unique(), key=lambda name: (name != IN_DOMAIN, name))


def best_median_worst(
    rows: pd.DataFrame, folder: Path, *, set_: str, measure: Measure
) -> list[Shown]:
    """Up to three cases of a set, ranked by the mean of `measure` over structures."""
    paths = slice_paths(slice_folder(folder, set_))
    of_set = rows[(rows["set"] == set_) & (rows["metric"] == measure.name)]
    of_set = of_set[of_set["case"].isin(list(paths))]
    ranked = of_set.groupby(["case", "site"])["value"].mean().dropna().reset_index()
    ranked = ranked.assign(bad=measure.badness(ranked["value"])).sort_values(["bad", "case"])
    last = len(ranked) - 1
    # A later entry overrides: of two cases there is no median, of one no worst.
    places = {last // 2: "median", last: "worst", 0: "best"}
    return [
        Shown(places[n], set_, line["case"], line["site"], line["value"], paths[line["case"]])
        for n, line in enumerate(ranked.to_dict("records"))
        if n in places
    ]


def worst_cases(rows: pd.DataFrame, folder: Path, *, measure: Measure, count: int) -> list[Shown]:
    """The `count` cases with the worst structure, which `why` names."""
    known = rows[rows["metric"] == measure.name].dropna(subset=["value"])
    ordered = known.assign(bad=measure.badness(known["value"])).sort_values(
        ["bad", "set", "case"], ascending=[False, True, True], kind="stable"
    )
    first = ordered.drop_duplicates(["set", "case"])  # of each case its worst structure
    paths = {set_: slice_paths(slice_folder(folder, set_)) for set_ in sets_of(known)}
    shown = [
        Shown(line["structure"], line["set"], line["case"], line["site"], line["value"], path)
        for line in first.to_dict("records")
        if (path := paths[line["set"]].get(line["case"]))
    ]
    return shown[:count]


def read_slice(path: Path, *, most_wrong: bool = False) -> Slice:
    """A telling slice that the run stored, or the one in which most is wrong."""
    with np.load(path) as arrays:
        y, x = arrays["spacing_mm"]
        which = "wrong_" if most_wrong and "wrong_image" in arrays else ""  # it may be the same
        return Slice(
            image=arrays[f"{which}image"],
            reference=arrays[f"{which}reference"],
            prediction=arrays[f"{which}prediction"],
            spacing_mm=(float(y), float(x)),
        )


def slice_paths(folder: Path) -> Mapping[str, Path]:
    """The stored slice of each case in a `slice_folder`, by the case's id."""
    paths = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            paths[str(arrays["case"])] = path  # a file name may not hold every character of an id
    return paths
