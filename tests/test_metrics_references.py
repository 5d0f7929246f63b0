"""Metrics against MONAI, torchmetrics and DeepMind's surface-distance, and by hand."""

import math

import numpy as np
import pytest
import surface_distance
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from test_metrics import UNIT, Mask, blobs, mask, voxels
from torchmetrics.functional.classification import (
    binary_f1_score,
    binary_jaccard_index,
    binary_precision,
    binary_recall,
)

from segshift.errors import InputError
from segshift.metrics import (
    AverageSurfaceDistance,
    BoundaryIoU,
    BoundaryOffset,
    ClDice,
    Dice,
    HausdorffDistance,
    HausdorffDistance95,
    IoU,
    LesionF1,
    LesionFalsePositives,
    LesionSensitivity,
    MaskPair,
    Metric,
    Precision,
    RelativeVolumeDifference,
    Sensitivity,
    SurfaceDice,
    VolumeDifference,
    measure_of,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*namespace is deprecated:DeprecationWarning"),
]

ALL: tuple[Metric, ...] = (
    Dice(), IoU(), Sensitivity(), Precision(), VolumeDifference(), RelativeVolumeDifference(),
    HausdorffDistance(), HausdorffDistance95(), AverageSurfaceDistance(), BoundaryOffset(),
    SurfaceDice(tolerance_mm=2), BoundaryIoU(width_mm=1.5), ClDice(),
    LesionF1(), LesionSensitivity(), LesionFalsePositives(),
)  # fmt: skip
SPACING_MM = (3.0, 0.8, 0.6)


def tensors(pair: tuple[Mask, Mask]) -> list[torch.Tensor]:
    return [torch.from_numpy(part)[None, None].double() for part in pair]


@pytest.mark.parametrize("seed", range(3))
def test_overlaps_agree_with_torchmetrics_and_monai(seed: int) -> None:
    pred, ref = blobs(seed, shape=(12, 20, 17))
    flat = [torch.from_numpy(part).int() for part in (pred, ref)]
    for metric, theirs in (
        (Dice(), binary_f1_score),
        (IoU(), binary_jaccard_index),
        (Sensitivity(), binary_recall),
        (Precision(), binary_precision),
    ):
        assert metric(pred, ref, UNIT) == pytest.approx(theirs(*flat).item(), abs=1e-6)
    assert IoU()(pred, ref, UNIT) == pytest.approx(compute_iou(*tensors((pred, ref))).item())


@pytest.mark.parametrize("seed", range(3))
def test_distances_agree_with_monai(seed: int) -> None:
    pair = blobs(seed, shape=(12, 20, 17))
    given = {"include_background": True, "spacing": list(SPACING_MM)}
    hd = compute_hausdorff_distance(*tensors(pair), **given).item()
    assd = compute_average_surface_distance(*tensors(pair), symmetric=True, **given).item()
    assert HausdorffDistance()(*pair, SPACING_MM) == pytest.approx(hd, abs=1e-6)
    assert AverageSurfaceDistance()(*pair, SPACING_MM) == pytest.approx(assd, abs=1e-6)
    for tolerance_mm in (0.5, 1.2, 3.0):
        nsd = compute_surface_dice(*tensors(pair), class_thresholds=[tolerance_mm], **given)
        ours = SurfaceDice(tolerance_mm=tolerance_mm)(*pair, SPACING_MM)
        assert ours == pytest.approx(nsd.item(), abs=1e-6)


def test_deepminds_surfaces_lie_between_voxels_and_are_weighed_by_area_and_ours_do_neither() -> (
    None
):
    """Two slabs a voxel apart agree; rough surfaces, of many small elements, do not."""
    slab = mask((30, 30, 40), np.s_[5:25, 5:25, 5:25])
    moved = np.roll(slab, 2, axis=2)
    theirs = surface_distance.compute_surface_distances(slab, moved, UNIT)
    for percent, metric in ((95, HausdorffDistance95()), (100, HausdorffDistance())):
        robust = surface_distance.compute_robust_hausdorff(theirs, percent)
        assert metric(moved, slab, UNIT) == pytest.approx(robust, abs=1e-6)

    pred, ref = blobs(0, shape=(12, 20, 17))
    theirs = surface_distance.compute_surface_distances(ref, pred, (2.0, 0.8, 0.8))
    hd95 = surface_distance.compute_robust_hausdorff(theirs, 95)
    nsd = surface_distance.compute_surface_dice_at_tolerance(theirs, 1.0)
    assert (hd95, nsd) == pytest.approx((6.986, 0.2165), abs=1e-3)
    assert HausdorffDistance95()(pred, ref, (2.0, 0.8, 0.8)) == pytest.approx(7.367, abs=1e-3)
    assert SurfaceDice(tolerance_mm=1)(pred, ref, (2.0, 0.8, 0.8)) == pytest.approx(
        0.1598, abs=1e-3
    )


