"""The architecture, enforced: import rules, the lazy start, and files that speak for themselves."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py"))


def test_lower_rooms_never_import_higher_ones():
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "room",
    [
        "cli",
        "cli_compare",
        "results",
        "audit",
        "build",
        "splits",
        "plan",
        "shifts",
        "cohort.checks",
    ],
)
def test_these_rooms_start_without_torch(room):
    code = (
        f"import sys, segshift.{room}; print([m for m in ('torch', 'monai') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_every_file_is_one_idea(path):
    text = path.read_text()
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 300
    assert path.name != "utils.py"
    assert text.isascii()


def test_every_pin_has_its_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start, end = lines.index("dependencies = ["), lines.index("[project.scripts]")
    pins = [line for line in lines[start:end] if line.strip().startswith('"')]
    assert len(pins) > 20
    assert all("#" in line for line in pins)
