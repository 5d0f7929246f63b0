"""Tasks: channels, targets, loss under deep supervision, decoding, masks, scores."""

import numpy as np
import pytest
import torch

from segshift.errors import InputError
from segshift.losses import IGNORE
from segshift.metrics import Dice, HausdorffDistance95, Measure, VolumeDifference
from segshift.tasks import Regions, Semantic

BOTH = (True, True)


@pytest.fixture
def task():
    return Semantic(structures=("liver", "tumour"), metrics=(Dice(), HausdorffDistance95()))


def test_channels_and_directions(task):
    assert task.channels == 3
    alarms = [f"false_alarm{unit}" for unit in ("", "_ml", "_mm2", "_voxels", "_px")]
    assert list(task.measures) == ["dice", "hd95_mm", "hd95_px", *alarms]
    assert task.measures["hd95_mm"] == Measure("hd95_mm", "mm", "lower")
    assert task.measures["hd95_px"] == Measure("hd95_px", "px", "lower")


def test_decoding_is_the_strongest_channel(task):
    activated = torch.tensor([[0.5, 0.1, 0.2], [0.3, 0.8, 0.2], [0.2, 0.1, 0.6]])[:, None, None]
    decoded = task.decode(activated)
    assert decoded.tolist() == [[[0, 1, 2]]]
    assert decoded.dtype == np.uint8


def test_of_equally_strong_channels_the_first_counts(task):
    activated = torch.tensor([[0.4, 0.1], [0.4, 0.45], [0.2, 0.45]])[:, None, None]
    assert task.decode(activated).tolist() == [[[0, 1]]]


def test_deep_supervision_weighs_coarse_outputs_less(task):
    label = torch.zeros(1, 1, 4, 4, dtype=torch.int64)
    label[..., 2:, 2:] = 2
    seen = []

    def loss(logits, target):
        seen.append(target)
        return logits.mean()

    outputs = [torch.full((1, 3, 4, 4), 1.0), torch.full((1, 3, 2, 2), 4.0)]
    assert float(task.loss(loss, outputs, {"label": label})) == pytest.approx((1 + 0.5 * 4) / 1.5)
    assert seen[1].tolist() == [[[[0, 0], [0, 2]]]]
    assert float(task.loss(loss, outputs[0], {"label": label})) == 1


def test_deep_supervision_leaves_out_an_output_under_which_nobody_annotated_a_voxel(task, regions):
    label = torch.full((2, 1, 8, 8), IGNORE)
    label[0, :, 4, 2] = 1  # under a voxel of the second output, but not of the third
    outputs = [torch.full((2, 3, edge, edge), 0.5 + edge, requires_grad=True) for edge in (8, 4, 2)]
    for one in (task, regions):
        value = one.loss(lambda logits, target: logits.mean(), outputs, {"label": label})
        assert float(value.detach()) == pytest.approx((8.5 + 0.5 * 4.5) / 1.5)
        slopes = torch.autograd.grad(value, outputs)
        assert [float(s.sum()) for s in slopes] == pytest.approx([1 / 1.5, 0.5 / 1.5, 0])
        nothing = {"label": torch.full_like(label, IGNORE)}
        assert one.loss(lambda logits, target: 0 * logits.mean(), outputs, nothing) == 0


def test_scores_name_structure_and_metric(task):
    reference = np.zeros((4, 8, 8), np.uint8)
    reference[1:3, 2:6, 2:6] = 1
    prediction = reference.copy()
    prediction[1, 2:6, 2:6] = 2
    scores = {
        (s.structure, s.metric): s.value
        for s in task.scores(prediction, reference, (2, 1, 1), annotated=BOTH)
    }
    measured = ("dice", "hd95_mm", "false_alarm", "false_alarm_ml")
    assert set(scores) == {(s, m) for s in ("liver", "tumour") for m in measured}
    assert scores["liver", "dice"] == pytest.approx(2 * 16 / (32 + 16))
    assert np.isnan(scores["liver", "false_alarm"])
    assert np.isnan(scores["tumour", "dice"])
    assert scores["tumour", "false_alarm"] == 1  # invented
    assert scores["tumour", "false_alarm_ml"] == pytest.approx(16 * 2 / 1000)


def test_scores_say_whether_the_reference_has_the_structure(task):
    reference = np.zeros((4, 8, 8), np.uint8)
    reference[1:3, 2:6, 2:6] = 1
    scores = list(task.scores(reference * 0, reference, (2, 1, 1), annotated=BOTH))
    assert {s.reference_empty for s in scores if s.structure == "liver"} == {False}
    assert {s.reference_empty for s in scores if s.structure == "tumour"} == {True}


def test_what_somebody_drew_is_judged_as_a_prediction(task, regions):
    drawn = np.array([[[0, 1, 2, 255]]], np.uint8)
    for one, expected in (
        (task, [[0, 1, 0, 0], [0, 0, 1, 0]]),
        (regions, [[0, 1, 1, 0], [0, 0, 1, 0]]),
    ):
        masks = [mask[0, 0].astype(int).tolist() for mask in one.predicted(one.drawn(drawn))]
        assert masks == expected


