"""Metrics: hand cases, the table for empty masks, agreement with MONAI and where it is a trap."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from monai.metrics import DiceMetric, compute_hausdorff_distance
from numpy.typing import NDArray

from segshift.errors import InputError
from segshift.metrics import (
    Dice,
    FalseAlarm,
    FalseAlarmVolume,
    HausdorffDistance95,
    MaskPair,
    Measure,
    Metric,
    measure_of,
    value_if_empty,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")

Mask = NDArray[np.bool_]

DICE, HD95 = Dice(), HausdorffDistance95()
UNIT = (1.0, 1.0, 1.0)


def mask(shape: tuple[int, int, int], *boxes: tuple[slice, slice, slice]) -> Mask:
    out = np.zeros(shape, dtype=bool)
    for box in boxes:
        out[box] = True
    return out


def voxels(shape: tuple[int, int, int], *where: tuple[int, int, int]) -> Mask:
    out = np.zeros(shape, dtype=bool)
    for index in where:
        out[index] = True
    return out


def blobs(seed: int, *, shape: tuple[int, int, int]) -> tuple[Mask, Mask]:
    """Two smooth, overlapping, partly cut masks, non-empty, touching the border."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    pair = []
    for _ in range(2):
        centre, radius = rng.uniform(-0.6, 0.6, (3, 1, 1, 1)), rng.uniform(0.3, 0.8)
        ball = ((grid - centre) ** 2).sum(0) < radius**2
        pair.append(ball & (rng.random(shape) < 0.97))
    assert all(part.any() for part in pair)
    return pair[0], pair[1]


def monai_hd95(pred: Mask, ref: Mask, spacing_mm: Sequence[float]) -> float:
    batch = [torch.from_numpy(part)[None, None].float() for part in (pred, ref)]
    return compute_hausdorff_distance(
        *batch, include_background=True, percentile=95, spacing=list(spacing_mm)
    ).item()


masks = st.integers(0, 2**31).flatmap(
    lambda seed: st.tuples(
        hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=7), st.floats(0.02, 0.9)
    ).map(lambda pair: random_pair(seed, *pair))
)
spacings = st.tuples(*[st.floats(0.2, 6.0)] * 3)


def random_pair(seed: int, shape: tuple[int, ...], density: float) -> tuple[Mask, Mask]:
    rng = np.random.default_rng(seed)
    return rng.random(shape) < density, rng.random(shape) < density


def test_dice_of_half_overlapping_boxes_is_a_half() -> None:
    pred = mask((1, 4, 8), np.s_[:, :, 0:4])
    ref = mask((1, 4, 8), np.s_[:, :, 2:6])
    assert DICE(pred, ref, UNIT) == pytest.approx(0.5)


def test_dice_of_unequal_masks_by_hand() -> None:
    pred = voxels((2, 2, 2), (0, 0, 0), (0, 0, 1), (1, 1, 1))
    ref = voxels((2, 2, 2), (0, 0, 0))
    assert DICE(pred, ref, UNIT) == pytest.approx(2 * 1 / (3 + 1))


@pytest.mark.parametrize(
    ("shift", "expected_mm"), [((2, 0, 0), 10.0), ((0, 2, 0), 2.0), ((0, 0, 2), 1.0)]
)
def test_hd95_of_one_moved_voxel_uses_the_spacing_of_its_axis(
    shift: tuple[int, int, int], expected_mm: float
) -> None:
    pred, ref = (
        voxels((5, 5, 5), (1, 1, 1)),
        np.roll(voxels((5, 5, 5), (1, 1, 1)), shift, (0, 1, 2)),
    )
    assert HD95(pred, ref, (5.0, 1.0, 0.5)) == pytest.approx(expected_mm)


def test_hd95_takes_the_worse_direction_and_forgives_the_furthest_twentieth() -> None:
    filled = mask((3, 3, 200), np.s_[:, :, :100])
    assert HD95(filled | voxels((3, 3, 200), (1, 1, 199)), filled, UNIT) == 0
    half = mask((3, 3, 200), np.s_[:, :, :50])
    # 802 surface voxels of `filled`: 401 at 0, eight each at 1 to 49 and nine at 50. The 95th
    # percentile is at rank 760.95, between a 45 and a 46.
    assert HD95(half, filled, UNIT) == HD95(filled, half, UNIT) == pytest.approx(45.95)


