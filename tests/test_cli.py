"""Real command lines as subprocesses: what a person types, and what they read when it is wrong."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_PHANTOM, TINY_TRAINING, make_case, save_nifti

from segshift.cohort import write_manifest
from segshift.results import read_rows

ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "WANDB_API_KEY"}


def python(*arguments: object, cwd: Path = ROOT, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command,
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        env=ENVIRONMENT,
        **options,
    )


def tiny(folder: Path, workplace: Path) -> list[str]:
    return [
        *TINY_PHANTOM, *TINY_TRAINING, f"data.cohort.folder={workplace / 'phantom'}",
        f"store={workplace / 'store'}", f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}",
    ]  # fmt: skip


def evaluating(folder: Path, workplace: Path) -> list[str]:
    """The same cohort for evaluate.py, which has no options for training."""
    return [o for o in tiny(folder, workplace) if o.startswith(("data", "store", "hydra"))]


def manifest(folder: Path, names: list[str], **columns: str) -> Path:
    """Cases at two sites, one of which the test may then damage."""
    cases = [make_case(folder, name, site=name.split("-")[0]) for name in names]
    write_manifest(folder / "m.csv", cases, channels=["image"], structures=["box", "core"])
    return folder / "m.csv"


class TestErrorsComeAtOnce:
    """Each names what was found and what would be valid, without a traceback and without torch."""

    LIMIT_S = 1.5

    @pytest.fixture(scope="class")
    @classmethod
    def cases(cls, tmp_path_factory):
        names = [f"{site}-{i}" for site in ("north", "south") for i in range(4)]
        return manifest(tmp_path_factory.mktemp("cases"), names)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["loss=focall"], ["focall", "boundary", "dice_ce", "focal", "tversky"]),
            (["trainer.epoch=3"], ["trainer.epoch", "epochs", "steps_per_epoch"]),
            (["nonsense=3"], ["nonsense", "seed", "plan", "trainer"]),
            (["loss.gama=1", "loss=focal"], ["loss.gama", "gamma"]),
            (["split.held_out=paris"], ["paris", "north", "south"]),
            (["split.held_out=[]"], ["split.held_out", "north", "south"]),
            (["split=kfold", "split.fold=9"], ["split.fold=9", "split.folds=5"]),
            (["split=random", "split.val_fraction=2"], ["between 0 and 1", "2"]),
            (["trainer.precision=half"], ["half", "bf16-mixed", "32-true"]),
            (["trainer.devices=2"], ["trainer=ddp"]),
            (["trainer.accelerator=tpu9"], ["tpu9", "auto", "gpu"]),
            (["trainer.strategy=null"], ["trainer.strategy", "ddp"]),
            (["prediction.overlap=half"], ["prediction.overlap=half", "0.99"]),
            (["trainer.epochs=true"], ["trainer.epochs=True", "whole number"]),
            (["foreground_share=x"], ["foreground_share=x", "from 0 to 1"]),
            (["plan.batch=two"], ["plan.batch=two"]),
            (["plan.patch=8"], ["plan.patch=8", "z, y, x"]),
            (["split=random", "split.val_fraction=x"], ["between 0 and 1"]),
            (["split=kfold", "split.fold=a"], ["split.fold=a"]),
            (["split.held_out=5"], ["5", "north"]),
            (["data.structures=5"], ["data.structures", "{liver: 1}"]),
            (["trainer.epochs=0"], ["trainer.epochs=0"]),
            (["data.manifest=nowhere.csv"], ["nowhere.csv"]),
            (["data.structures={box: 5}"], ["[9]", "[0, 5]", "north-"]),
            (["plan.patch=[9,9,9]"], ["plan.patch", "[10, 10, 10]"]),
        ],
    )
    def test_message(self, arguments, words, cases):
        base = ["data=manifest", f"data.manifest={cases}"]
        if not any("split" in a for a in arguments):
            base.append("split.held_out=south")
        start = time.monotonic()
        done = python("-X", "importtime", "train.py", *base, *arguments)
        seconds = time.monotonic() - start
        assert done.returncode != 0
        *imports, message = done.stderr.rsplit("error: ", 1)
        for word in words:
            assert word in message
        assert "Traceback" not in done.stderr
        for heavy in ("torch", "lightning", "monai"):
            assert f" {heavy}\n" not in "".join(imports)
        assert seconds < 4 * self.LIMIT_S  # -X importtime and two test processes take their share

    @pytest.mark.parametrize("arguments", [["train.py", "--help"], ["evaluate.py", "--help"]])
    def test_help_is_answered_without_torch(self, arguments):
        done = python("-X", "importtime", *arguments)
        assert done.returncode == 0
        assert "unet3d" in done.stdout or "checkpoint" in done.stdout
        assert " torch\n" not in done.stderr

    def test_evaluate_checks_its_options_first(self, cases):
        for arguments, word in (
            (["checkpoint=nowhere"], "no checkpoint at nowhere"),
            (["checkpoint=nowhere", "trainer.precision=half"], "bf16-mixed"),
            (["checkpoint=nowhere", "trainer.acelerator=cpu"], "accelerator"),
        ):
            done = python("-X", "importtime", "evaluate.py", f"data.manifest={cases}", *arguments)
            *imports, message = done.stderr.rsplit("error: ", 1)
            assert word in message
            assert " torch\n" not in "".join(imports)

    def test_required(self):
        done = python("train.py", "data=manifest")
        assert "data.manifest is required" in done.stderr
        assert "Traceback" not in done.stderr

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
        import numpy as np

        from segshift.cohort.images import read_image, read_label

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
        done = python(
            "train.py", "data=manifest", f"data.manifest={path}", "split.held_out=south",
            f"store={tmp_path / 'store'}", f"hydra.run.dir={tmp_path / 'run'}", *TINY_TRAINING,
        )  # fmt: skip
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
        for word in [*words, "north-1" if damage == "patient" else "'south-1'"]:
            assert word in done.stderr

    def test_a_bug_keeps_its_traceback(self, tmp_path):
        done = python("train.py", "+data.cohort._args_=[1]", f"hydra.run.dir={tmp_path}")
        assert done.returncode != 0
        assert "simulated_cohort" in done.stderr


@pytest.mark.slow
def test_the_main_job(tmp_path, workplace):
    run = tmp_path / "run"
    done = python("train.py", "model=unet3d", "loss=focal", *tiny(run, workplace), "logger=wandb")
    assert done.returncode == 0, done.stderr
    for site in ("alpha", "beta", "gamma", "delta"):
        assert f" {site} " in done.stdout
    assert "precision: " in done.stdout
    assert "offline; set WANDB_API_KEY to log online; upload with: wandb sync " in done.stdout
    synced = Path(done.stdout.split("wandb sync ")[1].split()[0])
    assert list((ROOT / synced).glob("*.wandb"))
    assert str(run / "report.html") in done.stdout
    assert (run / "report.html").is_file()
    again = python(
        "evaluate.py", f"checkpoint={run}", "data=phantom",
        *evaluating(tmp_path / "again", workplace),
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert "left out" in again.stdout
    assert (tmp_path / "again" / "rows.csv").is_file()


@pytest.mark.slow
def test_a_sweep(tmp_path, workplace):
    done = python("train.py", "-m", "loss=dice,focal", "seed=0,1", *tiny(tmp_path, workplace))
    assert done.returncode == 0, done.stderr
    jobs = sorted(path.parent.name for path in tmp_path.glob("*/summary.json"))
    assert jobs == ["0", "1", "2", "3"]
    assert len({path.read_text() for path in tmp_path.glob("*/rows.csv")}) == 4


@pytest.mark.slow
def test_two_processes_train_and_each_case_is_evaluated_once(tmp_path, workplace):
    """DDP over gloo: the rows are those of one process evaluating the same weights."""
    run = tmp_path / "run"
    done = python(
        "train.py", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu",
        *tiny(run, workplace), "trainer.steps_per_epoch=4", "logger=wandb",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("W&B:") == 1  # rank 0 alone logs
    assert len(list((run / "wandb").glob("offline-run-*"))) == 1
    assert not list(run.glob("rows.rank*"))
    rows = read_rows(run / "rows.csv")
    key = ["set", "case", "structure", "metric"]
    assert not rows.duplicated(key).any()
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["global_step"] == 4
    alone = python(
        "evaluate.py", f"checkpoint={run}", "data=phantom", "trainer.accelerator=cpu",
        *evaluating(tmp_path / "alone", workplace),
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    single = read_rows(tmp_path / "alone" / "rows.csv")
    for table in (rows, single):  # in_domain is alpha's test cases, which evaluate calls site-alpha
        table["set"] = table["set"].replace("in_domain", "site-alpha")
    columns = [*key, "value"]
    both = rows[columns].merge(single[columns], on=key, suffixes=("_ddp", "_alone"))
    assert len(both) == len(rows) == len(single)
    assert both["value_ddp"].equals(both["value_alone"])


@pytest.mark.slow
def test_a_failing_rank_ends_the_run_with_its_message(tmp_path, workplace):
    done = python(
        "train.py", "trainer=ddp", "trainer.accelerator=cpu", *tiny(tmp_path, workplace),
        "model.filters=[4]",
    )  # fmt: skip
    assert done.returncode != 0
    assert "model.filters=[4] has 1 stages" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("several", [(), ("trainer=ddp", "trainer.accelerator=cpu")])
def test_ctrl_c(several, tmp_path, workplace):
    """A real interrupt: a loadable checkpoint, a line that names it, no traceback."""
    command = [
        sys.executable, "train.py", *several, *tiny(tmp_path, workplace), "trainer.epochs=50",
        "trainer.steps_per_epoch=30",
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
    ) as process:  # fmt: skip
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                time.sleep(0.5)  # into the third epoch
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
                break
        out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    stopped = int(out.split("stopped at step ")[1].split(";")[0])
    assert stopped > 60
    assert "Traceback" not in err
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == stopped


def test_import_msd_and_its_errors(tmp_path):
    done = python("-m", "segshift.cli", "cohort", "import", "msd", tmp_path, "-o", "x.csv")
    assert done.returncode != 0
    assert "dataset.json does not exist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        ("loss=squared",),  # a YAML of theirs in the folder one starts from
        ("loss=bce", "loss._target_=theirs.Squared"),  # their class with the options of ours
        ("loss=sum", "loss.terms={dice: {}, theirs: {_target_: theirs.Squared}}"),
    ],
)
def test_a_loss_of_somebody_elses_package(chosen, tmp_path, workplace):
    """Nothing of ours is touched."""
    (tmp_path / "theirs.py").write_text(
        "import torch\n"
        "class Squared(torch.nn.Module):\n"
        "    def __init__(self, weight=None):\n"
        "        super().__init__()\n"
        "    def forward(self, logits, label):\n"
        "        one_hot = torch.zeros_like(logits).scatter_(1, label, 1.0)\n"
        "        return (logits.float().softmax(1) - one_hot).square().mean()\n"
    )
    (tmp_path / "loss").mkdir()
    (tmp_path / "loss" / "squared.yaml").write_text("_target_: theirs.Squared\n")
    done = subprocess.run(
        [
            sys.executable, "-m", "segshift.cli", "train", *chosen,
            *tiny(tmp_path / "run", workplace),
        ],
        cwd=tmp_path, capture_output=True, encoding="utf-8", check=False,
        env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "theirs.Squared" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.slow
def test_an_installed_wheel_works_in_an_empty_folder(tmp_path):
    """conf/ travels in the wheel: the command composes without the project's checkout."""
    built = python("-m", "pip", "wheel", "--no-deps", "--quiet", "-w", tmp_path / "w", ROOT)
    assert built.returncode == 0, built.stderr
    wheel = next((tmp_path / "w").glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "empty").mkdir()
    script = "import segshift, sys; from segshift.cli import main; print(segshift.__file__); main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "train", "--cfg", "job", "loss=focal"],
        cwd=tmp_path / "empty", capture_output=True, encoding="utf-8", check=False,
        env=ENVIRONMENT | {"PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "segshift.losses.Focal" in done.stdout
