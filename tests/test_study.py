"""The jobs that a study plans, also a study of ours and one that the docs show."""

import re
import shlex
import subprocess
import sys

import pytest
from conftest import ROOT, make_case, reannotated
from omegaconf import OmegaConf
from row_inputs import MEASURES, row
from study_stub import SITES, STUDY, carried_out, planned, rows, started, statuses
from test_conf import choices

from segshift import build
from segshift.cohort import write_manifest
from segshift.errors import InputError
from segshift.results import (
    read_study,
    sites_of,
    study_tables,
    write_measures,
    write_rows,
)
from segshift.study import folder, procedure
from segshift.study.expansion import parts_of
from segshift.study.jobs import distinct


class TestJobs:
    def test_each_is_composed_split_and_named(self, place, base):
        jobs = planned(*base, "seed=0,1", "model=unet2d,unet25d").jobs
        assert len(jobs) == len({job.name for job in jobs}) == len({j.identity for j in jobs}) == 12
        first = jobs[0]
        assert (first.part, first.train, first.variant) == (
            "out",
            ("south", "west"),
            "model=unet2d",
        )
        assert (first.seed, first.fold, first.steps) == ("0", "", 1)
        assert first.name == f"south+west-leave_site_out-unet2d-dice_ce-seed0-{first.identity[:8]}"
        assert first.config["split"]["held_out"] == "north"
        assert first.config["logger"]["group"] == "study_mine"
        assert first.choices["model"] == "unet2d"
        assert {job.train for job in jobs} == {
            ("south", "west"),
            ("north", "west"),
            ("north", "south"),
        }

    def test_a_fold_is_told_and_many_sites_are_named_by_those_left_out(self, place, base):
        (place / "study" / "folds.yaml").write_text(
            "parts: {a: {overrides: [split=kfold, 'split.folds=2', 'split.fold=0,1']}}\n"
        )
        jobs = planned(*base[1:], "study=folds").jobs
        assert [job.fold for job in jobs] == ["0", "1"]
        assert {job.train for job in jobs} == {("north", "south", "west")}
        assert jobs[1].name.startswith("north+south+west-kfold-unet3d-dice_ce-seed0-fold1-")

    def test_what_two_parts_name_is_one_job(self, place, base):
        twice = STUDY.replace("  out:", "  again: {overrides: [split=leave_site_out, "
                              "split.held_out=north]}\n  out:")  # fmt: skip
        (place / "study" / "mine.yaml").write_text(twice)
        jobs = planned(*base).jobs
        assert [(job.part, job.train) for job in jobs] == [
            ("again", ("south", "west")), ("out", ("south", "west")), ("out", ("north", "west")),
            ("out", ("north", "south")),
        ]  # fmt: skip
        assert [job.name for job in distinct(jobs)] == [job.name for job in jobs[1:]]
        # Variants that differ in what changes no row share it as well.
        jobs = planned(*base[1:], "study=mine", "trainer.workers=0,1").jobs
        assert {job.variant for job in jobs} == {"trainer.workers=0", "trainer.workers=1"}
        assert (len(jobs), len(distinct(jobs))) == (8, 3)

    def test_what_two_parts_share_is_run_once_and_in_the_tables_of_both(self, place, base):
        twice = STUDY.replace("  out:", "  again: {overrides: [split=leave_site_out, "
                              "split.held_out=north]}\n  out:")  # fmt: skip
        (place / "study" / "mine.yaml").write_text(twice)
        carried_out(base)
        assert len(started(place)) == 3
        assert statuses(place) == ["done"] * 4
        assert len(rows(place).splitlines()) == 4
        shared = study_tables(read_study(place / "runs" / "study_mine")).matrix
        trained = [sites_of(train) for train in shared["train"]]
        assert set(zip(shared["part"], trained, strict=True)) == {
            ("again", ("south", "west")), ("out", ("south", "west")), ("out", ("north", "west")),
            ("out", ("north", "south")),
        }  # fmt: skip

    def test_a_site_may_be_called_as_people_call_it(self, place, own):
        """From the manifest to jobs.csv: its training sites are a list, whatever they hold."""
        path = place / "own" / "m.csv"
        path.write_text(path.read_text().replace(",north,", ",A+B 3,").replace(",south,", ",A,"))
        jobs = planned(*own).jobs
        assert {job.train for job in jobs} == {("A", "A+B 3"), ("A", "west"), ("A+B 3", "west")}
        carried_out(own)
        table = read_study(place / "runs" / "study_mine").jobs
        assert {sites_of(train) for train in table["train"]} == {job.train for job in jobs}

    def test_no_name_is_longer_than_a_file_system_takes(self, place, own):
        site = "\u533b" * 80
        path = place / "own" / "m.csv"
        path.write_text(path.read_text().replace(",north,", f",{site},"))
        jobs = planned(*own).jobs
        assert {job.train for job in jobs} == {("south", site), ("west", site), ("south", "west")}
        for job in jobs:
            assert len(f".{job.name}.json.1234567".encode()) <= 255
        carried_out(own)

    @pytest.mark.parametrize(
        "word", ["train_patients=1,3", "selection=leave_one_site_out", "selection=oracle"]
    )
    def test_train_is_where_the_split_trains_whomever_it_is_narrowed_to(self, word, place, base):
        jobs = planned(*base, word).jobs
        assert {job.train for job in jobs} == {
            ("south", "west"),
            ("north", "west"),
            ("north", "south"),
        }

    def test_what_the_tables_would_take_for_one_job_is_refused(self, place, base):
        with pytest.raises(InputError, match="do not tell apart") as caught:
            planned(*base, "split.held_out=[north,south],[south,north],west")
        assert "[north,south] and split.held_out=[south,north] alone" in str(caught.value)
        assert str(caught.value).count("west-leave_site_out-") == 2
        # A site to choose on leaves the training sites as they are, so it is a variant.
        (place / "study" / "mine.yaml").write_text("parts: {all: {overrides: [split=random]}}\n")
        jobs = planned(*base, "selection=leave_one_site_out", "selection_site=each_site").jobs
        assert [job.variant for job in jobs] == [f"selection_site={site}" for site in SITES]
        assert {job.train for job in jobs} == {("north", "south", "west")}

    def test_a_site_too_small_to_train_at_may_stay_a_test_site(self, place, base):
        cases = [
            make_case(place / "own", f"{s}-{i}", site=s)
            for s in SITES
            for i in range(1 if s == "west" else 4)
        ]
        path = place / "own" / "m.csv"
        write_manifest(path, cases, channels=["image"], structures=["box", "core"])
        words = [*base[1:], "study=cross_site", "study.parts.leave_site_out=null"]
        words.append(f"data.manifest={path}")
        with pytest.raises(InputError, match=r"1 patient\(s\) at \['west'\]") as caught:
            planned(*words)
        hint, _, rest = caught.value.__notes__[0].partition(" ")
        assert (hint, rest.split()[-1]) == ("split.source=north,south", "west")
        jobs = planned(*words, hint).jobs
        assert [job.train for job in jobs] == [("north",), ("south",)]
        # Its user's own choice of sites is no reason to advise all others.
        with pytest.raises(InputError, match="west") as caught:
            planned(*words, "split.source=west")
        assert all("trains at" not in note for note in caught.value.__notes__)

    def test_a_case_without_a_label_is_seen_before_anything_runs(self, place, base):
        cases = [make_case(place / "own", f"{s}-{i}", site=s) for s in SITES for i in range(4)]
        path = place / "own" / "m.csv"
        without = [reannotated(case, label=None) if case.id == "west-1" else case for case in cases]
        write_manifest(path, without, channels=["image"], structures=["box", "core"])
        with pytest.raises(InputError, match=r"no label, such as \['west-1'\]") as caught:
            planned(*base, f"data.manifest={path}")
        assert "in the job out: " in caught.value.__notes__[0]

    def test_the_cohort_is_read_once(self, place, base, monkeypatch):
        reads = []
        real = build.cohort_of
        monkeypatch.setattr(build, "cohort_of", lambda config: reads.append(1) or real(config))
        planned(*base, "seed=0,1,2")
        assert len(reads) == 1
        planned(*base, "data.sites=[north,south,west],null")
        assert len(reads) == 3

    def test_an_error_names_the_job(self, place, base):
        with pytest.raises(InputError, match="trainer.epochs=0") as caught:
            planned(*base, "trainer.epochs=1,0")
        assert (
            "in the job out: split=leave_site_out split.held_out=north"
            in (caught.value.__notes__[0])
        )
        with pytest.raises(Exception, match="focall") as caught:
            planned(*base, "loss=focall")
        assert "loss=focall" in caught.value.__notes__[0]

    def test_too_few_sites_is_said(self, place, base):
        with pytest.raises(InputError, match="fewer than 3 sites.*out 3"):
            planned(*base, "data.sites=[north,south]")

    def test_an_experiments_options_of_another_split_fall_away(self, place, base):
        (place / "experiments").mkdir()
        (place / "experiments" / "theirs.yaml").write_text(
            "# @package _global_\ndefaults: [override /split: kfold, override /loss: focal]\n"
            "split: {folds: 4, fold: 0, val_fraction: 0.3}\n"
        )
        job = planned(*base, "experiments=theirs").jobs[0]
        assert "folds" not in job.config["split"]
        assert job.config["split"]["val_fraction"] == 0.3
        assert job.choices["loss"] == "focal"


