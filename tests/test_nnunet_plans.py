"""Plans in a given memory are those of nnU-Net's own planner, whose answers lie beside this.

`make_nnunet_plans.py` asks for them. Only where axes cannot be compared nothing is: slices of a 2D
view are cut along z here, and across the coarsest axis there.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import make_case, reannotated, save_nifti

from segshift.plan import make_plan, memory
from segshift.plan.sizes import derived_sizes, resampled_shape, target_spacing_mm

CONTENT = json.loads(Path(__file__).with_name("nnunet_plans.json").read_text(encoding="utf-8"))
PLANS = CONTENT["plans"]


def ours(asked, dimensions):
    spacings_mm = np.array(asked["spacings_mm"] * asked["repeats"])
    shapes = np.array(asked["shapes"] * asked["repeats"])
    target = target_spacing_mm(spacings_mm, shapes)
    sizes = derived_sizes(
        [resampled_shape(*case, target) for case in zip(shapes, spacings_mm, strict=True)],
        target,
        dimensions=dimensions,
        outputs=asked["structures"] + 1,
        patch_voxels=1,
        memory_gb=asked["memory_gb"],
    )
    return target[3 - dimensions :], sizes


def compared(asked, dimensions):
    """Our parts and nnU-Net's that differ, its axes put back where they were."""
    theirs = asked[f"{dimensions}d"]
    back = np.argsort(asked["transpose"]) if dimensions == 3 else [0, 1]
    target, sizes = ours(asked, dimensions)
    # Where the coarse axis' 10th percentile is finer than the others, nnU-Net adds 1e-5.
    np.testing.assert_allclose(target, np.array(theirs["spacing_mm"])[back], rtol=2e-6, atol=1.1e-5)
    expected = {
        "patch": tuple(np.array(theirs["patch"])[back].tolist()),
        "batch": theirs["batch"],
        "strides": tuple(map(tuple, np.array(theirs["strides"])[:, back].tolist())),
        "kernels": tuple(map(tuple, np.array(theirs["kernels"])[:, back].tolist())),
    }
    return {
        name: (getattr(sizes, name), value)
        for name, value in expected.items()
        if getattr(sizes, name) != value
    }


def comparable(dimensions):
    return [
        asked
        for asked in PLANS
        if asked[f"{dimensions}d"] and (dimensions == 3 or asked["transpose"] == [0, 1, 2])
    ]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_every_plan_is_nnunets(dimensions):
    asked = comparable(dimensions)
    assert len(asked) > 150
    differing = [(one, compared(one, dimensions)) for one in asked]
    assert [(one, parts) for one, parts in differing if parts] == []


def test_the_planner_answered_all_that_it_was_asked_of_every_kind():
    assert CONTENT["versions"]["nnunetv2"] == "2.8.1"
    assert not [one for one in PLANS if "error" in one]
    kinds = Counter(one["kind"] for one in PLANS)
    assert len(kinds) >= 18
    assert {one["memory_gb"] for one in PLANS} >= {2, 4, 8, 24, 80}
    turned = [one for one in PLANS if one["transpose"] != [0, 1, 2]]
    odd = [one for one in PLANS if any(edge % 2 for shape in one["shapes"] for edge in shape)]
    assert min(len(turned), len(odd)) > 50
    shrunk = [one for one in comparable(2) if one["2d"]["batch"] < memory.REFERENCE_BATCH[2]]
    assert len(shrunk) > 50  # where the two rules of how a patch gives way count


def test_slices_of_1024x1024_in_8_gb_stay_whole(tmp_path):
    """From files to plan; nnU-Net's answer for 40 slices of 1024x1024, two structures, 8 GB."""
    (named,) = (one for one in PLANS if one["kind"] == "slices of 1024x1024")
    assert (named["2d"]["patch"], named["2d"]["batch"]) == ([1024, 1024], 3)
    case = make_case(tmp_path, "c")
    affine = np.diag([0.7, 0.7, 3.0, 1])
    voxels = np.full((4, 1024, 1024), 1, np.uint8)
    save_nifti(case.images[0], voxels, affine)
    case = reannotated(case, label=save_nifti(tmp_path / "l.nii.gz", voxels * 5, affine))
    made = make_plan(
        [case] * 20, structures=("box", "core"), dimensions=2, context=0, patch_voxels=1,
        memory_gb=8,
    )  # fmt: skip
    assert (made.view.patch, made.batch) == ((1024, 1024), 3)
    assert [list(stage) for stage in made.strides] == named["2d"]["strides"]
    assert [list(stage) for stage in made.kernels] == named["2d"]["kernels"]
