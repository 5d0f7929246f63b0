"""The semantic task: channels, loss under deep supervision, decoding, scores."""

import numpy as np
import pytest
import torch

from segshift.metrics import Dice, HausdorffDistance95
from segshift.tasks import Semantic


@pytest.fixture
def task():
    return Semantic(structures=("liver", "tumour"), metrics=(Dice(), HausdorffDistance95()))


def test_channels_and_directions(task):
    assert task.channels == 3
    assert task.directions == {"dice": True, "hd95_mm": False}


def test_decoding_is_the_strongest_channel(task):
    activated = torch.tensor([[0.5, 0.1, 0.2], [0.3, 0.8, 0.2], [0.2, 0.1, 0.6]])[:, None, None]
    decoded = task.decode(activated)
    assert decoded.tolist() == [[[0, 1, 2]]]
    assert decoded.dtype == np.uint8


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


def test_scores_name_structure_and_metric(task):
    reference = np.zeros((4, 8, 8), np.uint8)
    reference[1:3, 2:6, 2:6] = 1
    prediction = reference.copy()
    prediction[1, 2:6, 2:6] = 2
    scores = {
        (s.structure, s.metric): s.value for s in task.scores(prediction, reference, (2, 1, 1))
    }
    assert set(scores) == {(s, m) for s in ("liver", "tumour") for m in ("dice", "hd95_mm")}
    assert scores["liver", "dice"] == pytest.approx(2 * 16 / (32 + 16))
    assert scores["tumour", "dice"] == 0  # invented
