"""Whole runs in this process: every view and loss trains and leaves behind what is promised."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import TINY_TRAINING, composed, split_options
from PIL import Image
from scipy import ndimage
from test_conf import LOSSES, MODELS, SPLITS, chosen

from segshift import build, evaluation, postprocessing, run
from segshift.cohort import Annotation, Case, write_manifest
from segshift.cohort.images import read_label
from segshift.errors import InputError, TrainingDivergedError
from segshift.losses import WeightedSum
from segshift.metrics import Dice
from segshift.module import SegmentationModule
from segshift.prediction import predict
from segshift.results import of_network, read_measures, read_rows, summarise
from segshift.tasks import TALLIED, Semantic

# Every model, loss and split at least once; test_conf builds every loss with every view.
CHOICES = MODELS, LOSSES, SPLITS
TRAINED = [tuple(each[i % len(each)] for each in CHOICES) for i in range(max(map(len, CHOICES)))]


def trained(folder: Path, *overrides: str) -> Path:
    run.train(composed(*TINY_TRAINING, *overrides), folder, command="test", choices={"loss": "x"})
    return folder


@pytest.mark.parametrize(("model", "loss", "split"), TRAINED)
def test_every_model_and_loss_trains_and_is_tested(
    model, loss, split, phantom, workplace, tmp_path, request
):
    drawn = TRAINED.index((model, loss, split)) < len(SPLITS)  # a page for every split
    if not drawn:
        request.getfixturevalue("no_page")
    folder = trained(
        tmp_path, *chosen(model, loss), *split_options(split, "phantom", workplace), *phantom,
        "task.metrics=${dice_only}",
        "+dice_only=[{_target_: segshift.metrics.Dice}]",
    )  # fmt: skip
    sides = json.loads((folder / "split.json").read_text())
    rows = read_rows(folder / "rows.csv")
    for name in sides.keys() - {"train", "val"}:
        assert sorted(rows[rows["set"] == name]["case"].unique()) == sorted(sides[name])
    assert rows["structure"].nunique() == 3
    assert (folder / "report.html").is_file() == drawn


class TestWhatARunLeavesBehind:
    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, phantom, tmp_path_factory):
        return trained(
            tmp_path_factory.mktemp("runs") / "mine" / "now", *phantom, "split=leave_site_out",
            "trainer.epochs=2", "trainer.steps_per_epoch=6",
        )  # fmt: skip

    def test_files(self, folder):
        names = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        assert names >= {
            "config.yaml", "split.json", "plan.json", "environment.json", "rows.csv",
            "summary.json", "report.html", "metrics.csv", "checkpoints/best.ckpt",
            "checkpoints/last.ckpt", "figures/sites.png", "figures/loss.png",
            "figures/validation.png", "cases.csv", "reliability.csv", "postprocessing.json",
            "network.json", "metrics.json",
        }  # fmt: skip

    def test_rows_are_the_only_truth(self, folder):
        rows = read_rows(folder / "rows.csv")
        summary = json.loads((folder / "summary.json").read_text())
        measures = read_measures(folder)
        task = build.load(folder).module.task
        declared = [*task.measures.values(), *TALLIED]  # in every unit that a case may have
        measured = set(rows["metric"])
        assert list(measures.values()) == [one for one in declared if one.name in measured]
        assert {"hd95_mm", "false_alarm_ml"} <= measured == set(measures)
        derived = summarise(of_network(rows), measures)
        assert {key: summary[key] for key in derived} == derived
        assert set(rows["run"]) == {"mine/now"}
        assert {"in_domain", "site-beta", "site-gamma", "site-delta"} == set(rows["set"])
        assert summary["selection"] == "source_val"
        assert "test/gap/dice" in summary
        assert 0 < summary["time/step_s"] < summary["time/train_s"] / 10

    def test_a_checkpoint_is_plain_data(self, folder):
        """Hard fact 5: nothing pickled, so that today's torch loads it without trust."""
        content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert content["segshift"]["config"]["seed"] == 0

    def test_a_checkpoint_loads_without_any_yaml(self, folder, monkeypatch):
        monkeypatch.setattr(build, "conf_folder", lambda: Path("/nowhere"))
        loaded = build.load(folder)
        assert loaded.plan == build.plan_from_dict(json.loads((folder / "plan.json").read_text()))
        sides = json.loads((folder / "split.json").read_text())
        assert loaded.patients == set(sides["train"]) | set(sides["val"])

    def test_the_config_says_all_and_the_environment_the_rest(self, folder):
        text = (folder / "config.yaml").read_text()
        assert "${" not in text
        environment = json.loads((folder / "environment.json").read_text())
        assert environment["packages"]["torch"]
        assert len(environment["cohort_sha256"]) == 64

    def test_learning_curves(self, folder):
        with (folder / "metrics.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert any(line["train/loss"] for line in lines)
        assert sum(bool(line["val/dice"]) for line in lines) == 2

    def test_another_cohort_is_evaluated_from_the_checkpoint_alone(self, folder, phantom, tmp_path):
        """The held-out sites again, through evaluate.py's function: the same rows."""
        config = composed("data=phantom", *phantom, f"checkpoint={folder}", job="evaluate")
        evaluation.evaluate(config, tmp_path / "again", command="test", choices={})
        first = read_rows(folder / "rows.csv").set_index(["set", "case", "structure", "metric"])
        second = read_rows(tmp_path / "again" / "rows.csv")
        assert set(second["site"]) == {"alpha", "beta", "gamma", "delta"}
        seen = build.load(folder).patients
        assert not set(second["patient"]) & seen
        shared = second[second["set"].isin(["site-beta", "site-gamma", "site-delta"])]
        again = shared.set_index(["set", "case", "structure", "metric"])["value"]
        np.testing.assert_array_equal(first.loc[again.index, "value"], again)
        # Whom it was chosen on is no less true of these results.
        summary = json.loads((tmp_path / "again" / "summary.json").read_text())
        assert summary["selection"] == "source_val"
        assert "chosen by source_val" in (tmp_path / "again" / "report.html").read_text()

    def test_its_masks_as_files_have_its_own_rows(self, folder, phantom, tmp_path):
        """predict.py, then evaluate.py on what it wrote: every number of a mask, bit by bit."""
        cohort = build.cohort_of(composed("data=phantom", *phantom, job="evaluate"))
        manifest, masks = cohort.folder / "manifest.csv", tmp_path / "masks"
        predict(
            composed(f"checkpoint={folder}", f"input={manifest}", f"output={masks}", job="predict")
        )
        given = (f"predictions={masks}", f"references={manifest}", f"cases={folder / 'cases.csv'}")
        scores = composed(*given, job="evaluate")
        evaluation.evaluate(scores, tmp_path / "scored", command="test", choices={})
        key = ["set", "case", "patient", "site", "structure", "metric"]
        own, again = (
            read_rows(path / "rows.csv").set_index(key)["value"]
            for path in (folder, tmp_path / "scored")
        )
        of_masks = own[~own.index.get_level_values("metric").isin([one.name for one in TALLIED])]
        np.testing.assert_array_equal(of_masks, again.loc[of_masks.index])
        assert len(again) == len(of_masks)
        assert again.nunique() > 10

    def test_a_cohort_that_was_all_learned_from_is_refused(self, folder, phantom):
        config = composed("data=phantom", *phantom, f"checkpoint={folder}", job="evaluate")
        loaded = build.load(folder)
        cohort = build.cohort_of(config)
        seen = tuple(case for case in cohort.cases if case.patient in loaded.patients)
        with pytest.raises(InputError, match="trained or chosen on"):
            build.unseen_sets(config, replace(cohort, cases=seen), loaded)

    def test_a_folder_is_not_used_twice(self, folder, phantom):
        with pytest.raises(InputError, match="holds another run"):
            trained(folder, *phantom)


def test_same_seed_same_weights_and_another_seed_others(phantom, tmp_path, no_page):
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = trained(tmp_path / name, *phantom, "split=random", f"seed={seed}")
        content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append(torch.cat([v.flatten() for v in content["state_dict"].values()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.gpu
def test_a_run_on_a_gpu(phantom, tmp_path):
    folder = trained(tmp_path, *phantom, "trainer.accelerator=gpu", "loss=boundary")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["memory/peak_gpu_gb"] > 0
    assert json.loads((folder / "environment.json").read_text())["gpu"]


def test_without_a_gpu_asking_for_one_is_an_error(phantom, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match="no GPU is here; take trainer=default"):
        trained(tmp_path, *phantom, "trainer.accelerator=gpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match=r"trainer.devices=2, but 1 GPU"):
        trained(tmp_path, *phantom, "trainer=ddp", "trainer.devices=2")


def test_2d_images(tmp_path):
    """PNG in colour, labels 0/128/255: `unet2d` reads them as one-slice volumes."""
    random = np.random.default_rng(0)
    cases = []
    for i in range(8):
        image = random.integers(0, 100, (40, 48, 3)).astype(np.uint8)
        label = np.zeros((40, 48), np.uint8)
        label[8:30, 8:24], label[12:20, 12:20] = 128, 255
        image[label > 0] += 80
        image[label == 255] += 60
        for name, array in (("i", image), ("l", label)):
            Image.fromarray(array).save(tmp_path / f"{name}{i}.png")
        cases.append(
            Case(
                f"c{i}",
                f"p{i}",
                "lab",
                (tmp_path / f"i{i}.png",),
                Annotation(tmp_path / f"l{i}.png", (128, 255)),
            )
        )
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["axon", "myelin"])
    folder = trained(
        tmp_path / "run", "model=unet2d", "split=random", "data=manifest",
        f"data.manifest={tmp_path / 'm.csv'}",
        f"store={tmp_path / 'store'}", "plan.batch=2", "trainer.epochs=2",
        "trainer.steps_per_epoch=150",
        "model.filters=[8,16,16,16,16]", "augment=none",
    )  # fmt: skip
    assert json.loads((folder / "plan.json").read_text())["channels"] == 3
    assert json.loads((folder / "summary.json").read_text())["test/in_domain/dice"] > 0.8


def test_a_resampled_case_is_scored_on_its_own_grid(boxes, tmp_path, no_page):
    folder = trained(
        tmp_path / "run", "split=random", "data=manifest", f"data.manifest={boxes}",
        f"store={tmp_path / 'store'}",
        "plan.spacing_mm=[0.5,1.5,1.5]",
    )  # fmt: skip
    assert json.loads((folder / "plan.json").read_text())["spacing_mm"] == [0.5, 1.5, 1.5]
    slices = sorted((folder / "figures" / "slices" / "in_domain").glob("*.npz"))
    assert np.load(slices[0])["reference"].shape[1:] == (16, 16)  # not 11 x 11


def test_a_loss_that_turns_nan_stops_the_run_and_names_the_last_good_checkpoint(
    phantom, tmp_path, monkeypatch
):
    from segshift.losses import Dice

    calls = iter(range(10**6))
    sound = Dice.forward

    def breaks(self, logits, label):
        return sound(self, logits, label) * (math.nan if next(calls) >= 12 else 1.0)

    monkeypatch.setattr(Dice, "forward", breaks)
    with pytest.raises(TrainingDivergedError, match=r"NaN or infinite.*last\.ckpt") as error:
        trained(tmp_path, *phantom, "loss=dice", "trainer.epochs=3", "trainer.steps_per_epoch=10")
    last = Path(str(error.value).split("checkpoint: ")[1])
    content = torch.load(last, weights_only=True)
    assert content["global_step"] == 10  # the end of the epoch before
    assert all(v.isfinite().all() for v in content["state_dict"].values())


def test_a_score_of_zero_is_a_score_and_no_score_is_none(phantom, tmp_path, no_page, monkeypatch):
    from segshift import module

    for value, expected in ((0.0, 0.0), (math.nan, None)):
        monkeypatch.setattr(module, "mean_of_structure_means", lambda *_, v=value: v)
        folder = trained(tmp_path / str(value), *phantom)
        text = (folder / "summary.json").read_text()
        assert json.loads(text).get("val/selection_score") == expected
        assert "NaN" not in text
        assert "Infinity" not in text


def test_weights_that_turn_nan_stop_the_run_before_they_are_saved(phantom, tmp_path, monkeypatch):
    """An infinite gradient ruins the weights of a step whose loss was finite."""
    from segshift.module import SegmentationModule

    def ruined(self):
        with torch.no_grad():
            next(self.network.parameters()).fill_(math.nan)
        sound(self)

    sound = SegmentationModule.on_validation_start
    monkeypatch.setattr(SegmentationModule, "on_validation_start", ruined)
    with pytest.raises(TrainingDivergedError):
        trained(tmp_path, *phantom)
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 0
    assert all(v.isfinite().all() for v in content["state_dict"].values())


def test_the_last_checkpoint_is_the_last_even_when_validation_gets_worse(
    phantom, tmp_path, monkeypatch, no_page
):
    from segshift import module

    falling = iter([0.9, 0.5, 0.4, 0.3, 0.2, 0.1])
    monkeypatch.setattr(module, "mean_of_structure_means", lambda *_: next(falling))
    trained(tmp_path, *phantom, "trainer.epochs=3")
    for name, step in (("best", 1), ("last", 3)):
        content = torch.load(tmp_path / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert content["global_step"] == step


def test_regions_are_trained_scored_and_drawn(phantom, tmp_path):
    """Overlapping structures by one switch of the task; kidney is a part of the organs."""
    regions = "{organ: [kidney, liver, lesion], kidney: [kidney]}"
    folder = trained(
        tmp_path, *phantom, "task=regions", f"task.regions={regions}", "model.deep_supervision=true"
    )
    rows = read_rows(folder / "rows.csv")
    assert set(rows["structure"]) == {"organ", "kidney"}
    with np.load(next((folder / "figures" / "slices").rglob("*.npz"))) as arrays:
        organ, kidney = arrays["reference"]
    assert kidney.any()
    assert not (kidney & ~organ).any()
    assert build.load(folder).module.task.channels == 2


def test_a_sum_from_the_command_line_is_frozen_into_the_run(
    phantom, tmp_path, no_page, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("loss").mkdir()
    Path("loss/mine.yaml").write_text("_target_: segshift.losses.Focal\ngamma: 1.0\n")
    folder = trained(
        tmp_path / "run", *phantom, "loss=sum", "loss.terms=[dice,boundary,mine]",
        "loss.weights={boundary: 0.5}", "loss.rebalance=[boundary]",
    )  # fmt: skip
    loss = build.load(folder).module.loss  # from the checkpoint alone
    assert list(loss.terms) == ["dice", "boundary", "mine"]
    assert loss.terms["mine"].gamma == 1
    assert loss.weights == {"dice": 1, "boundary": 0.5, "mine": 1}
    for wrong, message in (("[dyce]", "no loss 'dyce'"), ("null", "loss.terms is required")):
        override = [] if wrong == "null" else [f"loss.terms={wrong}"]
        with pytest.raises(InputError, match=message):
            trained(tmp_path / "wrong", *phantom, "loss=sum", *override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("loss.weight=[1,2]", r"weight has 2 value.*4 structures"),
        ("loss.weight=3", "weight must be a list"),
        ("loss.smooth=a", "smooth must be a finite number"),
        ("+loss.gama=1", "segshift.losses.Dice.*gama"),
    ],
)
def test_a_wrong_loss_is_refused_before_anything_is_made(override, message, phantom, tmp_path):
    with pytest.raises(InputError, match=message):
        trained(tmp_path / "run", *phantom, "loss=dice", override, f"store={tmp_path / 'store'}")
    assert not list(tmp_path.iterdir())


def test_a_scheduled_loss_changes_from_the_first_step_to_the_last(
    phantom, tmp_path, no_page, monkeypatch
):
    seen = []
    original = WeightedSum.at
    monkeypatch.setattr(
        WeightedSum, "at", lambda self, progress: seen.append(progress) or original(self, progress)
    )
    trained(
        tmp_path, *phantom, "loss=boundary", "loss.increase=[boundary]", "trainer.epochs=2",
        "trainer.steps_per_epoch=3",
    )  # fmt: skip
    assert seen == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])


def test_a_task_without_dice_is_reported_too(phantom, tmp_path):
    """Nothing behind the task may know a metric's name."""
    folder = trained(
        tmp_path, *phantom, "task.metrics=[{_target_: segshift.metrics.HausdorffDistance95}]"
    )
    assert (folder / "report.html").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    assert "test/in_domain/hd95_mm" in summary
    assert "val/selection_score" in summary  # which chooses whatever is measured


def test_ctrl_c_leaves_a_loadable_checkpoint(phantom, tmp_path, monkeypatch, capsys):
    from segshift.losses import Dice

    calls = iter(range(10**6))
    sound = Dice.forward

    def interrupted(self, logits, label):
        if next(calls) == 4:  # one call to check the loss, three steps
            raise KeyboardInterrupt
        return sound(self, logits, label)

    monkeypatch.setattr(Dice, "forward", interrupted)
    with pytest.raises(SystemExit):
        trained(tmp_path, *phantom, "loss=dice", "trainer.steps_per_epoch=10")
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3
    assert "stopped at step 3; weights so far" in capsys.readouterr().out
    assert build.load(tmp_path / "checkpoints" / "last.ckpt").plan.channels == 1


def test_ctrl_c_in_the_test_keeps_the_rows_so_far(phantom, tmp_path, monkeypatch):
    from segshift.module import SegmentationModule

    cases = iter(range(10**6))
    sound = SegmentationModule.test_step

    def interrupted(self, *arguments):
        if next(cases) == 2:
            raise KeyboardInterrupt
        return sound(self, *arguments)

    monkeypatch.setattr(SegmentationModule, "test_step", interrupted)
    with pytest.raises(SystemExit):
        trained(tmp_path, *phantom)
    assert read_rows(tmp_path / "rows.csv")["case"].nunique() == 2
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()


def test_a_checkpoint_that_is_none(tmp_path):
    (tmp_path / "x.ckpt").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="not a checkpoint of segshift"):
        build.load(tmp_path / "x.ckpt")
    with pytest.raises(InputError, match="no checkpoint at"):
        build.load(tmp_path)


class TestPostprocessing:
    def test_it_is_chosen_on_validation_cases_alone_and_told(
        self, phantom, tmp_path, monkeypatch, capsys, no_page
    ):
        looked_at, original = [], SegmentationModule.effects

        def effects(module, item):
            looked_at.append(item["case"])
            return original(module, item)

        monkeypatch.setattr(SegmentationModule, "effects", effects)
        folder = trained(tmp_path / "run", *phantom)
        assert looked_at == json.loads((folder / "split.json").read_text())["val"]
        written = json.loads((folder / "postprocessing.json").read_text())
        assert written["rules"] == {"liver": [], "kidney": [], "lesion": []}
        reason = "1 validation patient has it, at least 8 are needed"
        assert written["reasons"]["liver"] == reason
        assert f"post-processing: liver, kidney, lesion: {reason}\n" in capsys.readouterr().out

    def test_it_knows_the_components_of_training_and_validation_references(
        self, phantom, tmp_path, monkeypatch, no_page
    ):
        given, original = [], postprocessing.chosen_rules

        def chosen_rules(tables, **options):
            given.extend(options["references"])
            return original(tables, **options)

        monkeypatch.setattr(postprocessing, "chosen_rules", chosen_rules)
        folder = trained(tmp_path / "run", *phantom)
        sides = json.loads((folder / "split.json").read_text())
        cohort = build.cohort_of(build.resolved(composed(*TINY_TRAINING, *phantom)))
        known = [case for case in cohort.cases if case.id in sides["train"] + sides["val"]]
        assert len(known) > len(sides["val"]) > 0
        for place, found in enumerate(given):
            sizes = []
            for case in known:
                mask = read_label(case.annotation.label) == case.annotation.values[place]
                labelled, _ = ndimage.label(mask, np.ones((3, 3, 3)))
                sizes.append(np.bincount(labelled.ravel())[1:] * 12.0 * 10 * 12)  # mm3
            assert found.smallest["mm3"] == pytest.approx(min(np.concatenate(sizes)))
            assert found.most == max(map(len, sizes))
        assert len(given) == 3

    def test_a_structure_that_is_not_annotated_has_no_reference_components(self):
        reference = np.array([[[1, 0, 1, 2, 255]]], np.uint8)  # 255: nobody decided
        case = SimpleNamespace(
            case=SimpleNamespace(annotation=Annotation(values=(1, None))),
            reference=lambda: reference,
            spacing_mm=lambda: (3.0, 1.0, 1.0),
        )
        module = SimpleNamespace(task=Semantic(structures=("a", "b"), metrics=(Dice(),)))
        first, second = run._reference_components(module, case)
        assert (first.smallest, first.most) == ({"mm2": 1.0}, 2)
        assert (second.smallest, second.most) == ({}, 0)

    def test_a_run_can_do_without(self, phantom, tmp_path, no_page):
        folder = trained(tmp_path / "run", *phantom, "postprocess=none")
        assert not (folder / "postprocessing.json").exists()

    def test_what_was_chosen_is_done_to_tested_cases(self, phantom, tmp_path, no_page):
        folder = trained(tmp_path / "run", *phantom, "postprocess=none")
        numbers = {"score_before": 0.5, "score_after": 0.6, "patients": 8}
        all_goes = {"rule": "min_volume_mm3", "value": 1e12, **numbers}
        record = {"rules": {"liver": [all_goes]}, "reasons": {}}
        (folder / "postprocessing.json").write_text(json.dumps(record))

        def volumes(name, *overrides):
            config = composed(
                "data=phantom", *phantom, f"checkpoint={folder}", *overrides, job="evaluate"
            )
            evaluation.evaluate(config, tmp_path / name, command="test", choices={})
            rows = read_rows(tmp_path / name / "rows.csv")
            rows = rows[rows["metric"] == "volume_difference_relative"]
            return {
                key: own["value"].dropna().tolist()  # NaN where the reference has no lesion
                for key, own in rows.groupby(["structure", "postprocessed"])
            }

        both, without = volumes("with"), volumes("without", "postprocess=none")
        assert set(both["liver", True]) == {-2.0} != set(both["liver", False])
        assert both["kidney", True] == both["kidney", False]
        # Without rules there are no rows of them; those of the network are the same.
        assert without == {key: own for key, own in both.items() if not key[1]}