class TestStudiesOfOurs:
    @pytest.mark.parametrize("name", choices("study"))
    def test_every_study_is_whole_and_asks_a_question(self, name):
        study = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "study" / f"{name}.yaml"))
        assert study["question"].endswith("?")
        assert set(study) == {"question", "overrides", "parts", "attribute"}
        assert parts_of(study, (), split_options=frozenset)

    @pytest.mark.parametrize(
        ("study", "jobs", "variants"),
        [
            ("loss_comparison", 15, 5),
            ("dimension", 9, 3),
            ("learning_curve", 9, 3),
            ("cross_site", 6, 1),
        ],
    )
    def test_expansion_over_three_sites(self, study, jobs, variants, place, base):
        sizes = ["train_patients=1,2,3"] if study == "learning_curve" else []
        found = planned(*base[1:], f"study={study}", *sizes).jobs
        assert (len(found), len({job.variant for job in found})) == (jobs, variants)

    @pytest.mark.parametrize("selection", ["source_val", "oracle", "leave_one_site_out"])
    @pytest.mark.parametrize("name", choices("study"))
    def test_each_job_is_a_line_of_its_own_under_every_selection(
        self, name, selection, place, base
    ):
        """As many training sites as there are, under each variant: none is taken for another."""
        words = [*base[1:], f"study={name}", f"selection={selection}"]
        short = {"learning_curve": "train_patients=1,2", "loss_comparison": "loss=dice,focal"}
        words += [short[name]] if name in short else []
        parts = OmegaConf.load(ROOT / "conf" / "study" / f"{name}.yaml").parts
        if selection == "leave_one_site_out" and "single_source" in parts:
            words.append("study.parts.single_source=null")  # has no site to spare
        jobs = planned(*words).jobs
        told = {(job.part, job.variant, job.train, job.seed, job.fold) for job in jobs}
        blocks = {(job.part, job.variant) for job in jobs}
        assert len(told) == len(jobs) == len(SITES) * len(blocks)

    def test_a_learning_curve_compares_its_numbers_of_patients(self, place, base):
        jobs = planned(*base[1:], "study=learning_curve", "train_patients=1,3").jobs
        folder.write_jobs(place, jobs, {job.name: folder.State("done", 1.0) for job in jobs})
        lines = []
        for job in jobs:
            value = 0.5 if job.variant == "train_patients=1" else 0.75
            out = job.config["split"]["held_out"]
            home = next(site for site in SITES if site != out)
            for set_, site in (("in_domain", home), (f"site-{out}", out)):
                lines += [row(job.name, set_, f"{site}-{i}", site, value) for i in range(3)]
        write_rows(place / "rows.csv", lines)
        write_measures(place, MEASURES.values())
        variants = study_tables(read_study(place)).variants
        assert list(variants["difference"]) == [0.25] * 6
        trained = [sites_of(train) for train in variants["train"]]
        assert set(zip(trained, variants["set"], strict=True)) == {
            (("south", "west"), "in_domain"), (("south", "west"), "site-north"),
            (("north", "west"), "in_domain"), (("north", "west"), "site-south"),
            (("north", "south"), "in_domain"), (("north", "south"), "site-west"),
        }  # fmt: skip


