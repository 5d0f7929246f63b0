"""The module on whole cases: labels on their own grid, and tallies of their probabilities."""

import csv
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from segshift.callbacks import WriteCases, merged
from segshift.errors import InputError
from segshift.inference import PredictionOptions
from segshift.losses import IGNORE
from segshift.metrics import Dice
from segshift.module import TALLIED, SegmentationModule
from segshift.plan import View
from segshift.tasks import Regions, Semantic

SHAPE = (6, 8, 10)
BOX = ((1, 5), (0, 8), (2, 10))
SEMANTIC = Semantic(structures=["one", "two"], metrics=[Dice()])
REGIONS = Regions(
    structures=["one", "two"], regions={"both": ["one", "two"], "two": ["two"]}, metrics=[Dice()]
)


class Logits(nn.Module):
    """The image's channels are the logits."""

    def forward(self, image):
        return image


def module_for(task, **options):
    return SegmentationModule(
        network=Logits(), task=task, loss=None, augment=None, optimizer=None, schedule=None,
        schedule_interval="step", view=View((4, 8, 8)), precision="32-true",
        prediction=PredictionOptions(**options),
    )  # fmt: skip


@pytest.fixture
def item():
    torch.manual_seed(0)
    label = torch.randint(0, 3, (1, *SHAPE), dtype=torch.int16)
    label[:, 0] = IGNORE
    return {
        "image": torch.randn(3, 4, 8, 8), "label": label, "shape": SHAPE, "box": BOX,
        "spacing": (1.0, 1.0, 1.0), "annotated": [True, True], "counted": True,
        "case": "c", "patient": "p", "site": "here",
    }  # fmt: skip


def test_labels_are_the_strongest_channel_in_the_box_and_background_outside(item, monkeypatch):
    inside = item["image"].argmax(0).numpy()
    monkeypatch.setattr("segshift.inference.options.LEAST_GB", 0)
    for budget_gb in (3.0, 10e-6):
        labels = module_for(SEMANTIC, budget_gb=budget_gb).predict(item).labels
        assert labels.shape == SHAPE
        np.testing.assert_array_equal(labels[1:5, :, 2:], inside)
        assert labels.sum() == inside.sum()


def test_tallies_compare_every_counted_voxel_once_however_thin_the_slabs(item, monkeypatch):
    probability = np.zeros((3, *SHAPE))
    probability[0] = 1
    probability[:, 1:5, :, 2:] = item["image"].double().softmax(0)
    label = item["label"][0].numpy()
    counted = label != IGNORE
    monkeypatch.setattr("segshift.inference.options.LEAST_GB", 0)
    for budget_gb in (3.0, 10e-6):
        tallies = module_for(SEMANTIC, budget_gb=budget_gb).predict(item, tallied=True).tallies
        for index, tally in enumerate(tallies, start=1):
            truth = (label == index)[counted]
            expected = np.mean((probability[index][counted] - truth) ** 2)
            assert tally.reliability.voxels == counted.sum()
            assert tally.reliability.brier == pytest.approx(expected, rel=1e-5)


def test_uncertainty_is_held_against_the_errors_of_each_structure(item):
    """Sure where it is right, in doubt where `one` is taken for background."""
    label = torch.zeros(1, *SHAPE, dtype=torch.int16)
    label[:, 2, 3, 2:] = label[:, 2, 4, 2:] = 1
    image = torch.zeros(3, 4, 8, 8)
    image[0] = 9
    image[0, 1, 3] = 0.1
    image[:2, 1, 4] = torch.tensor([0.0, 9.0])[:, None]  # here it is sure of `one`, and right
    tallies = module_for(SEMANTIC).predict({**item, "image": image, "label": label}, tallied=True)
    one, two = (tally.detection.auroc for tally in tallies.tallies)
    assert one == 1
    assert math.isnan(two)  # never wrong


def test_regions_are_tallied_as_the_unions_that_they_are(item):
    item["image"] = item["image"][:2]
    tallies = module_for(REGIONS).predict(item, tallied=True).tallies
    probability = np.zeros((2, *SHAPE))
    probability[:, 1:5, :, 2:] = item["image"].double().sigmoid()
    label = item["label"][0].numpy()
    counted = label != IGNORE
    for index, tally in enumerate(tallies):
        truth = (label > index)[counted]
        expected = np.mean((probability[index][counted] - truth) ** 2)
        assert tally.reliability.brier == pytest.approx(expected, rel=1e-5)


def test_validation_pays_for_no_tallies(item):
    assert module_for(SEMANTIC).predict(item).tallies == ()


def test_a_structure_that_is_not_annotated_has_no_rows_at_all(item):
    outputs = module_for(SEMANTIC).test_step({**item, "annotated": [True, False]}, 0)
    assert {score.structure for score in outputs["scores"]} == {"one"}
    assert {score.metric for score in outputs["scores"]} == {"dice", *TALLIED}
    assert list(outputs["tallies"]) == ["one"]


def test_mirrors_are_an_option(item):
    plain, mirrored = (
        module_for(SEMANTIC, mirror=axes).predict(item).labels for axes in ((), (0, 1, 2))
    )
    np.testing.assert_array_equal(plain, mirrored)  # a network of one voxel sees no mirror
    (slab,) = module_for(SEMANTIC, mirror=(0, 1, 2)).slabs(item)
    assert slab.doubt is None  # nobody reads it, so nobody pays for it


def test_the_bins_of_all_cases_of_a_site_are_written(item, tmp_path):
    module = module_for(SEMANTIC)
    writer = WriteCases(tmp_path, run="r", sets=["in_domain"], task=SEMANTIC)
    trainer = SimpleNamespace(global_rank=0, is_global_zero=True)
    for case in ("c", "d"):
        one = {**item, "case": case}
        writer.on_test_batch_end(trainer, module, module.test_step(one, 0), one, 0)
    writer.on_test_end(trainer, module)
    with (tmp_path / "reliability.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == [
        "set", "site", "structure", "low", "high", "voxels", "confidence", "accuracy"
    ]  # fmt: skip
    assert {(line["set"], line["site"]) for line in lines} == {("in_domain", "here")}
    of_one = [line for line in lines if line["structure"] == "one"]
    assert len(of_one) == 15
    assert sum(int(line["voxels"]) for line in of_one) == 2 * 5 * 8 * 10
    assert float(of_one[0]["low"]) == 0.0
    assert float(of_one[-1]["high"]) == 1.0


def test_tallies_of_several_ranks_are_added(item):
    (tally, _) = module_for(SEMANTIC).predict(item, tallied=True).tallies
    place, other = ("a", "b", "c"), ("a", "b", "d")
    whole = merged(
        [{place: tally.reliability}, {place: tally.reliability, other: tally.reliability}]
    )
    assert whole[place].voxels == 2 * whole[other].voxels == 2 * tally.reliability.voxels


@pytest.mark.parametrize(
    "wrong",
    [{"overlap": 5}, {"window_batch": 0}, {"budget_gb": 0.001}, {"budget_gb": float("inf")}],
)
def test_options_that_predict_nothing_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        PredictionOptions(**wrong)