def test_ignored_voxels_are_scored_for_no_structure(task, regions):
    reference = np.zeros((4, 8, 8), np.int64)
    reference[1:3, 2:6, 2:6] = 1
    reference[:, 6:] = IGNORE
    for one, code in ((task, 1), (regions, 0b01)):
        perfect = np.where(reference == 1, code, 0)
        invented = np.where(reference == IGNORE, code, perfect)
        expected = list(one.scores(perfect, reference, (1, 1, 1), annotated=BOTH))
        assert str(list(one.scores(invented, reference, (1, 1, 1), annotated=BOTH))) == str(
            expected
        )
        assert expected[0].value == 1


@pytest.fixture
def regions():
    return Regions(
        structures=("liver", "tumour"),
        regions={"organ": ["liver", "tumour"], "tumour": ["tumour"]},
        metrics=(Dice(),),
    )


def test_regions_are_unions_of_structures_in_the_loss_and_in_the_masks(regions):
    label = torch.tensor([[0, 1], [2, IGNORE]])
    seen = []

    def loss(logits, target):
        seen.append(target)
        return logits.mean()

    logits = [torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 1, 1)]
    regions.loss(loss, logits, {"label": label[None, None]})
    assert seen[0].tolist() == [[[[0, 1], [1, IGNORE]], [[0, 0], [1, IGNORE]]]]
    assert seen[0].dtype == torch.int8
    assert seen[1].shape == (1, 2, 1, 1)
    organ, tumour = regions.referred(label.numpy())
    assert organ.tolist() == [[False, True], [True, False]]
    assert tumour.tolist() == [[False, False], [True, False]]


def test_regions_overlap_in_a_prediction(regions):
    assert regions.channels == 2
    assert tuple(regions.structures) == ("organ", "tumour")
    activated = torch.tensor([[0.9, 0.9, 0.1, 0.2], [0.8, 0.3, 0.6, 0.4]])[:, None, None]
    decoded = regions.decode(activated)
    assert decoded.tolist() == [[[0b11, 0b01, 0b10, 0]]]
    organ, tumour = regions.predicted(decoded)
    assert organ.tolist() == [[[True, True, False, False]]]
    assert tumour.tolist() == [[[True, False, True, False]]]
    reference = np.array([[[2, 1, 0, 2]]])
    scores = {
        s.structure: s.value
        for s in regions.scores(decoded, reference, (1, 1, 1), annotated=BOTH)
        if s.metric == "dice"
    }
    assert scores == {"organ": pytest.approx(2 * 2 / (2 + 3)), "tumour": pytest.approx(2 / 4)}


@pytest.mark.parametrize(("edge", "coarse"), [(40, [20, 10, 5, 3]), (97, [49, 25, 13, 7])])
def test_coarse_labels_are_those_under_the_coarse_voxels(task, edge, coarse):
    """Also where the size does not divide and the network rounded up."""
    label = torch.arange(edge).view(1, 1, edge, 1).expand(1, 1, edge, edge)
    seen = []
    outputs = [torch.zeros(1, 3, n, n) for n in [edge, *coarse]]
    task.loss(lambda z, y: seen.append(y) or z.mean(), outputs, {"label": label})
    for level, (target, size) in enumerate(zip(seen, [edge, *coarse], strict=True)):
        assert target[0, 0, :, 0].tolist() == [2**level * i for i in range(size)]


@pytest.mark.parametrize(
    "wrong", [{}, {"organ": []}, {"organ": ["spleen"]}, 5, {"organ": 5}, {"organ": "liver"}]
)
def test_regions_of_unknown_structures_are_refused(wrong):
    with pytest.raises(InputError, match=r"task\.regions.*\['liver', 'tumour'\]"):
        Regions(structures=("liver", "tumour"), regions=wrong, metrics=(Dice(),))


def test_a_structure_that_is_not_annotated_is_not_scored(task, regions):
    reference = np.zeros((4, 8, 8), np.int64)
    for one, known in ((task, {"liver"}), (regions, set())):
        rows = one.scores(reference, reference, (1, 1, 1), annotated=(True, False))
        assert {score.structure for score in rows} == known
    rows = regions.scores(reference, reference, (1, 1, 1), annotated=(False, True))
    assert {score.structure for score in rows} == {"tumour"}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([], "name at least one"),
        ([Dice(), HausdorffDistance95(), Dice()], "two are called dice"),
        ([VolumeDifference(), Dice()], "volume_difference_ml comes first"),
    ],
)
def test_metrics_that_cannot_choose_or_be_told_apart_are_refused(metrics, message):
    with pytest.raises(InputError, match=message):
        Semantic(structures=("liver",), metrics=metrics)
    with pytest.raises(InputError, match=message):
        Regions(structures=("liver",), regions={"organ": ["liver"]}, metrics=metrics)


def test_a_signed_metric_may_come_later():
    task = Semantic(structures=("liver",), metrics=(Dice(), VolumeDifference()))
    assert list(task.measures)[:2] == ["dice", "volume_difference_ml"]
