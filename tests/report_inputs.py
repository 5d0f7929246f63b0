"""The folder of a finished run, as small as a report can be drawn from."""

import json
import math
from pathlib import Path

import numpy as np

from segshift.cohort import Case
from segshift.results import Row, read_rows, summarise, write_cases, write_rows

STRUCTURES = ("liver", "tumour")
DICE = {"metric": "dice", "higher_is_better": True}
HD95 = {"metric": "hd95_mm", "higher_is_better": False}
SITES = {"dijon": "in_domain", "toronto": "site-toronto", "bern": "site-bern"}
EVIL = "<script>alert(1)</script>"


def fill(folder: Path) -> Path:
    """A finished run: three sites with four cases each."""
    rng, rows = np.random.default_rng(0), []
    for site, set_ in SITES.items():
        slices = folder / "figures" / "slices" / set_
        slices.mkdir(parents=True)
        for number in range(4):
            case = EVIL if (site, number) == ("bern", 3) else f"{site}-{number}"
            for structure in STRUCTURES:
                dice = 0.9 - 0.04 * number - (0 if site == "dijon" else 0.3)
                dice = 0.0 if case == EVIL else dice
                dice = math.nan if (site, number, structure) == ("dijon", 0, "tumour") else dice
                for metric, value in (("dice", dice), ("hd95_mm", 30 * (1 - dice))):
                    rows.append(Row("demo/1", set_, case, case, site, structure, metric, value))
            reference = np.zeros((2, 20, 30), dtype=bool)
            reference[0, 5:15, 0:12], reference[1, 8:12, 15:20] = True, True
            np.savez_compressed(
                slices / f"{number}.npz",
                case=case,
                image=rng.normal(size=(20, 30)).astype(np.float32),
                reference=reference,
                prediction=np.zeros_like(reference)
                if case == EVIL
                else np.roll(reference, 2, axis=2),
                spacing_mm=np.array([2.0, 1.0]),
            )
    write_rows(folder / "rows.csv", rows)
    # Raters share the cases of every site, guidelines are those of the sites.
    cases: dict[str, list[Case]] = {}
    for one in {row.case: row for row in rows}.values():
        tags = {"rater": "ann" if one.case.endswith("-0") else "<b>bob", "guideline": one.site}
        case = Case(one.case, one.patient, one.site, (Path("i.nii"),), tags=tags)
        cases.setdefault(one.set, []).append(case)
    write_cases(folder / "cases.csv", cases)
    numbers = summarise(read_rows(folder / "rows.csv"), {"dice": True, "hd95_mm": False})
    measured = {"selection": "source_val", "time/train_s": 12.345, "memory/peak_gb": 1.5}
    contents = {
        "summary": {**measured, **numbers},
        "split": {
            "train": ["a", "b"],
            "val": ["c"],
            **{set_: ["d"] * 4 for set_ in SITES.values()},
        },
        "plan": {"spacing_mm": [1, 1, 1]},
        "environment": {
            "command": "python train.py seed=7",
            "choices": {"model": "unet3d"},
            "gpu": None,
            "processor": "abacus",
            "cpus": 2,
        },
    }
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    (folder / "config.yaml").write_text("seed: 7  # </pre><script>\n")
    (folder / "metrics.csv").write_text(
        "epoch,lr-AdamW,step,train/loss,val/dice\n"
        "0,0.1,4,,\n0,,4,1.5,\n0,,9,1.0,\n0,,9,,0.4\n1,,14,0.8,\n1,,19,,0.7\n"
    )
    bins = [
        f"{set_},{site},{structure},{low},{low + 0.5},{voxels},{confidence},{accuracy}"
        for site, set_ in SITES.items()
        for structure in STRUCTURES
        for low, voxels, confidence, accuracy in ((0.0, 900, 0.1, 0.05), (0.5, 100, 0.8, 0.6))
    ]
    header = "set,site,structure,low,high,voxels,confidence,accuracy"
    (folder / "reliability.csv").write_text("\n".join([header, *bins]) + "\n")
    return folder
