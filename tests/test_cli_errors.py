"""What is wrong in a command line is answered at once: by a message, and without torch."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_TRAINING, composed, cpu_seconds_of_children, make_case, save_nifti
from test_cli import python

from segshift import build, cli, run, worker
from segshift.cohort import write_manifest
from segshift.cohort.images import read_image, read_label
from segshift.errors import InputError
from segshift.study import job as study_job

HEAVY = ("torch", "lightning", "monai")
# Command lines one after the other, as the root scripts would take them, in one process that pays
# for its imports once. Each answer: what it said, how it ended, its CPU time, what it imported.
IN_TURN = """
import io, json, os, sys, time
from contextlib import redirect_stdout
from hydra.core.global_hydra import GlobalHydra
from segshift import cli
for job, *words in json.load(sys.stdin):
    sys.argv, start = [f"{job}.py", *words], time.process_time()
    try:
        with redirect_stdout(io.StringIO()):
            getattr(cli, job)()
        ended = 0
    except SystemExit as stopped:
        ended = stopped.code
    GlobalHydra.instance().clear()
    os.environ.pop("HYDRA_FULL_ERROR", None)  # ours, for the rest of a process
    print(json.dumps([ended, time.process_time() - start, sorted(sys.modules)]), flush=True)
"""

WRONG = [
    (["train", "loss=focall"], ["focall", "boundary", "dice_ce", "focal", "tversky"]),
    (["train", "trainer.epoch=3"], ["trainer.epoch", "epochs", "steps_per_epoch"]),
    (["train", "nonsense=3"], ["nonsense", "seed", "plan", "trainer"]),
    (["train", "loss.gama=1", "loss=focal"], ["loss.gama", "gamma"]),
    (["train", "split.held_out=paris"], ["paris", "north", "south"]),
    (["train", "split.held_out=[]"], ["split.held_out", "north", "south"]),
    (["train", "split=kfold", "split.fold=9"], ["split.fold=9", "split.folds=5"]),
    (["train", "split=random", "split.val_fraction=2"], ["between 0 and 1", "2"]),
    (["train", "trainer.precision=half"], ["half", "bf16-mixed", "32-true"]),
    (["train", "trainer.devices=2"], ["trainer=ddp"]),
    (["train", "trainer.accelerator=tpu9"], ["tpu9", "auto", "gpu"]),
    (["train", "trainer.strategy=null"], ["trainer.strategy", "ddp"]),
    (["train", "prediction.overlap=half"], ["prediction.overlap=half", "0.99"]),
    (["train", "trainer.epochs=true"], ["trainer.epochs=True", "whole number"]),
    (["train", "foreground_share=x"], ["foreground_share=x", "from 0 to 1"]),
    (["train", "plan.batch=two"], ["plan.batch=two"]),
    (["train", "plan.patch=8"], ["plan.patch=8", "z, y, x"]),
    (["train", "split=random", "split.val_fraction=x"], ["between 0 and 1"]),
    (["train", "split=kfold", "split.fold=a"], ["split.fold=a"]),
    (["train", "split.held_out=5"], ["5", "north"]),
    (["train", "data.structures=5"], ["data.structures", "{liver: 1}"]),
    (["train", "trainer.epochs=0"], ["trainer.epochs=0"]),
    (["train", "data.manifest=nowhere.csv"], ["nowhere.csv"]),
    (["train", "data.structures={box: 5}"], ["[9]", "[0, 5]", "north-"]),
    (["train", "plan.patch=[9,9,9]"], ["plan.patch", "[10, 10, 10]"]),
    (["train", "data.manifest=???"], ["data.manifest is required"]),
    (["evaluate", "checkpoint=nowhere"], ["no checkpoint at nowhere"]),
    (["evaluate", "checkpoint=nowhere", "trainer.precision=half"], ["bf16-mixed"]),
    (["evaluate", "checkpoint=nowhere", "trainer.acelerator=cpu"], ["accelerator"]),
]


def manifest(folder: Path, names: list[str], **columns: str) -> Path:
    """Cases at two sites, one of which the test may then damage."""
    cases = [make_case(folder, name, site=name.split("-")[0]) for name in names]
    write_manifest(folder / "m.csv", cases, channels=["image"], structures=["box", "core"])
    return folder / "m.csv"


class TestErrorsComeAtOnce:
    """Each names what was found and what would be valid, without a traceback and without torch."""

    LIMIT_S = 3  # of CPU time; a line takes less than one

    @pytest.fixture(scope="class")
    @classmethod
    def cases(cls, tmp_path_factory):
        names = [f"{site}-{i}" for site in ("north", "south") for i in range(4)]
        return manifest(tmp_path_factory.mktemp("cases"), names)

    @pytest.fixture(scope="class")
    @classmethod
    def answers(cls, cases, tmp_path_factory):
        """What each of WRONG is answered with."""
        lines = []
        for (job, *words), _ in WRONG:
            base = [f"data.manifest={cases}", f"hydra.run.dir={tmp_path_factory.mktemp('run')}"]
            if job == "train":
                base.append("data=manifest")
                if not any("split" in word for word in words):
                    base.append("split.held_out=south")
            lines.append([job, *base, *words])
        done = python("-c", IN_TURN, input=json.dumps(lines))
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    @pytest.mark.parametrize("number", range(len(WRONG)), ids=lambda n: " ".join(WRONG[n][0]))
    def test_message(self, number, answers):
        ended, seconds, imported = answers[number]
        assert ended.startswith("error: ")
        for word in WRONG[number][1]:
            assert word in ended
        assert not set(HEAVY) & set(imported)
        assert seconds < self.LIMIT_S

    @pytest.mark.parametrize(
        ("script", "option", "words"),
        [
            ("train.py", "loss=focall", ["focall", "boundary"]),
            ("evaluate.py", "checkpoint=nowhere", ["no checkpoint at nowhere"]),
        ],
    )
    def test_typed(self, script, option, words, cases):
        """The same of the root scripts: a status, a line of its own, and soon."""
        before = cpu_seconds_of_children()
        done = python("-X", "importtime", script, f"data.manifest={cases}", option)
        seconds = cpu_seconds_of_children() - before
        assert done.returncode == 1
        imports, message = done.stderr.rsplit("\nerror: ", 1)
        for word in words:
            assert word in message
        assert "Traceback" not in done.stderr
        assert not any(f" {heavy}\n" in imports for heavy in HEAVY)
        assert seconds < 2 * self.LIMIT_S  # with the start of Python, and -X importtime

    @pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
    def test_help_is_answered_without_torch(self, script):
        done = python("-X", "importtime", script, "--help")
        assert done.returncode == 0
        assert "unet3d" in done.stdout or "checkpoint" in done.stdout
        assert " torch\n" not in done.stderr

    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            ("shape", ["(8, 16, 15)", "(8, 16, 16)"]),
            ("affine", ["lie elsewhere"]),
            ("value", ["[77]", "[0, 5, 9]"]),
            ("truncated", ["truncated or unreadable"]),
            ("nan", ["NaN or infinite"]),
            ("missing", ["no such file"]),
            ("patient", ["both in"]),
            ("channels", ["2 channel(s)"]),
        ],
    )
    def test_damaged_cases_are_named(self, damage, words, tmp_path):
        path = manifest(tmp_path, [f"{s}-{i}" for s in ("north", "south") for i in range(4)])
        image, label = (tmp_path / f"{kind}/south-1.nii.gz" for kind in ("images", "labels"))
        if damage == "shape":
            save_nifti(label, np.zeros((8, 16, 15), np.uint8))
        elif damage == "affine":
            save_nifti(label, np.zeros((8, 16, 16), np.uint8), np.diag([1.0, 1, 2, 1]))
        elif damage == "value":
            values = read_label(label).astype(np.uint8)
            values[0, 0, 0] = 77
            save_nifti(label, values)
        elif damage == "truncated":
            image.write_bytes(image.read_bytes()[:-2000])
        elif damage == "nan":
            save_nifti(image, np.where(read_image(image)[0] > 200, np.nan, 1).astype(np.float32))
        elif damage == "channels":
            save_nifti(image, np.concatenate([read_image(image)] * 2))
        elif damage == "missing":
            label.unlink()
        else:
            text = path.read_text()
            path.write_text(text.replace("south-1,south-1", "south-1,north-1"))
        config = composed(
            "data=manifest", f"data.manifest={path}", "split.held_out=south",
            f"store={tmp_path / 'store'}", *TINY_TRAINING,
        )  # fmt: skip
        with pytest.raises(InputError) as error:  # which the command line prints as above
            run.train(config, tmp_path / "run", command="", choices={})
        for word in [*words, "north-1" if damage == "patient" else "'south-1'"]:
            assert word in str(error.value)
        assert not (tmp_path / "run").exists()

    def test_a_bug_keeps_its_traceback(self, monkeypatch):
        with pytest.raises(SystemExit, match="simulated_cohort"):  # a mistake of the user's
            cli.main(["network", "+data.cohort._args_=[1]"])
        monkeypatch.setattr(build, "experiment", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            cli.main(["network"])


@pytest.mark.parametrize(
    ("enter", "words"),
    [
        (cli.train, ["train.py", "loss=nothing"]),
        (cli.study, ["study.py", "study=nothing"]),
        (cli.main, ["segshift", "compare", "nowhere"]),
        (study_job.main, ["job", "nowhere.json"]),
        (worker.main, ["worker", "nowhere", "1"]),
    ],
)
@pytest.mark.parametrize("chosen", ["strict", "replace"])
def test_every_process_escapes_what_its_output_cannot_show(enter, words, chosen, monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors=chosen)
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(worker, "end_with", lambda _: None)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # which Hydra's entry sets for its process
    with pytest.raises((SystemExit, Exception)):
        enter()
    assert terminal.errors == ("backslashreplace" if chosen == "strict" else chosen)
