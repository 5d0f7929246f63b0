"""The module on whole cases: labels on their own grid, and tallies of their probabilities."""

import csv
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from segshift.callbacks import WriteCases, merged
from segshift.cohort import Annotation
from segshift.errors import InputError
from segshift.inference import PredictionOptions
from segshift.losses import IGNORE
from segshift.metrics import Dice
from segshift.module import SegmentationModule
from segshift.plan import View
from segshift.postprocessing import Rule
from segshift.splits import SetKey
from segshift.tasks import TALLIED, Regions, Semantic

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
        "case": "c", "patient": "p", "site": "here", "raters": {},
        "annotation": Annotation(values=(1, 2)),
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
    # A row would be missing by what was predicted; no wrong voxel was overlooked.
    scores = {s.metric: s.value for s in tallies.tallies[1].scores("two", reference_empty=True)}
    assert scores["uncertainty_auroc"] == 1


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
    tallied = {measure.name for measure in TALLIED}
    measured = {"dice", "false_alarm", "false_alarm_ml"}
    assert {score.metric for score in outputs["scores"]} == {*measured, *tallied}
    assert list(outputs["tallies"]) == ["one"]


def test_a_case_is_scored_with_and_without_post_processing_in_one_pass(item):
    """The rule removes all of structure two; what the network made of it stays in the rows."""
    module = module_for(SEMANTIC)
    assert module.test_step(item, 0)["postprocessed"] == []  # without a rule
    rule = Rule(rule="min_volume_mm3", value=1e9, score_before=0.1, score_after=0.2, patients=9)
    module.rules = {"two": (rule,)}
    outputs = module.test_step(item, 0)
    before, after = (
        {(s.structure, s.metric): s.value for s in outputs[kind]}
        for kind in ("scores", "postprocessed")
    )
    assert before["two", "dice"] > 0
    assert after["two", "dice"] == 0
    assert after["one", "dice"] == before["one", "dice"]
    assert set(after) == {key for key in before if key[1] in SEMANTIC.measures}
    assert (outputs["prediction"] == 2).any()  # pictures are of what the means are of


def test_other_people_are_measured_against_the_same_reference(item):
    reference = item["label"][0].numpy()
    same = torch.from_numpy(np.where(reference == IGNORE, 255, reference).astype(np.uint8))
    nothing = torch.zeros_like(same)
    item["raters"] = {"label_2": same, "label_3": nothing}
    raters = module_for(SEMANTIC).test_step(item, 0)["raters"]
    dice = {
        name: [s.value for s in scores if s.metric == "dice"] for name, scores in raters.items()
    }
    assert dice == {"label_2": [1, 1], "label_3": [0, 0]}


def test_of_a_consensus_the_first_person_is_the_reference_of_the_others(item):
    first = torch.zeros(SHAPE, dtype=torch.uint8)
    first[1, 2, 3:5] = 1
    second = torch.zeros_like(first)
    second[1, 2, 4:6] = 1
    item["raters"] = {"label": first, "label_2": second}
    paths = (Path("a"), Path("b"))
    item["annotation"] = Annotation(
        label=paths[0], values=(1, 2), raters=paths[1:], consensus="majority"
    )
    (told,) = module_for(SEMANTIC).test_step(item, 0)["raters"].items()
    assert told[0] == "label_2"
    assert next(s.value for s in told[1] if (s.structure, s.metric) == ("one", "dice")) == 0.5


def test_a_structure_in_a_file_of_its_own_has_one_drawing_and_no_agreement(item):
    item["raters"] = {"label_2": torch.ones(SHAPE, dtype=torch.uint8)}
    item["annotation"] = Annotation(
        label=Path("a"), values=(1, 2), files=(None, Path("two")), rater_files={}
    )
    scores = module_for(SEMANTIC).test_step(item, 0)["raters"]["label_2"]
    assert {score.structure for score in scores} == {"one"}


def test_checkpoints_are_chosen_by_a_score_that_every_case_has(item, monkeypatch):
    """Patient p has structure one in two cases, q has no structure and gets a false alarm."""
    module, logged = module_for(SEMANTIC), {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: value}))
    label = torch.zeros(1, *SHAPE, dtype=torch.int16)
    label[:, 2, 3, 2:] = 1

    def case(patient: str, right: bool, there: bool) -> dict:
        image = torch.zeros(3, 4, 8, 8)
        image[0] = 9
        if right:
            image[:2, 1, 3] = torch.tensor([0.0, 9.0])[:, None]
        return {**item, "patient": patient, "image": image, "label": label * there}

    for one in (case("p", True, True), case("p", False, True), case("q", True, False)):
        module.validation_step(one, 0)
    module.on_validation_epoch_end()
    # One: p (1 + 0) / 2, q 0 for its false alarm. Two: nobody has it, nobody is told to.
    assert logged["val/selection_score"] == pytest.approx(((0.5 + 0) / 2 + 1) / 2)
    assert logged["val/dice"] == pytest.approx(0.5)  # of p alone
    assert logged["val/false_alarm"] == pytest.approx((1 + 0) / 2)


def test_mirrors_are_an_option(item):
    plain, mirrored = (
        module_for(SEMANTIC, mirror=axes).predict(item).labels for axes in ((), (0, 1, 2))
    )
    np.testing.assert_array_equal(plain, mirrored)  # a network of one voxel sees no mirror
    (slab,) = module_for(SEMANTIC, mirror=(0, 1, 2)).slabs(item)
    assert slab.doubt is None  # nobody reads it, so nobody pays for it


def test_the_bins_of_all_cases_of_a_site_are_written(item, tmp_path):
    module = module_for(SEMANTIC)
    writer = WriteCases(tmp_path, run="r", sets=[SetKey("in_domain")], task=SEMANTIC)
    trainer = SimpleNamespace(global_rank=0, is_global_zero=True)
    for case in ("c", "d"):
        one = {**item, "case": case}
        writer.on_test_batch_end(trainer, module, module.test_step(one, 0), one, 0)
    writer.on_test_end(trainer, module)
    with (tmp_path / "reliability.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == [
        "set", "corruption", "severity", "site", "structure",
        "low", "high", "voxels", "confidence", "accuracy",
    ]  # fmt: skip
    assert {(line["set"], line["site"]) for line in lines} == {("in_domain", "here")}
    of_one = [line for line in lines if line["structure"] == "one"]
    assert len(of_one) == 15
    assert sum(int(line["voxels"]) for line in of_one) == 2 * 5 * 8 * 10
    assert float(of_one[0]["low"]) == 0.0
    assert float(of_one[-1]["high"]) == 1.0


def test_tallies_of_several_ranks_are_added(item):
    (tally, _) = module_for(SEMANTIC).predict(item, tallied=True).tallies
    place, other = (SetKey("a"), "b", "c"), (SetKey("a"), "b", "d")
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
