"""Lesion-wise metrics: counted by hand, against SciPy's components, and by size class."""

import math

import numpy as np
import pytest
from scipy import ndimage
from test_metrics import UNIT, Mask, mask

from segshift.errors import InputError
from segshift.metrics import LesionF1, LesionFalsePositives, LesionSensitivity

SHAPE = (4, 20, 40)
LARGE, SMALL, FAR = np.s_[1:3, 2:10, 2:10], np.s_[1:2, 2:4, 20:22], np.s_[1:2, 15:17, 30:32]
SMALL_CLASS = {"size": "small", "below": 50.0}


def three(*boxes: tuple[slice, ...]) -> Mask:
    return mask(SHAPE, *boxes)


def test_lesions_found_missed_and_invented_are_counted() -> None:
    ref, pred = three(LARGE, SMALL), three(np.s_[1:3, 2:6, 2:10], FAR)
    assert LesionSensitivity()(pred, ref, UNIT) == 1 / 2
    assert LesionFalsePositives()(pred, ref, UNIT) == 1
    assert LesionF1()(pred, ref, UNIT) == 2 / (2 + 1 + 1)


def test_one_voxel_finds_a_lesion_unless_a_share_is_asked_for() -> None:
    ref, pred = three(LARGE), three(np.s_[1:2, 2:3, 2:3])
    assert LesionSensitivity()(pred, ref, UNIT) == 1
    assert LesionSensitivity(overlap=0.1)(pred, ref, UNIT) == 0
    half = three(np.s_[1:3, 2:6, 2:10])
    assert LesionSensitivity(overlap=0.5)(half, ref, UNIT) == 0  # more than half is wanted
    assert LesionSensitivity(overlap=0.49)(half, ref, UNIT) == 1


def test_size_classes_are_of_mm3_and_in_the_name() -> None:
    ref, pred = three(LARGE, SMALL), three(LARGE, FAR)
    small, large = LesionF1(**SMALL_CLASS), LesionF1(size="large", least=50)
    assert (small.name, LesionFalsePositives().name) == (
        "lesion_f1_small",
        "lesion_false_positives",
    )
    assert small(pred, ref, UNIT) == 0
    assert large(pred, ref, UNIT) == 1
    assert math.isnan(large(pred, ref, (0.1, 0.1, 0.1)))  # 128 voxels are 0.128 mm3 there
    assert LesionFalsePositives(**SMALL_CLASS)(pred, ref, UNIT) == 1


def test_a_fragment_of_a_large_lesion_is_no_miss_of_a_small_one() -> None:
    ref, pred = three(LARGE), three(np.s_[1:2, 2:4, 2:4])
    assert math.isnan(LesionSensitivity(**SMALL_CLASS)(pred, ref, UNIT))
    # Nor does a false finding make the case one of those that have a small lesion.
    assert math.isnan(LesionSensitivity(**SMALL_CLASS)(pred | three(FAR), ref, UNIT))


@pytest.mark.parametrize(("connectivity", "components"), [(6, 3), (18, 2), (26, 1)])
def test_connectivity_is_by_faces_edges_or_corners(connectivity: int, components: int) -> None:
    pred = np.zeros((4, 4, 4), dtype=bool)
    pred[0, 0, 0] = pred[0, 1, 1] = pred[1, 2, 2] = True
    metric = LesionFalsePositives(connectivity=connectivity)
    assert metric(pred, np.zeros_like(pred), UNIT) == components


@pytest.mark.parametrize("seed", range(3))
def test_counts_agree_with_a_loop_over_scipys_components(seed: int) -> None:
    random = np.random.default_rng(seed)
    pred, ref = (ndimage.gaussian_filter(random.normal(size=(16, 24, 20)), 1) > 0.25 for _ in "pr")

    def touched(one: Mask, other: Mask) -> list[bool]:
        labels, count = ndimage.label(one, np.ones((3, 3, 3)))
        return [bool(other[labels == i].mean() > 0.2) for i in range(1, count + 1)]

    found, true = touched(ref, pred), touched(pred, ref)
    assert len(found) > 5
    assert any(found) > all(found)
    false = len(true) - sum(true)
    assert LesionSensitivity(overlap=0.2)(pred, ref, UNIT) == sum(found) / len(found)
    assert LesionFalsePositives(overlap=0.2)(pred, ref, UNIT) == false
    f1 = 2 * sum(found) / (sum(found) + len(found) + false)
    assert LesionF1(overlap=0.2)(pred, ref, UNIT) == pytest.approx(f1)


@pytest.mark.parametrize(
    "options",
    [
        {"connectivity": 8},
        {"overlap": 1},
        {"size": "small"},
        {"below": 50},
        {"least": 5, "below": 5, "size": "none"},
    ],
)
def test_options_that_make_no_class_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        LesionF1(**options)
