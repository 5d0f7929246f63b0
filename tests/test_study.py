"""Studies: what is expanded, what is one job, and what a kill at any moment leaves behind."""

import csv
import itertools
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from conftest import ROOT, TINY_TRAINING, make_case
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from study_inputs import row
from test_conf import choices

import segshift
from segshift import build
from segshift.cohort import write_manifest
from segshift.errors import InputError
from segshift.results import read_rows, read_study, study_tables, write_rows
from segshift.study import console, cost, folder, identity, procedure, running, slurm
from segshift.study.cost import known_cost
from segshift.study.expansion import Part, checked_study, combinations, parts_of
from segshift.study.identity import IRRELEVANT, check_unchanged
from segshift.study.jobs import Job, distinct
from segshift.study.running import LocalLauncher, gpu_shares, visible_gpus
from segshift.study.words import divided, overridden, parsed

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
    header = "run,set,case,patient,site,structure,metric,value" + chr(10)
    line = 'jobs/x,in_domain,"a,b",p,north,box,dice,0.1' + chr(10)
    (folder / "rows.csv").write_text(header + line)
    (folder / "summary.json").write_text('{"val/dice": 1, "test/in_domain/dice": 0.5}')

def attribute(folder, *, data):
    assert data["cohort"], data
    if Path("fail-attribution").exists():
        raise InputError("the case north-0 is gone")
    time.sleep(0.2)
    with open("attributed.txt", "a") as file:
        file.write(folder.name + chr(10))

def has_target(names):
    return len(names) > 1

stub = types.SimpleNamespace(attribute=attribute, has_target=has_target)
sys.modules["segshift.attribution"] = stub
sys.modules["segshift.run"] = types.SimpleNamespace(train=train)
from segshift.study.job import main
main()
"""
CONTROLLER = """
import sys
sys.path.insert(0, TESTS)
from test_study import carried_out
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


@pytest.fixture(scope="module")
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


def planned(*words: str) -> procedure.Study:
    return procedure.planned_study(words)


class TestWords:
    def test_the_studys_words_are_told_from_those_of_its_jobs(self):
        own, jobs = divided(
            ["study=demo", "model=unet2d", "workers=2", "study.attribute=false", "launcher=slurm",
             "launcher.hours=2", "dry_run=true", "name=x", "folder=y", "trainer.workers=1",
             "~study.parts.out", "+more=1"]
        )  # fmt: skip
        assert own == (
            "study=demo", "workers=2", "study.attribute=false", "launcher=slurm",
            "launcher.hours=2", "dry_run=true", "name=x", "folder=y", "~study.parts.out",
        )  # fmt: skip
        assert [word.texts for word in jobs] == [
            ("model=unet2d",), ("trainer.workers=1",), ("+more=1",),
        ]  # fmt: skip

    def test_several_values_are_an_axis_as_in_a_sweep(self):
        words = parsed(
            ["loss=dice,focal", "seed=range(0,3)", "split.held_out=[a,b],c", "x='a,b'", "+y=1,2",
             "seed2=1,1"]
        )  # fmt: skip
        assert [word.texts for word in words] == [
            ("loss=dice", "loss=focal"), ("seed=0", "seed=1", "seed=2"),
            ("split.held_out=[a,b]", "split.held_out=c"), ("x='a,b'",), ("+y=1", "+y=2"),
            ("seed2=1",),
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("word", "told"),
        [
            ("-m", "sweeps without -m"),
            ("--multirun", "--multirun"),
            ("hydra.run.dir=x", "name="),
            ("workers=1,2", "one value"),
            ("study=demo,cross_site", "one study at a time"),
            ("optim.lr=interval(0,1)", "optim.lr=1,2"),
        ],
    )
    def test_what_a_study_cannot_do_is_refused(self, word, told):
        with pytest.raises(InputError, match=told):
            divided([word])

    @pytest.mark.parametrize(
        ("base", "by", "result"),
        [
            (["loss=dice"], ["loss=focal"], ["loss=focal"]),
            (["split.fold=0"], ["split.fold=0,1"], ["split.fold=0,1"]),
            (["split=a", "split.b=each_site"], ["split=random"], ["split=random"]),
            (["split=a", "split.b=1"], ["split.c=2"], ["split=a", "split.b=1", "split.c=2"]),
            (["splitting.x=1"], ["split=random"], ["splitting.x=1", "split=random"]),
            (["model.size=1"], ["seed=1"], ["model.size=1", "seed=1"]),
        ],
    )
    def test_the_users_word_wins(self, base, by, result):
        expected = [word.texts for word in parsed(result)]
        assert [word.texts for word in overridden(parsed(base), parsed(by))] == expected


