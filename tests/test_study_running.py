"""Studies that run: workers, GPUs, and what a kill at any moment leaves behind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from study_stub import (
    SITES,
    STUDY,
    carried_out,
    carry_out,
    executable,
    expected_rows,
    planned,
    rows,
    started,
    statuses,
    told,
    until,
)

from segshift.errors import InputError
from segshift.results import read_rows
from segshift.study import folder, procedure, running
from segshift.study.running import LocalLauncher, gpu_shares, visible_gpus


def states_of(place: Path, base: list[str]) -> list[folder.State]:
    found = folder.states(place / "runs" / "study_mine", planned(*base).jobs, attribute=True)
    return list(found.values())


class TestTheMachine:
    def test_a_study_runs_once_and_its_rows_bear_the_names_of_its_jobs(self, place, base, capsys):
        carried_out(base)
        out = capsys.readouterr().out
        assert statuses(place) == ["done"] * 3
        assert rows(place) == expected_rows(place, base)
        assert "1/3" in out
        assert "dice in_domain 0.500" in out
        read_rows(place / "runs" / "study_mine" / "rows.csv")
        before = started(place)
        carried_out(base)
        assert started(place) == before
        assert len(before) == 3
        carried_out([*base, "seed=0,1"])  # a larger one in the same folder
        assert len(started(place)) == 6
        assert statuses(place) == ["done"] * 6

    def test_a_failed_job_is_named_and_the_others_go_on(self, place, base, capsys):
        (place / "fail-south").touch()
        with pytest.raises(SystemExit, match="1 of 3 jobs failed:\n  north.west-"):
            carried_out(base)
        assert statuses(place) == ["done", "failed", "done"]
        assert "error: no such luck at south" in capsys.readouterr().out
        assert len(rows(place).splitlines()) == 3
        (place / "fail-south").unlink()
        carried_out(base)
        assert len(started(place)) == 4
        assert rows(place) == expected_rows(place, base)

    def test_an_attribution_that_failed_costs_no_training(self, place, base, capsys):
        (place / "fail-attribution").touch()
        with pytest.raises(SystemExit, match="3 of 3 jobs failed"):
            carried_out([*base, "study.attribute=true"])
        assert "error: the case north-0 is gone" in capsys.readouterr().out
        assert statuses(place) == ["done"] * 3
        assert rows(place) == expected_rows(place, base)
        (place / "fail-attribution").unlink()
        before = [one.seconds for one in states_of(place, base)]
        carried_out([*base, "study.attribute=true"])
        after = [one.seconds for one in states_of(place, base)]
        assert all(a - b > 0.15 for b, a in zip(before, after, strict=True))
        assert sorted((place / "attributed.txt").read_text().split()) == sorted(started(place))
        carried_out([*base, "study.attribute=true"])
        carried_out(base)
        assert len(started(place)) == 3
        assert len((place / "attributed.txt").read_text().split()) == 3

    def test_a_run_without_another_site_has_nothing_to_attribute(self, place, base):
        (place / "alone").touch()
        (place / "fail-attribution").touch()
        carried_out([*base, "study.attribute=true"])
        assert all(one.complete for one in states_of(place, base))

    def test_data_that_change_before_a_job_runs_fail_it(self, place, own, capsys):
        one = planned(*own)
        image = place / "own" / "images" / "north-0.nii.gz"
        image.write_bytes(image.read_bytes() + b"\0")
        with pytest.raises(SystemExit, match="3 of 3 jobs failed"):
            carry_out(one)
        out = capsys.readouterr().out
        assert out.count("the data changed since the study was planned; run it again") == 3
        assert started(place) == []
        carried_out(own)
        assert statuses(place) == ["done"] * 3

    def test_data_that_change_while_a_job_runs_fail_it(self, study, place, own):
        (place / "hold").touch()
        first = study(own[-1])
        until(lambda: len(started(place)) == 1)
        (place / "own" / "images" / "north-0.nii.gz").unlink()
        (place / "hold").unlink()
        out = told(first, status=1)
        assert out.count("the data changed since the study was planned (") == 3
        assert "Traceback" not in out
        assert statuses(place) == ["failed"] * 3
        assert len(started(place)) == 1

    def test_without_a_result_no_earlier_one_is_shown(self, place, base):
        carried_out(base, report=procedure.write_report)
        runs = place / "runs" / "study_mine"
        page = (runs / "report.html").read_text()
        assert len((runs / "matrix.csv").read_text().splitlines()) > 1
        for site in SITES:
            (place / f"fail-{site}").touch()
        with pytest.raises(SystemExit, match="3 of 3 jobs failed"):
            carried_out([*base, "seed=1"], report=procedure.write_report)
        assert len((runs / "matrix.csv").read_text().splitlines()) == 1
        assert (runs / "report.html").read_text() != page
        assert len(rows(place).splitlines()) == 1

    @pytest.mark.parametrize(
        "word", ["workers=0", "launcher.workers=0", "launcher.workers=-1", "launcher.workers=two",
                 "launcher.workers=1.5", "launcher.workers=null"],
    )  # fmt: skip
    def test_a_number_of_workers_is_one_at_least(self, word, place, base):
        with pytest.raises(InputError, match=f"{word.replace('null', 'None')}: a whole number"):
            planned(*base, word)

    @pytest.mark.parametrize(
        ("gpus", "workers", "shares"),
        [
            ("01", 1, [None]),  # as it is: a job may take them all
            ("0123", 2, ["0,1", "2,3"]),
            ("47", 2, ["4", "7"]),
            ("012", 2, ["0", "1"]),
            ("01", 4, ["0", "1", "0", "1"]),
            ("", 2, [None, None]),
        ],
    )
    def test_each_worker_has_its_share_of_the_gpus(self, gpus, workers, shares):
        found = gpu_shares(tuple(gpus), workers=workers)
        assert [share.get("CUDA_VISIBLE_DEVICES") for share in found] == shares

    def test_gpus_are_those_that_cuda_would_show(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-abc")
        assert visible_gpus() == ("3", "GPU-abc")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        assert visible_gpus() == ()
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        monkeypatch.setenv("PATH", str(tmp_path))
        assert visible_gpus() == ()
        executable(tmp_path / "nvidia-smi", NVIDIA_SMI)
        assert visible_gpus() == ("0", "1")

    def test_a_wedged_driver_is_no_gpu_and_one_worker_does_not_ask(self, tmp_path, monkeypatch):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.setattr(running, "LISTED_S", 0.2)
        executable(tmp_path / "nvidia-smi", f"#!/bin/sh\ntouch {tmp_path}/asked\nexec sleep 60\n")
        LocalLauncher(workers=1)
        assert not (tmp_path / "asked").exists()
        begun = time.monotonic()
        assert LocalLauncher(workers=2).gpus == ()
        assert time.monotonic() - begun < 30
        assert (tmp_path / "asked").exists()

    @pytest.mark.parametrize(
        ("gpus", "workers", "devices", "fix"),
        [
            ("0,1", 2, 2, "2 GPU.s. are here.* workers=2 sees 1; set workers=1 or trainer.dev"),
            ("0,1,2,3", 4, 2, "4 GPU.s. are here.* sees 1; set workers=2 or trainer.devices=1"),
            ("0,1", 2, 4, "2 GPU.s. are here.* sees 1; set trainer.devices=1, or"),
            ("0", 3, 2, "1 GPU.s. are here.* sees 1; set trainer.devices=1, or"),
        ],
    )
    def test_more_devices_than_a_worker_sees_are_refused(
        self, gpus, workers, devices, fix, place, base, monkeypatch
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        words = [*base, "trainer=ddp", f"trainer.devices={devices}", f"workers={workers}"]
        with pytest.raises(InputError, match=f"trainer.devices={devices}, but {fix}"):
            planned(*words)
        planned(*words, "trainer.accelerator=cpu")

    def test_as_many_devices_as_a_worker_sees_are_planned(self, place, base, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
        planned(*base, "trainer=ddp", "trainer.devices=2", "workers=2")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # on processors, that is
        planned(*base, "trainer=ddp", "trainer.devices=2", "workers=2")

    def test_a_job_gets_the_gpus_of_the_place_that_is_free(self, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
        script = 'echo on $CUDA_VISIBLE_DEVICES; while [ -e "$0" ]; do sleep 0.02; done'
        launcher = LocalLauncher(workers=2, command=lambda file: ["sh", "-c", script, str(file)])
        files = [tmp_path / name for name in "abc"]
        for file in files:
            file.touch()
        running = [launcher.start(file) for file in files[:2]]
        files[1].unlink()
        until(lambda: running[1].ended() == "")
        running.append(launcher.start(files[2]))
        for file in files:
            file.unlink(missing_ok=True)
        until(lambda: all(process.ended() == "" for process in running))
        told = [file.with_suffix(".log").read_text() for file in files]
        assert told == ["on 4\n", "on 7\n", "on 7\n"]

    def test_what_outlives_the_study_is_told_when_it_is_stopped(self, place, base, monkeypatch):
        def interrupted(study: procedure.Study) -> list[str]:
            raise KeyboardInterrupt

        one = planned(*base)
        monkeypatch.setattr(procedure, "run_study", interrupted)
        with pytest.raises(SystemExit) as caught:
            carry_out(one)
        assert len(str(caught.value).splitlines()) == 1
        monkeypatch.setattr(one.launcher, "left", lambda: "SLURM keeps 7")
        with pytest.raises(SystemExit, match="the same command goes on: .*\nSLURM keeps 7$"):
            carry_out(one)

    def test_kill_9_of_the_study_then_the_same_command(self, study, place, base):
        """What it left running ends first, is not started again, and its result is used."""
        (place / "hold").touch()
        first = study()
        until(lambda: len(started(place)) == 1)
        first.kill()
        first.wait()
        second = study()
        log = next((place / "runs" / "study_mine" / "jobs").glob("*.log"))
        until(lambda: "waiting for it" in log.read_text())
        (place / "hold").unlink()
        told(second)
        assert len(started(place)) == len(set(started(place))) == 3
        assert rows(place) == expected_rows(place, base)

    def test_kill_9_of_a_job_then_the_same_command(self, study, place, base):
        (place / "hold").touch()
        first = study()
        until(lambda: len(started(place)) == 1)
        job = started(place)[0]
        (pid,) = pids_of(job)
        os.kill(pid, signal.SIGKILL)
        (place / "hold").unlink()
        out = told(first, status=1)
        assert "failed, killed by SIGKILL" in out
        assert statuses(place) == ["failed", "done", "done"]
        carried_out(base)
        assert started(place).count(job) == 2
        assert len(started(place)) == 4
        assert rows(place) == expected_rows(place, base)

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_asked_to_stop_it_ends_its_jobs_and_says_how_to_go_on(self, number, study, place, base):
        (place / "hold").touch()
        first = study()
        until(lambda: len(started(place)) == 1)
        (pid,) = pids_of(started(place)[0])
        with pytest.raises(InputError, match=f"worked on by process {first.pid};"):
            carried_out(base)  # a second one beside it
        asked = time.monotonic()
        first.send_signal(number)
        out = told(first, status=1)
        assert time.monotonic() - asked < running.GRACE_S  # its jobs were asked, too
        assert "the same command goes on: python study.py study=mine" in out
        assert "Traceback" not in out
        assert not Path(f"/proc/{pid}").exists()
        (place / "hold").unlink()
        carried_out(base)
        assert rows(place) == expected_rows(place, base)

    def test_only_a_whole_result_of_the_very_job_counts(self, place, base):
        carried_out(base)
        names = [job.name for job in planned(*base).jobs]
        jobs = place / "runs" / "study_mine" / "jobs"
        (jobs / names[0] / "rows.csv").unlink()
        marker = jobs / names[1] / folder.MARKER
        marker.write_text(marker.read_text().replace(names[1][-8:], "00000000"))
        carried_out(base)
        assert started(place)[3:] == names[:2]
        assert rows(place) == expected_rows(place, base)

    def test_a_folder_of_something_else_is_refused(self, place, base):
        (place / "runs" / "mine" / "2026-01-01").mkdir(parents=True)
        with pytest.raises(InputError, match="something else than a study"):
            planned(*base, "name=mine")


def pids_of(job: str) -> list[int]:
    """Processes of this folder whose command line names the job; other tests have one like it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            here = (path.parent / "cwd").resolve() == Path.cwd().resolve()
            if here and job in path.read_bytes().decode():
                found.append(int(path.parent.name))
        except (OSError, UnicodeDecodeError):
            continue
    return found