def test_the_hd95_of_three_libraries_are_three_numbers_by_hand() -> None:
    """The reference is one pixel; the prediction is that pixel and one that lies 10 mm off."""
    ref, pred = voxels((1, 3, 16), (0, 1, 2)), voxels((1, 3, 16), (0, 1, 2), (0, 1, 12))
    to_ref, to_pred = [0, 10], [0]
    # MONAI's and ours: the larger of the two percentiles, 19/20 of the way from 0 to 10.
    theirs = compute_hausdorff_distance(
        *(torch.from_numpy(each[0])[None, None].double() for each in (pred, ref)),
        include_background=True, percentile=95,
    ).item()  # fmt: skip
    assert HausdorffDistance95()(pred, ref, UNIT) == HausdorffDistance95()(ref, pred, UNIT)
    assert (HausdorffDistance95()(pred, ref, UNIT), theirs) == pytest.approx((9.5, 9.5))
    # medpy's: one percentile of all three distances, 9/10 of the way from the second to the third.
    assert np.percentile(to_ref + to_pred, 95) == pytest.approx(9.0)
    # DeepMind's: between the pixels; half of the far one's outline is 9 mm off, half 10.
    outlines = surface_distance.compute_surface_distances(ref[0], pred[0], UNIT[1:])
    assert outlines["distances_pred_to_gt"].tolist() == [0, 0, 0, 0, 9, 9, 10, 10]
    assert surface_distance.compute_robust_hausdorff(outlines, 95) == 10


def test_the_tolerance_forgives_what_is_exactly_that_far() -> None:
    pred, ref = voxels((1, 9, 9), (0, 2, 2)), voxels((1, 9, 9), (0, 2, 5))
    edge_mm = 0.7  # three voxels are 2.1 mm in no binary fraction
    assert SurfaceDice(tolerance_mm=2.1)(pred, ref, (1, 1, edge_mm)) == 1
    assert SurfaceDice(tolerance_mm=2.0999)(pred, ref, (1, 1, edge_mm)) == 0
    assert measure_of(SurfaceDice(tolerance_mm=2.1)).name == "nsd_2.1mm"


def test_volumes_are_signed_and_in_ml() -> None:
    pred, ref = mask((2, 10, 20), np.s_[:1, :, :15]), mask((2, 10, 20), np.s_[:1, :, :5])
    assert VolumeDifference()(pred, ref, (5.0, 2.0, 1.0)) == pytest.approx(100 * 10 / 1000)
    assert VolumeDifference()(ref, pred, (5.0, 2.0, 1.0)) == pytest.approx(-1.0)
    assert RelativeVolumeDifference()(pred, ref, UNIT) == pytest.approx(100 / ((150 + 50) / 2))


def test_the_offset_of_a_ball_from_a_smaller_one_is_the_difference_of_the_radii() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(41) - 20] * 3, indexing="ij"))
    radius = np.sqrt((grid**2).sum(0))
    large, small = radius <= 16, radius <= 12
    assert BoundaryOffset()(large, small, UNIT) == pytest.approx(4, abs=0.15)
    assert BoundaryOffset()(small, large, UNIT) == -BoundaryOffset()(large, small, UNIT)
    moved = np.roll(small, 3, axis=0)  # as far in on one side as out on the other
    assert BoundaryOffset()(moved, small, UNIT) == pytest.approx(0, abs=0.05)
    assert AverageSurfaceDistance()(moved, small, UNIT) > 1


