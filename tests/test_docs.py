"""Every command that README and docs show runs, and every link and file they name exists."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import REAL_DATA, ROOT, TINY_PHANTOM, TINY_TRAINING, composed

from segshift import run
from segshift.cli import main

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = (ROOT / "README.md").read_text()


def commands(start: str) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", "\n".join(p.read_text() for p in PAGES), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(start)]


TRAINING = [c for c in commands("python train.py") if "-m" not in c.split() and "ddp" not in c]


def test_readme_has_a_picture_two_commands_and_fewer_than_200_lines():
    assert README.count("![") == 1
    assert commands("make ") == ["make demo", "make test"]
    assert len(README.splitlines()) < 200
    targets = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in targets
    assert "\ntest:" in targets


@pytest.mark.parametrize("command", [c for c in TRAINING if "manifest" not in c])
def test_training_commands(command, workplace, tmp_path, no_page):
    overrides = shlex.split(command)[2:]
    config = composed(
        *TINY_PHANTOM, *TINY_TRAINING, f"store={workplace / 'store'}", *overrides,
        f"data.cohort.folder={workplace / 'phantom'}",
    )  # fmt: skip
    run.train(config, tmp_path, command=command, choices={})
    assert (tmp_path / "summary.json").is_file()


@pytest.mark.parametrize(
    ("job", "command"),
    [(job, c) for job in ("evaluate", "predict") for c in commands(f"python {job}.py")],
)
def test_the_options_of_other_commands_exist(job, command):
    """Runs of them are in tests/test_cli.py, test_scoring.py and test_prediction.py."""
    composed(*shlex.split(command)[2:], job=job)


def test_sweeps_and_several_processes_are_run_elsewhere():
    """tests/test_cli.py runs these lines as they stand, with small volumes."""
    rest = [c for c in commands("python train.py") if c not in TRAINING]
    assert rest == [
        "python train.py -m loss=dice,focal seed=0,1",
        "python train.py trainer=ddp trainer.devices=2",
    ]


@pytest.mark.real_data
@pytest.mark.slow
def test_real_data_commands(tmp_path, monkeypatch, no_page):
    """The importer's line, then the experiment that follows it, for one short step."""
    (imported,) = {c for c in commands("segshift cohort import") if "hippocampus" in c}
    (training,) = [c for c in TRAINING if "experiments=hippocampus" in c]
    line = imported.replace("../shared/data", str(REAL_DATA)).replace("-o ", f"-o {tmp_path}/")
    main(shlex.split(line)[1:])
    monkeypatch.chdir(ROOT)  # experiments/ is found from the folder you are in
    config = composed(
        *shlex.split(training)[2:], *TINY_TRAINING, f"data.manifest={tmp_path / 'hippocampus.csv'}",
        f"store={tmp_path / 'store'}",
    )  # fmt: skip
    folder = tmp_path / "run"
    run.train(config, folder, command=training, choices={})
    assert "40, 56, 40" in (folder / "plan.json").read_text().replace("\n", "").replace("  ", "")
    of_masks, of_probabilities = 5 + 2, 4  # of masks also the two of false alarms
    lines = (folder / "rows.csv").read_text().splitlines()
    assert len(lines) == 1 + 40 * 2 * (of_masks + of_probabilities)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    ("group", "page"),
    [("loss", "docs/losses.md"), ("model", "docs/networks.md"), ("split", "docs/splits.md")],
)
def test_every_choice_is_on_its_page(group, page):
    text = (ROOT / page).read_text()
    for path in (ROOT / "conf" / group).glob("*.yaml"):
        assert f"`{path.stem}`" in text, f"{page} does not list {group}={path.stem}"


def test_every_loss_is_explained_measured_and_drawn():
    menu, costs = (ROOT / "docs" / "losses.md").read_text().split("## What they cost")
    drawing = (ROOT / "docs" / "draw_losses.py").read_text()
    for path in (ROOT / "conf" / "loss").glob("*.yaml"):
        if path.stem != "sum":
            assert f"\n| `{path.stem}` |" in menu, f"docs/losses.md does not explain {path.stem}"
            assert f"\n| `{path.stem}` |" in costs, f"docs/losses.md lacks {path.stem}'s cost"
            assert f'"{path.stem}"' in drawing, f"docs/draw_losses.py does not draw {path.stem}"


def test_the_empty_mask_table_is_the_codes():
    """docs/results.md says what metrics/empty.py does."""
    import numpy as np

    from segshift.metrics import Dice, FalseAlarm, FalseAlarmVolume, HausdorffDistance95

    empty, full = np.zeros((3, 4, 5), bool), np.ones((3, 4, 5), bool)
    diagonal = np.sqrt(9 + 16 + 25)
    for metric, worst in ((Dice(), 0), (HausdorffDistance95(), diagonal)):
        assert np.isnan(metric(empty, empty, (1, 1, 1)))
        assert np.isnan(metric(full, empty, (1, 1, 1)))
        assert metric(empty, full, (1, 1, 1)) == pytest.approx(worst)
    assert [FalseAlarm()(pred, empty, (1, 1, 1)) for pred in (empty, full)] == [0, 1]
    assert FalseAlarmVolume()(full, empty, (1, 1, 1)) == pytest.approx(0.06)
    assert np.isnan(FalseAlarm()(empty, full, (1, 1, 1)))
