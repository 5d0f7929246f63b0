"""Real command lines as subprocesses: what a person types, and what they get."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT, TINY_PHANTOM, TINY_TRAINING, composed

from segshift import evaluation, run
from segshift.results import read_rows

ENVIRONMENT = {k: v for k, v in os.environ.items() if k != "WANDB_API_KEY"}
HANGS_S = 600  # ends a command that hangs; how long one takes depends on what else the machine does


def python(
    *arguments: object, cwd: Path = ROOT, environment: dict[str, str] = ENVIRONMENT, **options
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, encoding="utf-8",
        timeout=HANGS_S, env=environment, **options,
    )  # fmt: skip


def tiny(folder: Path, workplace: Path) -> list[str]:
    return [
        *TINY_PHANTOM, *TINY_TRAINING, f"data.cohort.folder={workplace / 'phantom'}",
        f"store={workplace / 'store'}", f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}",
    ]  # fmt: skip


def evaluating(folder: Path, workplace: Path) -> list[str]:
    """The same cohort for evaluate.py, which has no options for training."""
    return [o for o in tiny(folder, workplace) if o.startswith(("data", "store", "hydra"))]


@pytest.mark.slow
def test_the_main_job(tmp_path, workplace):
    folder = tmp_path / "run"
    done = python(
        "train.py", "model=unet3d", "loss=focal", *tiny(folder, workplace), "logger=wandb"
    )
    assert done.returncode == 0, done.stderr
    for site in ("alpha", "beta", "gamma", "delta"):
        assert f" {site} " in done.stdout
    assert "precision: " in done.stdout
    assert "offline; set WANDB_API_KEY to log online; upload with: wandb sync " in done.stdout
    synced = Path(done.stdout.split("wandb sync ")[1].split()[0])
    assert list((ROOT / synced).glob("*.wandb"))
    assert str(folder / "report.html") in done.stdout
    assert (folder / "report.html").is_file()
    again = python(
        "evaluate.py", f"checkpoint={folder}", "data=phantom",
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
def test_two_processes_train_and_each_case_is_evaluated_once(tmp_path, workplace, no_page):
    """DDP over gloo: the rows are those of one process evaluating the same weights."""
    folder = tmp_path / "run"
    done = python(
        "train.py", "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu",
        *tiny(folder, workplace), "trainer.steps_per_epoch=4", "logger=wandb",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("W&B:") == 1  # rank 0 alone logs
    assert len(list((folder / "wandb").glob("offline-run-*"))) == 1
    assert not list(folder.glob("rows.rank*"))
    rows = read_rows(folder / "rows.csv")
    key = ["set", "case", "structure", "metric"]
    assert not rows.duplicated(key).any()
    content = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["global_step"] == 4
    config = composed(
        f"checkpoint={folder}", "data=phantom", "trainer.accelerator=cpu",
        *evaluating(tmp_path / "alone", workplace), job="evaluate",
    )  # fmt: skip
    evaluation.evaluate(config, tmp_path / "alone", command="", choices={})
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
        "trainer.steps_per_epoch=10",
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
        env=ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}, start_new_session=True,
    ) as process:  # fmt: skip
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                time.sleep(2)  # into the third epoch or a later one, on a busy machine too
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
                break
        out, err = process.communicate(timeout=HANGS_S)
    assert process.returncode != 0
    stopped = int(out.split("stopped at step ")[1].split(";")[0])
    assert stopped > 20
    assert "Traceback" not in err
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == stopped


def test_import_msd_and_its_errors(tmp_path):
    done = python("-m", "segshift.cli", "cohort", "import", "msd", tmp_path, "-o", "x.csv")
    assert done.returncode != 0
    assert "dataset.json does not exist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    """A folder with a module of theirs and a YAML of theirs, in which one works."""
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
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_loss_of_somebody_elses_package(theirs, workplace):
    """Nothing of ours is touched."""
    done = python(
        "-m", "segshift.cli", "train", "loss=squared", *tiny(theirs / "run", workplace),
        cwd=theirs, environment=ENVIRONMENT | {"PYTHONPATH": str(theirs)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "theirs.Squared" in (theirs / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    "chosen",
    [
        ("loss=bce", "loss._target_=theirs.Squared"),  # their class with the options of ours
        ("loss=sum", "loss.terms={dice: {}, theirs: {_target_: theirs.Squared}}"),
    ],
)
def test_a_class_of_somebody_elses_package(chosen, theirs, workplace, no_page):
    config = composed(*chosen, *tiny(theirs / "run", workplace))
    run.train(config, theirs / "run", command="", choices={})
    assert "theirs.Squared" in (theirs / "run" / "config.yaml").read_text()


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
    done = python(
        "-c", script, "train", "--cfg", "job", "loss=focal", cwd=tmp_path / "empty",
        environment=ENVIRONMENT | {"PYTHONPATH": str(tmp_path / "site")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "segshift.losses.Focal" in done.stdout