def test_boundary_iou_looks_at_the_shells_alone() -> None:
    pred = mask((1, 20, 20), np.s_[:, 2:18, 2:18])
    ref = mask((1, 20, 20), np.s_[:, 2:18, 3:18])
    # Frames of one pixel, 60 and 58 pixels: of two rows of 16 and 15 and the right column, which
    # lie in both, and the left columns, which meet in the two corners of ref.
    assert BoundaryIoU(width_mm=1)(pred, ref, UNIT) == pytest.approx(
        (15 + 15 + 14) / (60 + 58 - 44)
    )
    assert BoundaryIoU(width_mm=0)(pred, ref, UNIT) == BoundaryIoU(width_mm=1)(pred, ref, UNIT)
    assert BoundaryIoU(width_mm=50)(pred, ref, UNIT) == pytest.approx(IoU()(pred, ref, UNIT))
    assert measure_of(BoundaryIoU(width_mm=2)).name == "boundary_iou_2mm"


def test_cl_dice_forgives_thickness_and_not_a_gap() -> None:
    thin = mask((9, 9, 40), np.s_[4:5, 4:5, 2:38])
    thick = mask((9, 9, 40), np.s_[3:6, 3:6, 1:39])
    half = thin & (np.arange(40) < 20)
    assert ClDice()(thick, thin, UNIT) == pytest.approx(1)
    # All of the short centreline lies in the long one, and 18 of its 36 voxels are found.
    assert ClDice()(half, thin, UNIT) == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert ClDice()(thin[4:5], np.roll(thin, 3, axis=1)[4:5], UNIT) == 0


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_every_metric_follows_the_table_of_empty_masks(metric: Metric) -> None:
    empty, some = np.zeros((4, 5, 6), dtype=bool), mask((4, 5, 6), np.s_[1:3, 1:4, 2:4])
    diagonal_mm = math.hypot(4 * 3.0, 5 * 0.8, 6 * 0.6)
    volume_ml = 12 * 3.0 * 0.8 * 0.6 / 1000
    miss = {
        "hd_mm": diagonal_mm,
        "hd95_mm": diagonal_mm,
        "assd_mm": diagonal_mm,
        "boundary_offset_mm": -diagonal_mm,
        "volume_difference_ml": -volume_ml,
        "volume_difference_relative": -2,
    }.get(measure_of(metric).name, 0)
    assert metric(empty, some, SPACING_MM) == pytest.approx(miss)
    unfounded = [metric(pred, empty, SPACING_MM) for pred in (some, empty)]
    counted = metric.name == "lesion_false_positives"  # a count, which every case has
    assert unfounded == [1, 0] if counted else np.isnan(unfounded).all()


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
@pytest.mark.parametrize("flat", [False, True])
def test_every_metric_is_best_on_itself_and_ignores_empty_space(metric: Metric, flat: bool) -> None:
    pred, ref = blobs(1, shape=(12, 20, 17))
    if flat:  # a 2D image, which stays one
        pred, ref = (part.any(axis=0, keepdims=True) for part in (pred, ref))
    assert metric(ref, ref, SPACING_MM) == (1 if metric.better == "higher" else 0)
    wider = [np.pad(part, [(0, 0) if flat else (2, 3), (2, 3), (1, 4)]) for part in (pred, ref)]
    assert metric(*wider, SPACING_MM) == pytest.approx(metric(pred, ref, SPACING_MM))


def test_a_pair_computes_each_distance_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], MaskPair._distance
    monkeypatch.setattr(MaskPair, "_distance", lambda *a: (calls.append(1), original(*a))[1])
    pair = MaskPair(*blobs(0, shape=(8, 9, 10)), UNIT)
    for metric in (HausdorffDistance(), HausdorffDistance95(), AverageSurfaceDistance()):
        metric.of(pair)
    BoundaryOffset().of(pair)
    SurfaceDice(tolerance_mm=1).of(pair)
    assert len(calls) == 2


@pytest.mark.parametrize("value", [-1, math.inf, math.nan, "2mm"])
def test_a_length_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(InputError, match="tolerance_mm"):
        SurfaceDice(tolerance_mm=value)
    with pytest.raises(InputError, match="width_mm"):
        BoundaryIoU(width_mm=value)
