"""A small study of a small cohort, whose jobs wait, fail and end as the test's files say."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, TINY_TRAINING, make_case

from segshift.cohort import write_manifest
from segshift.study import procedure

SITES = ("north", "south", "west")
STUDY = """\
# What a test asks.
parts:
  out:
    overrides: [split=leave_site_out, split.held_out=each_site]
    sites_at_least: 3
"""
# A job whose training waits while a file `hold` is there, and fails where one asks for it.
JOB = """
import sys, time, types
from pathlib import Path
from segshift.errors import InputError

def train(config, folder, *, command, choices):
    folder.mkdir(parents=True)
    with open("started.txt", "a") as file:
        file.write(folder.name + chr(10))
    (folder / "rows.csv").write_text("half a")
    while Path("hold").exists():
        time.sleep(0.01)
    if Path("fail-" + config.split.held_out).exists():
        raise InputError("no such luck at " + config.split.held_out)
    (folder / "split.json").write_text('{"train": [], "val": [], "in_domain": [], "site-x": []}')
    if Path("alone").exists():
        (folder / "split.json").write_text('{"train": [], "val": [], "in_domain": []}')
    header = "run,set,corruption,severity,case,patient,site,rater,postprocessed,structure,"
    header += "reference_empty,metric,value" + chr(10)
    line = 'jobs/x,in_domain,,0,"a,b",p,north,,false,box,false,dice,0.1' + chr(10)
    (folder / "rows.csv").write_text(header + line)
    (folder / "metrics.json").write_text('[{"name": "dice", "unit": "", "better": "higher"}]')
    (folder / "summary.json").write_text('{"val/dice": 1, "test/in_domain/dice": 0.5}')

def attribute(folder, *, data):
    assert data["cohort"], data
    if Path("fail-attribution").exists():
        raise InputError("the case north-0 is gone")
    time.sleep(0.2)
    with open("attributed.txt", "a") as file:
        file.write(folder.name + chr(10))

def has_target(folder):
    return not Path("alone").exists()

stub = types.SimpleNamespace(attribute=attribute, has_target=has_target)
sys.modules["segshift.attribution"] = stub
sys.modules["segshift.run"] = types.SimpleNamespace(train=train)
from segshift.study.job import main
main()
"""
CONTROLLER = """
import sys
sys.path.insert(0, TESTS)
from study_stub import carried_out
carried_out(sys.argv[1:])
"""


def stub(file: Path) -> list[str]:
    return [sys.executable, "job.py", str(file)]


def carried_out(words: list[str], *, report=lambda study: None) -> None:
    """A study in this process, its jobs the stub's."""
    carry_out(procedure.planned_study(words), report=report)


def carry_out(one: procedure.Study, *, report=lambda study: None) -> None:
    one.launcher.command, one.launcher.poll_s = stub, 0.01
    procedure.carry_out(one, report=report)


def planned(*words: str) -> procedure.Study:
    return procedure.planned_study(words)


@pytest.fixture(scope="session")
def manifest(workplace: Path) -> Path:
    """Twelve cases at three sites."""
    cases = [make_case(workplace / "sites", f"{s}-{i}", site=s) for s in SITES for i in range(4)]
    path = workplace / "sites" / "m.csv"
    write_manifest(path, cases, channels=["image"], structures=["box", "core"])
    return path


@pytest.fixture
def own(place: Path, base: list[str]) -> list[str]:
    """The words of a study of a cohort that the test may change."""
    cases = [make_case(place / "own", f"{s}-{i}", site=s) for s in SITES for i in range(4)]
    path = place / "own" / "m.csv"
    write_manifest(path, cases, channels=["image"], structures=["box", "core"])
    return [*base, f"data.manifest={path}"]


@pytest.fixture
def place(manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with a study, a job and a controller of its own."""
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "mine.yaml").write_text(STUDY)
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "controller.py").write_text(CONTROLLER.replace("TESTS", repr(str(ROOT / "tests"))))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def base(manifest: Path, workplace: Path) -> list[str]:
    data = ["data=manifest", f"data.manifest={manifest}", f"store={workplace / 'store'}"]
    return ["study=mine", *data, *TINY_TRAINING]


@pytest.fixture
def study(place: Path, base: list[str]):
    """Start a study in a process of its own, by default one of the stub's jobs."""
    processes = []

    def start(*words: str, script: object = "controller.py") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(script), *base, *words],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    (place / "hold").unlink(missing_ok=True)  # lets every orphan end
    for process in processes:
        process.terminate()  # with its jobs
        process.wait()


def told(process: "subprocess.Popen[str]", status: int = 0) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == status, out
    return out


def until(condition, *, seconds: float = 30.0) -> None:
    """Wait for what another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def started(place: Path) -> list[str]:
    path = place / "started.txt"
    return path.read_text().split() if path.is_file() else []


def statuses(place: Path) -> list[str]:
    with (place / "runs" / "study_mine" / "jobs.csv").open() as file:
        return [line["status"] for line in csv.DictReader(file)]


def rows(place: Path) -> str:
    return (place / "runs" / "study_mine" / "rows.csv").read_text()


def expected_rows(place: Path, base: list[str]) -> str:
    """As the stub writes them, job after job."""
    header = (
        "run,set,corruption,severity,case,patient,site,rater,postprocessed,structure,"
        "reference_empty,metric,value\n"
    )
    names = [job.name for job in planned(*base).jobs]
    of_job = ',in_domain,,0,"a,b",p,north,,false,box,false,dice,0.1\n'
    return header + "".join(name + of_job for name in names)


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