def test_a_hole_and_the_image_border_are_surfaces() -> None:
    full = np.ones((5, 5, 5), dtype=bool)
    hollow = full & ~voxels((5, 5, 5), (2, 2, 2))
    # 98 border voxels at 0 and the six around the hole at 1: rank 97.85 of 0 to 103.
    assert HD95(hollow, full, UNIT) == pytest.approx(0.85)


def test_an_image_of_one_voxel_has_a_surface() -> None:
    one = np.ones((1, 1, 1), dtype=bool)
    assert HD95(one, one, UNIT) == 0


@pytest.mark.parametrize("spacing_mm", [UNIT, (3.0, 0.8, 0.6), (0.5, 2.0, 1.25)])
@pytest.mark.parametrize("seed", range(5))
def test_hd95_agrees_with_monai_in_3d(seed: int, spacing_mm: tuple[float, ...]) -> None:
    pred, ref = blobs(seed, shape=(12, 20, 17))
    assert HD95(pred, ref, spacing_mm) == pytest.approx(monai_hd95(pred, ref, spacing_mm), abs=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_hd95_of_a_2d_image_agrees_with_monai_in_2d(seed: int) -> None:
    pred, ref = (part.any(axis=0) for part in blobs(seed, shape=(12, 40, 31)))
    expected = monai_hd95(pred, ref, (0.7, 1.1))
    assert HD95(pred[None], ref[None], (4.0, 0.7, 1.1)) == pytest.approx(expected, abs=1e-4)


@settings(deadline=None)
@given(masks, spacings)
def test_hd95_agrees_with_monai_on_any_masks(
    pair: tuple[Mask, Mask], spacing_mm: tuple[float, ...]
) -> None:
    pred, ref = (np.pad(part, 1) for part in pair)  # no axis of length one, where we differ
    if pred.any() and ref.any():
        expected = monai_hd95(pred, ref, spacing_mm)
        assert HD95(pred, ref, spacing_mm) == pytest.approx(expected, abs=1e-4)


@settings(deadline=None)
@given(masks, spacings)
def test_both_metrics_are_symmetric_in_range_and_perfect_on_themselves(
    pair: tuple[Mask, Mask], spacing_mm: tuple[float, ...]
) -> None:
    pred, ref = pair
    diagonal_mm = math.hypot(*(n * s for n, s in zip(pred.shape, spacing_mm, strict=True)))
    for metric, worst, best in ((DICE, 0.0, 1.0), (HD95, diagonal_mm, 0.0)):
        value = metric(pred, ref, spacing_mm)
        if pred.any() and ref.any():
            assert value == pytest.approx(metric(ref, pred, spacing_mm))
        if ref.any():
            assert min(worst, best) <= value <= max(worst, best)
            assert metric(ref, ref, spacing_mm) == best


@settings(deadline=None)
@given(masks, spacings)
def test_doubling_the_spacing_doubles_hd95_and_leaves_dice(
    pair: tuple[Mask, Mask], spacing_mm: tuple[float, ...]
) -> None:
    twice = tuple(2 * s for s in spacing_mm)
    assert HD95(*pair, twice) == pytest.approx(2 * HD95(*pair, spacing_mm), nan_ok=True)
    assert DICE(*pair, twice) == pytest.approx(DICE(*pair, spacing_mm), nan_ok=True)


@settings(deadline=None)
@given(masks, st.tuples(*[st.integers(0, 3)] * 3))
def test_empty_space_around_changes_nothing(
    pair: tuple[Mask, Mask], margin: tuple[int, int, int]
) -> None:
    pred, ref = (np.pad(part, 1) for part in pair)
    if pred.any() and ref.any():
        wider = [np.pad(part, [(n, 0) for n in margin]) for part in (pred, ref)]
        for metric in (DICE, HD95):
            assert metric(*wider, UNIT) == metric(pred, ref, UNIT)


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 3, 4)])
def test_empty_masks_follow_the_table(shape: tuple[int, int, int]) -> None:
    spacing_mm = (5.0, 2.0, 0.5)
    empty, some = np.zeros(shape, dtype=bool), voxels(shape, (0, 1, 1))
    diagonal_mm = math.hypot(*([10.0] if shape[0] == 2 else []), 6.0, 2.0)  # a picture has no depth
    assert DICE(empty, some, spacing_mm) == 0.0
    assert HD95(empty, some, spacing_mm) == pytest.approx(diagonal_mm)
    for pred in (some, empty):
        assert math.isnan(DICE(pred, empty, spacing_mm))
        assert math.isnan(HD95(pred, empty, spacing_mm))
    assert value_if_empty(MaskPair(some, some, spacing_mm), miss=0.0) is None


