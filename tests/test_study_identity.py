"""What makes a job another one: its options, its data and the code, but not where they lie."""

from importlib import metadata

import pytest
from conftest import make_case
from study_stub import planned

import segshift
from segshift.cohort import write_manifest
from segshift.errors import InputError
from segshift.study import identity
from segshift.study.identity import IRRELEVANT, check_unchanged


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
        of_data = ("cohort", "manifest", "structures", "sites", "rater", "held_out")
        others = {"name", "store", "logger", "trainer.workers"}
        assert set(IRRELEVANT) == others | {f"data.{name}" for name in of_data}

    @pytest.mark.parametrize(
        "word",
        ["seed=1", "loss=focal", "split.seed=1", "trainer.epochs=2", "optim.optimizer.lr=0.1",
         "augment=none", "trainer.precision=64-true", "data.scale=object"],
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
