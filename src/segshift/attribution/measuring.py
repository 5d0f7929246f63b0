"""One pass over the test cases: what the tests of the three kinds need, a line of numbers a case.

Columns: `set,case,patient,site`, then numbers: `image/<channel>/<what>` (see `appearance`),
`network/<filter>` (see `features`), `volume_ml/<who>/<structure>` and `count/<who>/<structure>`
(components), of `reference` and `predicted`, `offset_mm/<structure>`, and `dice/<mm>/<structure>`,
the Dice after moving the predicted boundary outwards. NaN where a structure is not annotated. Sizes
and lengths are in the units of the case: `area_mm2`, and without a known spacing `area_px`,
`volume_voxels` and `offset_px`, beside which the columns of other units are NaN.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cc3d
import numpy as np
import pandas as pd
import torch

from segshift.attribution.appearance import appearance
from segshift.attribution.features import FilterAnswers
from segshift.attribution.offset import boundary_offset, dice_after_shifts
from segshift.cohort import Case
from segshift.data.datamodule import CaseDataset
from segshift.data.store import store_cases
from segshift.losses import IGNORE
from segshift.metrics import MaskPair
from segshift.progress import tracked

if TYPE_CHECKING:
    from segshift.build import LoadedRun

STEPS = np.arange(-12, 13)  # of a quarter of the finest voxel edge: three voxels inwards, outwards
REACH = 3  # such edges: a boundary further off is an error, not a habit


def measure(
    run: "LoadedRun",
    sets: Mapping[str, Sequence[Case]],
    *,
    store: Path,
    device: torch.device,
) -> pd.DataFrame:
    """The table of the cases of all evaluation sets, predicted by the run's network.

    Memory does not grow with the cases but for their numbers.
    """
    module = run.module.to(device).eval()
    cases = [case for each in sets.values() for case in each]
    items = CaseDataset(store_cases(cases, run.plan, folder=store), counted=True)
    names = [name for name, each in sets.items() for _ in each]
    lines = []
    with torch.inference_mode(), FilterAnswers(module.network, module.task) as filters:
        for place in tracked(range(len(items)), "measuring", total=len(items)):
            case = items[place]
            item = module.at_found_scale({**case, "image": case["image"].to(device)})
            filters.taken()  # of a first prediction, at another scale
            labels = module.predict(item).labels
            line = {"set": names[place], **{key: item[key] for key in ("case", "patient", "site")}}
            line |= {f"network/{n}": value for n, value in enumerate(filters.taken())}
            lines.append({**line, **dict(_numbers(run, item, labels))})
    return pd.DataFrame(lines)


def _numbers(
    run: "LoadedRun", item: Mapping[str, Any], labels: np.ndarray
) -> Iterator[tuple[str, float]]:
    """What is measured of one item, decoded as `labels` (D, H, W) on the case's own grid."""
    task, plan, reference = run.module.task, run.plan, item["label"][0].numpy()
    counted = reference != IGNORE
    seen = labels[np.ix_(*_places(item))]
    masks = dict(zip(task.structures, task.predicted(seen), strict=True))
    for name, value in appearance(item["image"].cpu().numpy(), masks).items():
        yield f"image/{name}", value
    both = zip(task.predicted(labels), task.referred(reference), strict=True)
    known = task.known(item["annotated"])
    for (pred, ref), name, annotated in zip(both, task.structures, known, strict=True):
        pair = MaskPair(pred & counted, ref, item["spacing"])
        for who, mask in (("reference", pair.cropped[1]), ("predicted", pair.cropped[0])):
            judged = annotated or who == "predicted"
            size = pair.grid.size(int(np.count_nonzero(mask)))
            yield f"{pair.units.size_name}/{who}/{name}", size if judged else np.nan
            yield f"count/{who}/{name}", _components(mask) if judged else np.nan
        if not plan.spacing_known:  # the network has seen pixels, and errs by pixels
            pair = replace(pair, spacing_mm=None)
        edge = min(plan.spacing_mm[-plan.view.dimensions :]) if pair.units.known else 1.0
        offset = boundary_offset(pair, reach=REACH * edge) if annotated else np.nan
        yield f"offset_{pair.units.length}/{name}", offset
        shifts = STEPS * edge / 4
        dice = dice_after_shifts(pair, shifts)
        for shift, value in zip(shifts, dice, strict=True):
            yield f"dice/{shift:g}/{name}", float(value) if annotated else np.nan


def _places(item: Mapping[str, Any]) -> list[np.ndarray]:
    """For each axis of the item's image the nearest indices on the case's own grid."""
    return [
        (low + (np.arange(size) + 0.5) * (high - low) / size).astype(int)
        for (low, high), size in zip(item["box"], item["image"].shape[1:], strict=True)
    ]


def _components(mask: np.ndarray) -> float:
    return float(cc3d.connected_components(mask, connectivity=26).max()) if mask.any() else 0.0
