"""Studies on a cluster: what is submitted, waited for and submitted again."""

import os
import time
from pathlib import Path

import pytest
from study_stub import executable, expected_rows, planned, rows, started, statuses, told, until

from segshift.errors import InputError
from segshift.study import cost, procedure, slurm

SBATCH = """#!/bin/sh
# A cluster of one: the script of the job is run here, in the background.
for last; do :; done
number=$(($(cat "$QUEUE/count" 2>/dev/null || echo 100) + 1))
echo $number > "$QUEUE/count"
echo "$@" >> "$QUEUE/submitted"
export SLURM_JOB_ID=$number SLURM_CPUS_PER_TASK=3 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0
export SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=here
cp "$last" "$QUEUE/$number.sh"
echo RUNNING > "$QUEUE/$number.state"
(if sh "$QUEUE/$number.sh"; then echo COMPLETED; else echo FAILED; fi > "$QUEUE/$number.end"
 mv "$QUEUE/$number.end" "$QUEUE/$number.state") > "$QUEUE/$number.out" 2>&1 < /dev/null &
echo "Submitted batch job $number"
"""
SRUN = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do
  case "$1" in --output|--error) shift;; esac
  shift
done
exec "$@"
"""
SACCT = """#!/bin/sh
echo "JobID|State|NodeList"
for file in "$QUEUE"/*.state; do
  number=$(basename "$file" .state); echo "$number|$(cat "$file")|here"
done
"""
SQUEUE = """#!/bin/sh
# squeue -h -j NUMBER; of a job that ended a while ago it says that there is no such number.
[ -e "$QUEUE/trouble" ] && { cat "$QUEUE/trouble" >&2; exit 1; }
grep -qs -e RUNNING -e PREEMPTED -e SUSPENDED -e RESIZING "$QUEUE/$3.state" && echo "$3"
exit 0
"""


class TestSlurm:
    @pytest.fixture
    def cluster(self, place, monkeypatch):
        """`sbatch` and its like, in front of the path."""
        (place / "bin").mkdir()
        stubs = {"sbatch": SBATCH, "srun": SRUN, "sacct": SACCT, "squeue": SQUEUE}
        for name, text in stubs.items():
            executable(place / "bin" / name, text)
        monkeypatch.setenv("PATH", f"{place / 'bin'}:{os.environ['PATH']}")
        monkeypatch.setenv("QUEUE", str(place / "bin"))
        return place / "bin"

    def test_without_a_cluster_it_says_so(self, place, base, monkeypatch):
        monkeypatch.setenv("PATH", str(place))
        with pytest.raises(InputError, match="no sbatch on this machine.*launcher=local"):
            planned(*base, "launcher=slurm")

    def test_options_are_checked(self, cluster, place, base):
        for word in ("hours=0", "hours=two", "memory_gb=-1", "at_once=0", "cpus=0.5", "gpus=-1"):
            with pytest.raises(InputError, match=f"launcher.{word}"):
                planned(*base, "launcher=slurm", f"launcher.{word}")

    @pytest.mark.parametrize(
        ("accelerator", "devices", "gpus", "refused"),
        [
            ("gpu", 2, 1, True), ("gpu", 1, 0, True), ("auto", 2, 1, True),
            ("gpu", 2, 2, False), ("auto", 2, 0, False), ("cpu", 2, 1, False),
        ],
    )  # fmt: skip
    def test_more_devices_than_a_job_is_submitted_with_are_refused(
        self, accelerator, devices, gpus, refused, cluster, place, base
    ):
        words = (
            *base, "trainer=ddp", f"trainer.accelerator={accelerator}",
            f"trainer.devices={devices}", "launcher=slurm", f"launcher.gpus={gpus}",
        )  # fmt: skip
        if not refused:
            planned(*words)
            return
        wrong = f"trainer.devices={devices}, but launcher.gpus={gpus}.* set launcher.gpus={devices}"
        with pytest.raises(InputError, match=wrong):
            planned(*words)

    def test_a_login_node_without_a_gpu_shows_what_it_will_submit(
        self, cluster, place, base, monkeypatch, capsys
    ):
        def measured(config: object) -> float:
            raise InputError("no GPU is here")

        monkeypatch.setattr(cost, "measured_step_s", measured)
        procedure.show(planned(*base, "trainer=gpu", "launcher=slurm", "dry_run=true"))
        told = " ".join(capsys.readouterr().out.split())
        assert "3 jobs; 3 steps, 6 tests of a set; how long is known once a job" in told
        with pytest.raises(InputError, match="no GPU is here"):  # on this machine it matters
            procedure.show(planned(*base, "trainer=gpu"))

    @staticmethod
    def recorded(place: Path, number: int) -> Path:
        """The file of a job that an earlier study submitted."""
        file = place / f"job{number}.json"
        file.write_text("{}")
        file.with_suffix(".slurm").write_text(f"{number}\n")
        return file

    @staticmethod
    def launcher() -> slurm.SlurmLauncher:
        return slurm.SlurmLauncher(at_once=1, hours=1, cpus=1, memory_gb=1, gpus=0)

    # submitit remembers what it heard of each job, so no two tests have one number.
    @pytest.mark.parametrize(
        ("number", "state"), [(9001, "PREEMPTED"), (9011, "SUSPENDED"), (9012, "RESIZING")]
    )
    def test_a_job_that_may_go_on_is_waited_for_while_it_is_in_the_queue(
        self, number, state, cluster, place, monkeypatch, capsys
    ):
        monkeypatch.setattr(slurm, "ASKED_EVERY_S", 0.0)
        (cluster / f"{number}.state").write_text(f"{state}\n")
        launcher = self.launcher()
        process = launcher.start(self.recorded(place, number))
        assert process.ended() is None
        assert capsys.readouterr().out.count(f"waiting for SLURM job {number} ({state})") == 1
        assert launcher.left() == f"SLURM keeps {number}; to end them: scancel {number}"
        (cluster / "trouble").write_text("slurm_load_jobs error: Unable to contact controller\n")
        assert process.ended() is None
        (cluster / "trouble").unlink()
        (cluster / f"{number}.state").unlink()
        assert process.ended() == f"SLURM job {number} {state}, no longer in the queue"
        assert launcher.left() == ""
        assert not (cluster / "submitted").exists()

    @pytest.mark.parametrize(
        ("number", "state"),
        [(9021, "CANCELLED by 0"), (9022, "DEADLINE"), (9023, "REVOKED"), (9024, "OUT_OF_MEMORY")],
    )
    def test_a_job_that_sacct_says_is_over_is_so_whatever_squeue_says(
        self, number, state, cluster, place
    ):
        import submitit

        (cluster / f"{number}.state").write_text(f"{state}\n")
        (cluster / "squeue").write_text(f"#!/bin/sh\necho {number}\n")  # it forgets later
        job = submitit.SlurmJob(folder=place / "slurm", job_id=str(number))
        assert slurm.SlurmProcess(job).ended() == f"SLURM job {number} {state}"

    @pytest.mark.parametrize("trouble", ["", "slurm_load_jobs error: Invalid job id specified\n"])
    def test_a_job_that_nobody_knows_is_submitted_again(self, trouble, cluster, place):
        number = 9002 + bool(trouble)  # submitit remembers what it asked about each
        (cluster / "sacct").write_text("#!/bin/sh\necho 'JobID|State|NodeList'\n")
        if trouble:
            (cluster / "trouble").write_text(trouble)
        launcher = self.launcher()
        launcher.command = lambda file: ["true"]
        process = launcher.start(self.recorded(place, number))
        assert process.job.job_id != str(number)
        assert len((cluster / "submitted").read_text().splitlines()) == 1

    @pytest.mark.slow
    def test_a_job_that_is_refused_does_not_stop_the_others(self, cluster, study, place, base):
        real = (cluster / "sbatch").read_text()
        (cluster / "sbatch").write_text(
            real.replace(
                "for last", 'mkdir "$QUEUE/once" 2>&- && { echo no quota >&2; exit 1; }\nfor last'
            )
        )
        out = told(study("launcher=slurm"), status=1)
        assert "1 of 3 jobs failed" in out
        assert "failed, it was not started: " in out
        assert "no quota" in out
        assert statuses(place) == ["failed", "done", "done"]
        told(study("launcher=slurm"))
        assert rows(place) == expected_rows(place, base)

    @pytest.mark.slow
    def test_killed_and_started_again_it_waits_for_what_it_submitted(
        self, cluster, study, place, base
    ):
        (place / "hold").touch()
        words = ["launcher=slurm", "launcher.partition=fast", "launcher.gpus=0", "launcher.hours=2"]
        first = study(*words)
        until(lambda: len(started(place)) == 3, seconds=120)  # all at once
        first.kill()
        first.wait()
        submitted = (cluster / "submitted").read_text().splitlines()
        assert len(submitted) == 3
        scripts = "".join(path.read_text() for path in cluster.glob("*.sh"))
        for option in ("--partition=fast", "--time=120", "--cpus-per-task=8", "--mem=32GB"):
            assert option in scripts
        second = study(*words)
        time.sleep(1)
        (place / "hold").unlink()
        told(second)
        assert len((cluster / "submitted").read_text().splitlines()) == 3
        assert len(started(place)) == 3
        assert rows(place) == expected_rows(place, base)

    @pytest.mark.slow
    def test_a_failed_job_is_named_and_submitted_again(self, cluster, study, place, base):
        (place / "fail-south").touch()
        out = told(study("launcher=slurm"), status=1)
        assert "failed, SLURM job 10" in out
        assert "no such luck at south" in out
        (place / "fail-south").unlink()
        told(study("launcher=slurm"))
        assert len((cluster / "submitted").read_text().splitlines()) == 4
        assert rows(place) == expected_rows(place, base)
