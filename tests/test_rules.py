"""The architecture, enforced: import rules, the lazy start, and files that speak for themselves."""

import ast
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


def in_locales_encoding(tree):
    """Lines that read or write text in whatever encoding the machine's locale has."""
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        owner = getattr(getattr(call.func, "value", None), "id", "")
        opens = name in ("open", "fdopen") and owner not in ("Image", "os")
        modes = [word.value for word in call.keywords if word.arg == "mode"] + call.args
        binary = any("b" in str(getattr(mode, "value", "")) for mode in modes if opens)
        words = {word.arg: getattr(word.value, "value", None) for word in call.keywords}
        text = name in ("read_text", "write_text") or opens or words.get("text") is True
        if text and not binary and "encoding" not in words:
            yield call.lineno


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("path.read_text()", 1), ("path.write_text(x)", 1), ("path.open()", 1), ("open(x)", 1),
        ("path.open('w')", 1), ("run(x, text=True)", 1), ("open(x, 'rb')", 0),
        ("path.open(mode='wb')", 0), ("path.read_text(encoding='utf-8')", 0),
    ],
)  # fmt: skip
def test_the_rule_sees_a_file_opened_in_the_locales_encoding(line, count):
    assert len(list(in_locales_encoding(ast.parse(line)))) == count


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_text_is_utf8_whatever_the_locale(path):
    assert list(in_locales_encoding(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_every_pin_has_its_reason():
    lines = (ROOT / "pyproject.toml").read_text().splitlines()
    start, end = lines.index("dependencies = ["), lines.index("[project.scripts]")
    pins = [line for line in lines[start:end] if line.strip().startswith('"')]
    assert len(pins) > 20
    assert all("#" in line for line in pins)