NVIDIA_SMI = """#!/bin/sh
echo "GPU 0: NVIDIA A100 (UUID: GPU-1)"
echo "  MIG 1g.5gb Device 0: (UUID: MIG-1)"
echo "GPU 1: NVIDIA A100 (UUID: GPU-2)"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends them with their parent")
def test_kill_9_of_a_job_ends_what_it_started_for_its_devices(tmp_path):
    """As torch's launcher starts them: in a session of their own, which no signal reaches."""
    child = (
        "import os, pathlib, sys, time; from segshift.launch import end_with; "
        "end_with(int(sys.argv[1])); pathlib.Path('ready').write_text(str(os.getpid())); "
        "time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys; command = [sys.executable, '-c', sys.argv[1], "
        "str(os.getpid())]; subprocess.run(command, start_new_session=True)"
    )
    job = subprocess.Popen([sys.executable, "-c", parent, child], cwd=tmp_path)
    ready = tmp_path / "ready"
    until(lambda: ready.is_file() and ready.read_text() != "")
    job.kill()
    job.wait()
    until(lambda: not is_running(int(ready.read_text())), seconds=5)
    late = subprocess.run([sys.executable, "-c", child, "1"], cwd=tmp_path, check=False)
    assert late.returncode == 1  # its parent had ended before it looked


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def left_in(study: Path) -> dict[str, object]:
    """Every table and summary of a study and of its jobs, without times."""
    found: dict[str, object] = {}
    for place in (study, *sorted((study / "jobs").glob("*/"))):
        for path in place.glob("*.csv"):
            lines = list(csv.DictReader(path.open()))
            timeless = [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
            found[str(path.relative_to(study))] = timeless
        numbers = json.loads((place / "summary.json").read_text())
        kept = {k: v for k, v in numbers.items() if not k.startswith(("time/", "memory/"))}
        found[str((place / "summary.json").relative_to(study))] = kept
    return found


@pytest.mark.slow
def test_killed_twice_a_real_study_leaves_what_an_undisturbed_one_does(study, place, base):
    """kill -9 of the study and its job: in the training, then in the attribution."""
    words = [
        *base, "data.sites=[north,south]", "model=unet2d", "trainer.epochs=2",
        "trainer.steps_per_epoch=20", "plan.batch=2", "study.attribute=true",
    ]  # fmt: skip
    yaml = place / "study" / "mine.yaml"
    yaml.write_text(STUDY.replace("at_least: 3", "at_least: 2"))

    def start(name: str) -> subprocess.Popen[str]:
        return study(*words[len(base) :], f"name={name}", script=ROOT / "study.py")

    def kill(process: subprocess.Popen[str]) -> None:
        process.kill()
        for pid in pids_of(first):
            os.kill(pid, signal.SIGKILL)
        process.wait()

    told(start("whole"))
    broken = start("broken")
    first = planned(*words).jobs[0].name
    job = place / "runs" / "broken" / "jobs" / first
    log = job.with_suffix(".log")
    until(lambda: log.is_file() and "epoch 1/2" in log.read_text(), seconds=100)
    kill(broken)
    assert not (place / "runs" / "broken" / "rows.csv").exists()
    broken = start("broken")
    until(lambda: (job / folder.MARKER).is_file(), seconds=200)
    kill(broken)
    assert not (job / "attribution.csv").exists()
    out = told(start("broken"))
    assert "2/2" in out
    assert log.read_text().count("epoch 2/2") == 1
    whole, again = (left_in(place / "runs" / name) for name in ("whole", "broken"))
    assert whole == again
    assert {"rows.csv", "matrix.csv", "attribution.csv", f"jobs/{first}/attribution.csv"} <= set(
        whole
    )
    assert len(whole["rows.csv"]) > 20
    assert whole["attribution.csv"]
    assert (place / "runs" / "broken" / "report.html").is_file()
