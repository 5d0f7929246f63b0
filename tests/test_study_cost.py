"""What a study will take, and what its lines in the terminal say before and after a job."""

import json

import pytest
from omegaconf import OmegaConf
from study_stub import planned

from segshift import build
from segshift.metrics import Measure
from segshift.results import write_measures
from segshift.study import console, cost, folder, procedure
from segshift.study.cost import known_cost
from segshift.study.jobs import Job


class TestCost:
    def job(self, name: str, *, model: str = "a", steps: int = 10) -> Job:
        config = {"model": {"size": model, "seed": name}, "split": name}
        return Job(
            name=name, part="p", train="t", variant="", seed="0", fold="", steps=steps, passes=2,
            oracle=(0, 0), identity=name, overrides=(), choices={}, config=config,
        )  # fmt: skip

    def test_from_finished_jobs_of_the_same_network_or_of_all(self):
        jobs = [
            self.job("done", steps=10), self.job("slow", model="b", steps=20), self.job("x"),
            self.job("y", model="b", steps=40), self.job("z", model="c", steps=3),
        ]  # fmt: skip
        waiting = folder.State(folder.WAITING)
        states = {job.name: waiting for job in jobs}
        assert known_cost(jobs, jobs, states, at_once=1) is None
        states |= {"done": folder.State("done", 5.0), "slow": folder.State("done", 40.0)}
        rest = known_cost(jobs[2:], jobs, states, at_once=2)
        assert (rest.jobs, rest.steps, rest.passes) == (3, 53, 6)
        assert rest.seconds == pytest.approx((10 * 0.5 + 40 * 2.0 + 3 * 45 / 30) / 2)
        alone = known_cost(jobs[2:3], jobs, states, at_once=100)
        assert alone.seconds == pytest.approx(5.0)

    def test_every_set_is_tested_as_it_is_and_through_every_shift(self, place, base):
        shifted = planned(*base, "shift=mild").jobs
        severities = len(build.shifts_of(OmegaConf.create(shifted[0].config)))
        assert severities > 1
        assert {job.passes for job in shifted} == {2 * (1 + severities)}

    def test_how_much_of_a_site_its_own_network_judges_is_told(self, place, base):
        words = [*base[1:], "study=cross_site"]
        told = console.oracle_line(planned(*words, "seed=0,1").jobs)
        assert told == (
            "oracle:    judges 1 of 4 patients at north, 1 of 4 patients at south, "
            "1 of 4 patients at west; split.fold=0,1,2,3 judges all"
        )
        assert "3 of 4 patients at west" in console.oracle_line(
            planned(*words, "split.fold=0,1,3").jobs
        )
        assert console.oracle_line(planned(*words, "split.fold=0,1,2,3").jobs) == ""
        assert console.oracle_line(planned(*base).jobs) == ""

    def test_a_job_that_ended_tells_of_every_set_as_it_was_acquired(self, tmp_path):
        sets = {"train": [], "val": [], "in_domain": [], "scanner-b": [], "prevalence-0.2": []}
        (tmp_path / "split.json").write_text(json.dumps(sets))
        (tmp_path / "summary.json").write_text(json.dumps({
            "val/selection_score": 1, "test/in_domain/hd95": 2.0, "test/scanner-b/hd95": 3.0,
            "test/scanner-b/iou": 0.5, "test/prevalence-0.2/hd95": 4.0, "test/worst_site/hd95": 4.0,
        }))  # fmt: skip
        write_measures(tmp_path, [Measure("hd95", "mm", "lower"), Measure("iou", "", "higher")])
        assert console.ended_line(tmp_path, seconds=7.4) == (
            "hd95 in_domain 2.0, scanner-b 3.0, prevalence-0.2 4.0; 7 s"
        )

    def test_each_network_is_measured_once(self, place, base, monkeypatch):
        jobs = planned(*base, "model=unet2d,unet25d", "seed=0,1", "trainer.steps_per_epoch=7").jobs
        measured = []
        real = cost.measured_step_s
        monkeypatch.setattr(
            cost, "measured_step_s", lambda config: measured.append(config) or real(config)
        )
        found = cost.measured_cost(jobs)
        assert len(measured) == 2
        assert (found.jobs, found.steps, found.passes) == (12, 84, 24)
        assert found.seconds > 12 * cost.START_S

    def test_precisions_that_machines_chose_themselves_are_told_where_they_differ(
        self, place, base
    ):
        jobs = planned(*base).jobs
        for job, taken in zip(jobs, ("bf16-mixed", "32-true", "bf16-mixed"), strict=True):
            run = folder.run_folder(folder.job_file(place, job.name))
            run.mkdir(parents=True)
            (run / "network.json").write_text(json.dumps({"precision": taken}))
        told = console.precision_line(place, jobs)
        assert told.startswith("precision: 32-true in 1 jobs, bf16-mixed in 2 jobs, ")
        assert console.precision_line(place, jobs[::2]) == ""
        named = planned(*base, "trainer.precision=32-true").jobs
        assert console.precision_line(place, named) == ""

    @pytest.mark.parametrize(("word", "times"), [("dry_run=true", 1), ("dry_run=false", 0)])
    def test_precisions_are_shown_before_only_where_nothing_comes_after(
        self, word, times, place, base, monkeypatch, capsys
    ):
        """A study that goes on prints the line when it has ended."""
        monkeypatch.setattr(console, "precision_line", lambda folder, done: "precision: two")
        monkeypatch.setattr(cost, "measured_step_s", lambda config: 1.0)
        procedure.show(planned(*base, word))
        assert capsys.readouterr().out.count("precision: two") == times