class TestExpansion:
    @staticmethod
    def all_of(*words: str, sites=SITES, at_least=1):
        part = Part("p", parsed(words), at_least)
        return list(combinations(part, lambda overrides: tuple(sites)))

    def test_every_combination_once(self):
        found = self.all_of("loss=dice,focal", "seed=0,1,2", "split.held_out=each_site", "x=1")
        expected = [
            (f"loss={loss}", f"seed={seed}", f"split.held_out={site}", "x=1")
            for loss, seed, site in itertools.product(("dice", "focal"), (0, 1, 2), SITES)
        ]
        assert [one.overrides for one in found] == expected
        assert {one.variant for one in found} == {"loss=dice", "loss=focal"}

    @pytest.mark.parametrize(
        ("words", "variants"),
        [
            (["seed=0,1", "split.fold=0,1", "split.source=a,b", "split.x=each_site"], {""}),
            (["selection_site=each_site"], {f"selection_site={site}" for site in SITES}),
            (["loss=dice"], {""}),
            (["loss=dice,focal", "+model.a=1,2"], {
                "loss=dice model.a=1", "loss=dice model.a=2",
                "loss=focal model.a=1", "loss=focal model.a=2"}),
            (["split.seed=0,1"], {"split.seed=0", "split.seed=1"}),
        ],
    )  # fmt: skip
    def test_a_variant_is_what_is_compared(self, words, variants):
        assert {one.variant for one in self.all_of(*words)} == variants

    def test_a_part_needs_its_sites(self):
        assert len(self.all_of("s=each_site", at_least=3)) == 3
        assert self.all_of("s=each_site", at_least=4) == []

    @pytest.mark.parametrize(
        "site", ["St. Mary's, ward 2", "a=b", "null", "12", "x y\\", "\xe9t\xe9", "a-b"]
    )
    def test_a_site_may_have_any_name(self, site):
        (one,) = self.all_of("split.held_out=each_site", sites=[site])
        (override,) = OverridesParser.create().parse_overrides(list(one.overrides))
        assert override.value() == site

    def test_a_part_under_the_studys_and_the_users_words(self):
        study = {
            "overrides": ["seed=0,1", "loss=dice"],
            "parts": {"a": {"overrides": ["loss=focal"]}, "b": None, "c": {"sites_at_least": 2}},
        }
        a, c = parts_of(study, parsed(["seed=5"]), split_options=frozenset)
        assert [word.texts[0] for word in a.words] == ["loss=focal", "seed=5"]
        assert [word.texts[0] for word in c.words] == ["loss=dice", "seed=5"]
        assert (a.sites_at_least, c.sites_at_least) == (1, 2)

    @pytest.mark.parametrize(
        ("study", "told"),
        [
            ({"part": {}}, "study.part"),
            ({"parts": {}}, "study.parts is empty"),
            ({"parts": {"a": {"override": []}}}, "study.parts.a.override: .*sites_at_least"),
            ({"parts": {"a": {"sites_at_least": "two"}}}, "study.parts.a.sites_at_least=two"),
            ({"parts": {"a": {"sites_at_least": True}}}, "sites_at_least=True"),
            ({"parts": {"a": {"sites_at_least": 0}}}, "sites_at_least=0"),
            ({"parts": {"a": {"overrides": "seed=0"}}}, "study.parts.a.overrides=seed=0: a list"),
            ({"parts": {"a": 3}}, "study.parts.a=3"),
            ({"parts": ["a"]}, "study.parts="),
            ({"overrides": "seed=0", "parts": {"a": {}}}, "study.overrides=seed=0: a list"),
            ({"overrides": [{"seed": 0}], "parts": {"a": {}}}, "study.overrides=.*a list"),
            ({"attribute": "maybe", "parts": {"a": {}}}, "study.attribute=maybe: true or false"),
            ({"question": 3, "parts": {"a": {}}}, "study.question=3"),
            ("mine", "study=mine"),
        ],
    )
    def test_a_study_that_is_none_is_refused(self, study, told):
        with pytest.raises(InputError, match=told):
            parts_of(checked_study(study), (), split_options=frozenset)

    def test_a_yaml_of_ones_own_is_checked_before_anything_runs(self, place, base):
        (place / "study" / "mine.yaml").write_text(f"{STUDY}attribute: maybe\n")
        with pytest.raises(InputError, match="study.attribute=maybe"):
            planned(*base)
        (place / "study" / "mine.yaml").write_text("")
        assert "study=mine" in procedure.help_text()
        with pytest.raises(InputError, match="study.parts is empty"):
            planned(*base)

    def test_a_word_about_a_split_is_for_the_parts_whose_split_has_it(self):
        splits = {"one": frozenset({"fold", "seed"}), "other": frozenset({"seed"})}
        study = {"parts": {"a": {"overrides": ["split=one"]}, "b": {"overrides": ["split=other"]}}}
        words = parsed(["split.fold=0,1", "split.seed=3", "split.typo=2"])
        a, b = parts_of(study, words, split_options=splits.__getitem__)
        assert [w.key for w in a.words] == ["split", "split.fold", "split.seed", "split.typo"]
        assert [w.key for w in b.words] == ["split", "split.seed", "split.typo"]
        # A split of the user's own is the split of every part.
        a, b = parts_of(
            study, parsed(["split=other", *("split.fold=0",)]), split_options=splits.get
        )
        assert [w.key for w in a.words] == [w.key for w in b.words] == ["split", "split.fold"]


