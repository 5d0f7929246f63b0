"""The reference alone decides who is in a mean: no change of predictions changes any n."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segshift.metrics import (
    AverageSurfaceDistance,
    BoundaryIoU,
    BoundaryOffset,
    ClDice,
    Dice,
    ErrorDetection,
    FalseAlarm,
    FalseAlarmVolume,
    HausdorffDistance,
    HausdorffDistance95,
    IoU,
    LesionF1,
    LesionFalsePositives,
    LesionSensitivity,
    MaskPair,
    Precision,
    RelativeVolumeDifference,
    Reliability,
    SelectionScore,
    Sensitivity,
    SurfaceDice,
    VolumeDifference,
    measured_by,
)
from segshift.results import (
    failure_profile,
    gap_table,
    pair,
    site_table,
    summarise,
    train_test_matrix,
)
from segshift.results.curves import shift_curves
from segshift.results.rows import COLUMNS
from segshift.tasks import TALLIED, Semantic, Tally
from segshift.units import Units

SMALL = {"size": "small", "least": 0.0, "below": 9.0, "bounds": "mm2"}
EVERY = (
    Dice(),
    IoU(),
    Sensitivity(),
    Precision(),
    HausdorffDistance(),
    HausdorffDistance95(),
    AverageSurfaceDistance(),
    BoundaryOffset(),
    SurfaceDice(tolerance_mm=1),
    BoundaryIoU(width_mm=1),
    VolumeDifference(),
    RelativeVolumeDifference(),
    ClDice(),
    LesionF1(),
    LesionF1(**SMALL),
    LesionSensitivity(),
    LesionSensitivity(**SMALL),
    LesionFalsePositives(),
    LesionFalsePositives(**SMALL),
    FalseAlarm(),
    FalseAlarmVolume(),
    SelectionScore(),
)
MEASURES = measured_by(EVERY, [Units(flat=True)])
UNIT = (1.0, 1.0, 1.0)
SHAPE = (1, 5, 6)
masks = arrays(np.bool_, SHAPE, elements=st.booleans(), fill=st.just(False))


@settings(deadline=None, max_examples=60)
@given(masks, masks, masks)
def test_whether_a_metric_is_of_a_case_is_up_to_its_reference(ref, one, other):
    for metric in EVERY:
        values = [metric.of(MaskPair(pred, ref, UNIT)) for pred in (one, other)]
        assert math.isnan(values[0]) == math.isnan(values[1]), metric.name


@pytest.mark.parametrize("metric", EVERY, ids=lambda metric: metric.name)
def test_every_case_is_judged_by_overlap_or_as_a_false_alarm(metric):
    counted = metric.name.startswith(("lesion_false_positives", "selection_score"))
    ref = np.zeros(SHAPE, bool)
    ref[0, 1, 1] = True
    judged = {
        "of a structure": not math.isnan(metric.of(MaskPair(~ref, ref, UNIT))),
        "of none": not math.isnan(metric.of(MaskPair(ref, ref & False, UNIT))),
    }
    alarm = metric.name.startswith("false_alarm")
    assert judged == {"of a structure": counted or not alarm, "of none": counted or alarm}


def test_the_selection_score_is_dice_or_whether_nothing_is_predicted():
    ref = np.zeros(SHAPE, bool)
    ref[0, 1, :4] = True
    half, nothing = ref.copy(), ref & False
    half[0, 1, :2] = False
    score = SelectionScore()
    assert score(half, ref, UNIT) == pytest.approx(2 * 2 / 6)
    assert score(nothing, ref, UNIT) == 0
    assert score(half, nothing, UNIT) == 0
    assert score(nothing, nothing, UNIT) == 1


def measured(predictions_seed: int) -> pd.DataFrame:
    """Rows of a study: two trainings, two sites, a corruption; predictions differ by the seed."""
    references = np.random.default_rng(0)
    cases = {f"{site}{n}": (site, _masks(references)) for site in ("A", "B") for n in range(16)}
    random, rows = np.random.default_rng(predictions_seed), []
    task = Semantic(structures=("liver", "lesion"), metrics=EVERY)
    for train in ("A", "B"):
        for case, (site, reference) in cases.items():
            set_ = "in_domain" if site == train else f"site-{site}"
            for corruption, severity in (("", 0), ("noise", 1), ("noise", 3)):
                prediction = _masks(random)
                for score in task.scores(prediction, reference, UNIT, annotated=(True, True)):
                    who = (train, set_, corruption, severity, case, case, site, "", False)
                    rows.append((*who, *score))
    line = {"part": "single_source", "variant": "", "seed": "0", "fold": "0"}
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.assign(train='["' + table["run"] + '"]', **line)


def _masks(random: np.random.Generator) -> np.ndarray:
    """Class indices; now and then a structure is missing."""
    labels = np.zeros(SHAPE, np.uint8)
    for index in (1, 2):
        if random.random() < 0.6:
            labels[0, random.integers(5), : random.integers(1, 6)] = index
    return labels


@pytest.mark.parametrize(("wrong", "auroc"), [([], 1.0), ([0, 1, 2], 0.0), ([2], 1.0)])
def test_probabilities_are_judged_in_every_case_whatever_is_predicted(wrong, auroc):
    """An AUROC needs a wrong and a right voxel, and leaving a case out is not for a prediction."""
    reliability, detection = Reliability(), ErrorDetection()
    reliability.add(np.array([0.1, 0.2, 0.9]), np.array([False, False, True]))
    detection.add(np.array([0.1, 0.2, 0.3]), np.isin([0, 1, 2], wrong))
    scores = Tally(reliability, detection).scores("liver", reference_empty=False)
    values = {score.metric: score.value for score in scores}
    assert set(values) == {measure.name for measure in TALLIED}
    assert not any(map(math.isnan, values.values()))
    assert values["uncertainty_auroc"] == auroc


def test_no_change_of_predictions_changes_an_n():
    one, other = measured(1), measured(2)
    assert not one["value"].equals(other["value"])
    counts = ("n", "patients", "paired", "tested", "unpaired", "seeds", "failed_of")

    def counted(table: pd.DataFrame) -> pd.DataFrame:
        names = [c for c in table if c in counts or str(c).endswith("_n")]
        assert len(table)
        assert names
        return table[[c for c in table if c in ("set", "site", "metric", "structure")] + names]

    for table in (
        lambda rows: site_table(rows[(rows["run"] == "A") & (rows["corruption"] == "")]),
        lambda rows: shift_curves(rows[rows["run"] == "A"], calibrated={}),
        lambda rows: gap_table(rows, MEASURES),
        train_test_matrix,
        lambda rows: failure_profile(rows, by=["run", "set", "site", "corruption", "severity"]),
    ):
        pd.testing.assert_frame_equal(counted(table(one)), counted(table(other)))
    for metric in MEASURES:
        pairs = [
            pair({"A": rows[rows["run"] == "A"], "again": rows[rows["run"] == "A"]}, metric=metric)
            for rows in (one, other)
        ]
        assert pairs[0].values.index.equals(pairs[1].values.index), metric
        assert pairs[0].left_out == pairs[1].left_out
    summaries = [
        summarise(rows[(rows["run"] == "A") & (rows["corruption"] == "")], MEASURES)
        for rows in (one, other)
    ]
    of_n = [{k: v for k, v in each.items() if k.endswith("_n")} for each in summaries]
    assert of_n[0] == of_n[1] != {}
    assert set(summaries[0]) == set(summaries[1])