def test_monai_dice_forgets_a_false_positive_on_an_empty_reference_and_a_false_alarm_does_not() -> (
    None
):
    blob, empty = mask((1, 8, 8), np.s_[:, 2:5, 2:5]), np.zeros((1, 8, 8), dtype=bool)
    pred = torch.from_numpy(np.stack([blob, blob])).float()[:, None]
    ref = torch.from_numpy(np.stack([blob, empty])).float()[:, None]
    monai = DiceMetric(reduction="mean")
    monai(pred, ref)
    assert monai.aggregate().item() == 1.0
    assert FalseAlarm()(blob, empty, UNIT) == 1.0
    assert FalseAlarmVolume()(blob, empty, (1.0, 2.0, 3.0)) == pytest.approx(9 * 2 * 3)  # mm2


@pytest.mark.filterwarnings("ignore:the prediction of class")
def test_the_mean_of_monai_hd95_improves_with_a_miss_and_ours_gets_worse() -> None:
    near, far = mask((1, 32, 32), np.s_[:, 4:9, 4:9]), mask((1, 32, 32), np.s_[:, 20:25, 20:25])
    empty = np.zeros_like(near)
    poor, missed = (far, near), (empty, near)
    good = (near, near)
    monai = [monai_hd95(pred[0], ref[0], (1, 1)) for pred, ref in (good, poor, missed)]
    assert math.isnan(monai[2])
    assert np.nanmean([monai[0], monai[2]]) < np.nanmean([monai[0], monai[1]])
    assert HD95(*missed, UNIT) > HD95(*poor, UNIT) > HD95(*good, UNIT)


@pytest.mark.parametrize("metric", [DICE, HD95])
@pytest.mark.parametrize(
    ("pred", "ref", "message"),
    [
        (np.ones((2, 2, 2), dtype=np.uint8), np.ones((2, 2, 2), dtype=bool), "pred .* uint8"),
        (np.ones((2, 2, 2), dtype=bool), np.ones((2, 2, 2), dtype=float), "ref .* float64"),
        (np.ones((2, 2), dtype=bool), np.ones((2, 2), dtype=bool), r"\(2, 2\)"),
        (np.ones((2, 2, 3), dtype=bool), np.ones((2, 2, 2), dtype=bool), r"\(2, 2, 3\)"),
    ],
)
def test_label_maps_and_unequal_shapes_are_refused(
    metric: Metric, pred: Mask, ref: Mask, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        metric(pred, ref, UNIT)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)])
def test_a_spacing_that_is_none_is_refused(spacing_mm: tuple[float, ...]) -> None:
    ones = np.ones((2, 2, 2), dtype=bool)
    with pytest.raises(InputError, match="spacing_mm"):
        HD95(ones, ones, spacing_mm)


def test_metrics_do_not_touch_their_arguments() -> None:
    pred, ref = blobs(0, shape=(6, 8, 8))
    copies = pred.copy(), ref.copy()
    for metric in (DICE, HD95):
        metric(pred, ref, UNIT)
    np.testing.assert_array_equal(pred, copies[0])
    np.testing.assert_array_equal(ref, copies[1])


def test_names_and_directions() -> None:
    assert [measure_of(metric) for metric in (DICE, HD95)] == [
        Measure("dice", "", "higher"),
        Measure("hd95_mm", "mm", "lower"),
    ]