class TestJobs:
    def test_each_is_composed_split_and_named(self, place, base):
        jobs = planned(*base, "seed=0,1", "model=unet2d,unet25d").jobs
        assert len(jobs) == len({job.name for job in jobs}) == len({j.identity for j in jobs}) == 12
        first = jobs[0]
        assert (first.part, first.train, first.variant) == ("out", "south+west", "model=unet2d")
        assert (first.seed, first.fold, first.steps) == ("0", "", 1)
        assert first.name == f"south+west-leave_site_out-unet2d-dice_ce-seed0-{first.identity[:8]}"
        assert first.config["split"]["held_out"] == "north"
        assert first.config["logger"]["group"] == "study_mine"
        assert first.choices["model"] == "unet2d"
        assert {job.train for job in jobs} == {"south+west", "north+west", "north+south"}

    def test_a_fold_is_told_and_many_sites_are_named_by_those_left_out(self, place, base):
        (place / "study" / "folds.yaml").write_text(
            "parts: {a: {overrides: [split=kfold, 'split.folds=2', 'split.fold=0,1']}}\n"
        )
        jobs = planned(*base[1:], "study=folds").jobs
        assert [job.fold for job in jobs] == ["0", "1"]
        assert {job.train for job in jobs} == {"north+south+west"}
        assert jobs[1].name.startswith("north+south+west-kfold-unet3d-dice_ce-seed0-fold1-")

    def test_what_two_parts_name_is_one_job(self, place, base):
        twice = STUDY.replace("  out:", "  again: {overrides: [split=leave_site_out, "
                              "split.held_out=north]}\n  out:")  # fmt: skip
        (place / "study" / "mine.yaml").write_text(twice)
        jobs = planned(*base).jobs
        assert [(job.part, job.train) for job in jobs] == [
            ("again", "south+west"), ("out", "south+west"), ("out", "north+west"),
            ("out", "north+south"),
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
        assert set(zip(shared["part"], shared["train"], strict=True)) == {
            ("again", "south+west"), ("out", "south+west"), ("out", "north+west"),
            ("out", "north+south"),
        }  # fmt: skip

    def test_no_name_is_longer_than_a_file_system_takes(self, place, own):
        site = "\u533b" * 80
        path = place / "own" / "m.csv"
        path.write_text(path.read_text().replace(",north,", f",{site},"))
        jobs = planned(*own).jobs
        assert {job.train for job in jobs} == {f"south+{site}", f"west+{site}", "south+west"}
        for job in jobs:
            assert len(f".{job.name}.json.1234567".encode()) <= 255
        carried_out(own)

    @pytest.mark.parametrize(
        "word", ["train_patients=1,3", "selection=leave_one_site_out", "selection=oracle"]
    )
    def test_train_is_where_the_split_trains_whomever_it_is_narrowed_to(self, word, place, base):
        jobs = planned(*base, word).jobs
        assert {job.train for job in jobs} == {"south+west", "north+west", "north+south"}

    def test_what_the_tables_would_take_for_one_job_is_refused(self, place, base):
        with pytest.raises(InputError, match="do not tell apart") as caught:
            planned(*base, "split.held_out=[north,south],[south,north],west")
        assert "[north,south] and split.held_out=[south,north] alone" in str(caught.value)
        assert str(caught.value).count("west-leave_site_out-") == 2
        # A site to choose on leaves the training sites as they are, so it is a variant.
        (place / "study" / "mine.yaml").write_text("parts: {all: {overrides: [split=random]}}\n")
        jobs = planned(*base, "selection=leave_one_site_out", "selection_site=each_site").jobs
        assert [job.variant for job in jobs] == [f"selection_site={site}" for site in SITES]
        assert {job.train for job in jobs} == {"north+south+west"}

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
        assert [job.train for job in jobs] == ["north", "south"]
        # Its user's own choice of sites is no reason to advise all others.
        with pytest.raises(InputError, match="west") as caught:
            planned(*words, "split.source=west")
        assert all("trains at" not in note for note in caught.value.__notes__)

    def test_a_case_without_a_label_is_seen_before_anything_runs(self, place, base):
        cases = [make_case(place / "own", f"{s}-{i}", site=s) for s in SITES for i in range(4)]
        path = place / "own" / "m.csv"
        without = [replace(case, label=None) if case.id == "west-1" else case for case in cases]
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


class TestIdentity:
    def identities(self, *words: str) -> list[str]:
        return [job.identity for job in planned(*words).jobs]

    def test_what_changes_no_row_changes_no_identity(self, place, base, workplace):
        base = [word for word in base if word != "logger=none" and "store" not in word]
        before = self.identities(*base)
        for word in (
            "name=other", f"store={workplace / 'store'}", "logger=none", "trainer.workers=1",
            "launcher.workers=2", "study.attribute=true", "data.held_out=[north]",
        ):  # fmt: skip
            assert self.identities(*base, word) == before, word
        assert set(IRRELEVANT) == {"name", "store", "logger", "data", "trainer.workers"}

    @pytest.mark.parametrize(
        "word",
        ["seed=1", "loss=focal", "split.seed=1", "trainer.epochs=2", "optim.optimizer.lr=0.1",
         "augment=none", "trainer.precision=64-true"],
    )  # fmt: skip
    def test_every_other_option_changes_it(self, word, place, base):
        assert not set(self.identities(*base)) & set(self.identities(*base, word))

    def test_a_byte_of_a_case_changes_those_that_use_it(self, place, tmp_path, base):
        sites = ("a", "b", "c", "d")
        cases = [make_case(tmp_path / "own", f"{s}-{i}", site=s) for s in sites for i in range(4)]
        path = tmp_path / "own" / "m.csv"
        write_manifest(path, cases, channels=["image"], structures=["box", "core"])
        words = [*base, f"data.manifest={path}", "data.sites=[a,b,c]"]
        before = self.identities(*words)
        moved = tmp_path / "moved"
        (tmp_path / "own").rename(moved)
        words[2] = f"data.manifest={moved / 'm.csv'}"
        words[-2] = words[2]
        assert self.identities(*words) == before  # the same bytes lie elsewhere
        image = moved / "images" / "d-0.nii.gz"
        image.write_bytes(image.read_bytes() + b"\0")
        assert self.identities(*words) == before  # of a site that takes no part
        image = moved / "images" / "a-0.nii.gz"
        image.write_bytes(image.read_bytes() + b"\0")
        assert not set(self.identities(*words)) & set(before)

    def test_results_of_other_code_are_not_reused(self, place, base, monkeypatch):
        one = planned(*base)
        described = {"identity": one.jobs[0].identity, "config": one.jobs[0].config}
        check_unchanged({**described, "code": identity.code_hash()})
        with pytest.raises(InputError, match="the code of segshift.*changed since.*run it again"):
            check_unchanged({**described, "code": "0"})
        with pytest.raises(InputError, match="the data changed since"):
            check_unchanged({"identity": "0", "config": one.jobs[0].config,
                             "code": identity.code_hash()})  # fmt: skip
        package = place / "segshift"
        (package / "room").mkdir(parents=True)
        (package / "room" / "part.py").write_text("A = 1\n")
        monkeypatch.setattr(segshift, "__file__", str(package / "__init__.py"))
        identity.code_hash.cache_clear()
        other = identity.code_hash()
        assert not set(self.identities(*base)) & {job.identity for job in one.jobs}
        for change in (
            lambda: (package / "room" / "part.py").write_text("A = 2\n"),
            lambda: (package / "room" / "part.py").rename(package / "room" / "other.py"),
        ):
            change()
            assert identity.code_hash() == other  # of a process that has begun
            identity.code_hash.cache_clear()
            other, before = identity.code_hash(), other
            assert other != before
        monkeypatch.undo()
        identity.code_hash.cache_clear()

    @pytest.mark.parametrize("package", ["torch", "monai", "lightning"])
    def test_results_of_another_version_are_not_reused(self, package, monkeypatch):
        now, real = identity.code_hash(), metadata.version
        other = {package: "0.0.1"}
        monkeypatch.setattr(metadata, "version", lambda name: other.get(name) or real(name))
        assert identity.code_hash.__wrapped__() != now
        monkeypatch.undo()
        assert identity.code_hash.__wrapped__() == now

    def test_a_label_that_means_something_else_is_another_case(self, place, base):
        before = self.identities(*base)
        assert self.identities(*base, "data.structures={box: 5, core: 9}") == before
        assert self.identities(*base, "data.structures={box: 9, core: 5}") != before


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
        variants = study_tables(read_study(place)).variants
        assert list(variants["difference"]) == [0.25] * 6
        assert set(zip(variants["train"], variants["set"], strict=True)) == {
            ("south+west", "in_domain"), ("south+west", "site-north"),
            ("north+west", "in_domain"), ("north+west", "site-south"),
            ("north+south", "in_domain"), ("north+south", "site-west"),
        }  # fmt: skip


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


def states_of(place: Path, base: list[str]) -> list[folder.State]:
    found = folder.states(place / "runs" / "study_mine", planned(*base).jobs, attribute=True)
    return list(found.values())


def rows(place: Path) -> str:
    return (place / "runs" / "study_mine" / "rows.csv").read_text()


def expected_rows(place: Path, base: list[str]) -> str:
    """As the stub writes them, job after job."""
    header = "run,set,case,patient,site,structure,metric,value\n"
    names = [job.name for job in planned(*base).jobs]
    return header + "".join(f'{name},in_domain,"a,b",p,north,box,dice,0.1\n' for name in names)


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


def executable(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


NVIDIA_SMI = """#!/bin/sh
echo "GPU 0: NVIDIA A100 (UUID: GPU-1)"
echo "  MIG 1g.5gb Device 0: (UUID: MIG-1)"
echo "GPU 1: NVIDIA A100 (UUID: GPU-2)"
"""
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
            "val/hd95": 1, "test/in_domain/hd95": 2.0, "test/scanner-b/hd95": 3.0,
            "test/scanner-b/dice": 0.5, "test/scanner-b+noise1/hd95": 9.0,
            "test/prevalence-0.2/hd95": 4.0,
        }))  # fmt: skip
        assert console.ended_line(tmp_path, seconds=7.4) == (
            "hd95 in_domain 2.000, scanner-b 3.000, prevalence-0.2 4.000; 7 s"
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