def test_a_study_is_planned_without_torch(place, base):
    code = (
        "import sys; from segshift.study.procedure import help_text, planned_study; help_text();"
        "planned_study(sys.argv[1:]); print([m for m in ('torch', 'monai') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, *base]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.strip() == "[]"


DOCS = (ROOT / "docs" / "studies.md").read_text()
README = (ROOT / "README.md").read_text()
SHOWN = [
    line for block in re.findall(r"```bash\n(.*?)```", DOCS + README, re.DOTALL)
    for line in block.splitlines() if line.startswith("python study.py")
]  # fmt: skip


class TestWhatTheDocsShow:
    @pytest.mark.parametrize("command", SHOWN)
    def test_every_command_is_a_study(self, command, place, manifest, workplace, monkeypatch):
        monkeypatch.setattr("segshift.study.slurm.shutil.which", lambda name: name)
        monkeypatch.setattr("segshift.options.check_accelerator", lambda name: None)
        words = shlex.split(command.replace("PATH", str(manifest)))[2:]
        assert planned(*words, f"store={workplace / 'store'}").jobs

    def test_the_study_of_ones_own(self, place, base):
        (yaml,) = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
        (place / "study" / "augmentation.yaml").write_text(yaml)
        assert len(planned(*base[1:], "study=augmentation").jobs) == 3 * 2 * 3

    def test_every_study_of_ours_is_listed(self):
        assert set(re.findall(r"^\| `(\w+)` \|.*\|.*\|$", DOCS, re.MULTILINE)) >= set(
            choices("study")
        )
        for name in choices("study"):
            assert f"study={name} " in procedure.help_text()
