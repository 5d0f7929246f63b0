"""The store: what goes in comes out, once, whatever happens to the process that writes it."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import make_case, reannotated
from PIL import Image
from store_inputs import aged, plan_for, stored

from segshift import cli
from segshift.cohort.checks import load_case
from segshift.data import content
from segshift.data.cleaning import clean, store_size
from segshift.data.resample import resampled, resampled_label
from segshift.data.store import store_cases
from segshift.errors import InputError
from segshift.plan import normalised


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    return [make_case(folder, f"c{i}", shape=(8, 16, 16 + i)) for i in range(5)]


class TestStore:
    def test_content(self, cases, tmp_path):
        case, entry = cases[0], stored(cases, tmp_path)[0]
        volume = load_case(case)
        np.testing.assert_allclose(entry.image().mean(), 0, atol=1e-5)
        np.testing.assert_allclose(entry.image().std(), 1, rtol=1e-5)
        np.testing.assert_allclose(
            np.corrcoef(entry.image().ravel(), volume.image.ravel())[0, 1], 1
        )
        np.testing.assert_array_equal(entry.label(), volume.label)
        np.testing.assert_array_equal(entry.reference(), volume.label)
        assert entry.spacing_mm() == (1, 1, 1)
        assert isinstance(entry.image(), np.memmap)

    def test_landmarks_lie_in_their_structure(self, cases, tmp_path):
        for entry in stored(cases, tmp_path):
            structure, *place = entry.landmarks().T
            np.testing.assert_array_equal(entry.label()[tuple(place)], structure)
            assert set(structure) == {1, 2}

    def test_an_entry_is_made_once_and_a_change_makes_another(self, cases, tmp_path):
        first = stored(cases[:1], tmp_path / "store")[0].folder
        made = first.stat().st_mtime_ns
        assert stored(cases[:1], tmp_path / "store")[0].folder == first
        assert first.stat().st_mtime_ns == made
        assert stored(cases[:1], tmp_path / "store", spacing_mm=(2, 1, 1))[0].folder != first
        other = make_case(tmp_path / "other", cases[0].id, seed=1)  # same id, other pixels
        assert stored([other], tmp_path / "store")[0].folder != first
        swapped = reannotated(cases[0], values=(9, 5))
        assert stored([swapped], tmp_path / "store")[0].folder != first

    def test_a_pictures_voxel_size_in_the_manifest_is_part_of_it(self, cases, tmp_path):
        for name in ("image", "label"):
            Image.fromarray(np.eye(16, dtype=np.uint8) * 5).save(tmp_path / f"{name}.png")
        picture = reannotated(cases[0], label=tmp_path / "label.png")
        plan = plan_for(cases)
        sizes = []
        for size in ("1;1", "0.5;2"):
            case = replace(picture, images=(tmp_path / "image.png",), tags={"spacing_mm": size})
            (entry,) = store_cases([case], plan, folder=tmp_path / "s", quiet=True)
            sizes.append((entry.spacing_mm(), entry.image().shape))
        assert sizes == [((1, 1, 1), (1, 1, 16, 16)), ((2, 0.5, 2), (1, 2, 8, 32))]

    def test_a_half_written_entry_is_not_read(self, cases, tmp_path, monkeypatch):
        monkeypatch.setattr(np, "save", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stored(cases[:1], tmp_path)
        monkeypatch.undo()
        assert stored(cases[:1], tmp_path)[0].image().shape == (1, 8, 16, 16)

    def test_resampling_keeps_places_and_ids(self):
        label = np.zeros((4, 6, 6), np.uint8)
        label[:, 1:5, 1:5], label[:, 2:4, 2:4] = 3, 200
        finer = resampled_label(label, (8, 12, 12))
        assert set(np.unique(finer)) == {0, 3, 200}  # never an id in between
        np.testing.assert_array_equal(finer[::2, ::2, ::2], label)
        ramp = np.arange(8, dtype=np.float32)[None, None, None].repeat(4, 2)
        np.testing.assert_allclose(resampled(ramp, (1, 4, 4))[0, 0, 0], [0.5, 2.5, 4.5, 6.5])

    def test_channels_are_normalised_apart_and_constants_survive(self):
        image = np.stack(
            [np.random.default_rng(0).normal(5, 3, (4, 4, 4)), np.full((4, 4, 4), 7.0)]
        )
        result = normalised(image.astype(np.float32))
        assert abs(result[0].std() - 1) < 1e-5
        np.testing.assert_array_equal(result[1], 0)

    def test_a_broken_case_is_named(self, cases, tmp_path):
        broken = make_case(tmp_path, "broken")
        plan = plan_for([*cases, broken])
        broken.images[0].write_bytes(broken.images[0].read_bytes()[:500])
        with pytest.raises(InputError, match="case 'broken'"):
            store_cases([*cases, broken], plan, folder=tmp_path / "s", quiet=True)


class TestHashes:
    @pytest.fixture
    def reads(self, monkeypatch):
        """The files whose bytes are hashed."""
        seen = []
        digest = content.hashlib.file_digest
        monkeypatch.setattr(
            content.hashlib, "file_digest", lambda f, kind: seen.append(f.name) or digest(f, kind)
        )
        return seen

    def test_a_second_run_opens_no_image(self, tmp_path):
        case = aged(make_case(tmp_path / "data", "a"))
        script = """
import sys
from pathlib import Path
from store_inputs import plan_for, store_cases
from pickle import load
case = load(open(sys.argv[1], "rb"))
plan = plan_for([case])
opened = []
sys.addaudithook(lambda event, args: event == "open" and opened.append(str(args[0])))
store_cases([case], plan, folder=Path(sys.argv[2]), quiet=True)
print(sum(name.endswith(".nii.gz") for name in opened))
"""
        import pickle

        (tmp_path / "case").write_bytes(pickle.dumps(case))
        counts = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", script, tmp_path / "case", tmp_path / "store"],
                cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=True,
            )  # fmt: skip
            counts.append(int(done.stdout))
        assert counts[0] > 0
        assert counts[1] == 0

    def test_what_may_have_changed_is_read_again(self, tmp_path, reads):
        path, store = tmp_path / "image", tmp_path / "store"

        def written(text, seconds_ago):
            path.write_text(text)
            os.utime(path, (time.time() - seconds_ago,) * 2)
            return content.content_hash(path, store=store)

        first = written("one", 100)
        assert content.content_hash(path, store=store) == first
        assert len(reads) == 1
        assert written("one!", 100) != first  # another size
        assert written("two", 50) != first  # another time
        before = path.stat()
        assert written("six", 50) != first
        path.write_text("ten")  # size and time are put back, as a copying tool may do
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert content.content_hash(path, store=store) not in (first, written("six", 50))

    def test_a_file_that_may_still_change_unseen_is_not_remembered(self, tmp_path, reads):
        path = tmp_path / "image"
        path.write_text("one")
        for _ in range(2):
            content.content_hash(path, store=tmp_path / "store")
        assert len(reads) == 2

    @pytest.mark.parametrize("damage", ["", "{", "[]", '{"state": 1}', '{"sha256": "x"}'])
    def test_a_damaged_record_is_made_anew(self, tmp_path, reads, damage):
        path, store = tmp_path / "image", tmp_path / "store"
        path.write_text("one")
        os.utime(path, (time.time() - 100,) * 2)
        first = content.content_hash(path, store=store)
        (record,) = (store / "hashes").iterdir()
        record.write_text(damage)
        assert content.content_hash(path, store=store) == first
        assert content.content_hash(path, store=store) == first
        assert len(reads) == 2


BUILD = """
import sys, time
from pathlib import Path
import numpy as np
from conftest import make_case
from store_inputs import plan_for, store_cases
save, slow = np.save, float(sys.argv[3])
np.save = lambda *a: (time.sleep(slow), save(*a))
cases = [make_case(Path(sys.argv[1]), f"c{i}") for i in range(6)]
plan = plan_for(cases)
print("ready", flush=True)
store_cases(cases, plan, folder=Path(sys.argv[2]), quiet=True)
"""


class TestProcesses:
    def builder(self, tmp_path, name, *, slow):
        return subprocess.Popen(
            [sys.executable, "-c", BUILD, tmp_path / name, tmp_path / "store", str(slow)],
            cwd=Path(__file__).parent, stdout=subprocess.PIPE, encoding="utf-8",
        )  # fmt: skip

    def test_two_build_at_once_and_one_is_killed(self, tmp_path):
        """All entries are whole whatever happens, and what the dead one left is only a draft."""
        victim = self.builder(tmp_path, "data", slow=0.3)
        victim.stdout.readline()
        while not list((tmp_path / "store").glob("*.draft")):
            time.sleep(0.01)
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        drafts = list((tmp_path / "store").glob("*.draft"))
        assert drafts
        others = [self.builder(tmp_path, f"data{i}", slow=0.02) for i in range(2)]
        assert [other.wait(timeout=120) for other in others] == [0, 0]
        names = [f"c{i}" for i in range(6)]
        cases = [make_case(tmp_path / "again", name) for name in names]
        entries = stored(cases, tmp_path / "alone")
        for entry in entries:
            for file in entry.folder.iterdir():
                twin = tmp_path / "store" / entry.folder.name / file.name
                assert twin.read_bytes() == file.read_bytes()
        assert store_size(tmp_path / "store").entries == 6
        assert list((tmp_path / "store").glob("*.draft")) == drafts  # nobody else left any


class TestCleaning:
    def test_what_is_old_goes_and_nothing_else(self, cases, tmp_path):
        entries = stored(cases, tmp_path)
        size = entries[0].image().nbytes
        old, draft = entries[0].folder, tmp_path / f"{'0' * 32}.12ab34cd.draft"
        for foreign in ("notes", "a" * 31, "b" * 32):  # an MD5 is a usual name of a folder too
            (tmp_path / foreign).mkdir()
            (tmp_path / foreign / "slice.dcm").write_bytes(b"1")
        draft.mkdir()
        (draft / "image.npy").write_bytes(bytes(1000))
        os.utime(old / "meta.json", (time.time() - 10 * 86400,) * 2)
        assert store_size(tmp_path).entries == 5
        assert clean(tmp_path, older_than_days=9, dry_run=True).entries == 1
        assert old.is_dir()
        gone = clean(tmp_path, older_than_days=9)
        assert (gone.entries, gone.drafts) == (1, 0)
        assert gone.bytes > size
        assert not old.is_dir()
        assert draft.is_dir()  # young: another run may be writing it
        os.utime(draft, (time.time() - 7200,) * 2)
        gone = clean(tmp_path)
        assert (gone.entries, gone.drafts) == (4, 1)
        assert sorted(p.name for p in tmp_path.iterdir() if p.name != "hashes") == sorted(
            ["notes", "a" * 31, "b" * 32]
        )

    def test_use_keeps_an_entry_young(self, cases, tmp_path):
        for _ in range(2):
            (entry,) = stored(cases[:1], tmp_path)
            assert clean(tmp_path, older_than_days=1).entries == 0
            os.utime(entry.folder / "meta.json", (time.time() - 10 * 86400,) * 2)
        assert clean(tmp_path, older_than_days=1).entries == 1

    def test_the_command_says_what_went_and_needs_no_torch(self, cases, tmp_path, capsys):
        stored(cases, tmp_path)
        cli.main(["cohort", "clean", "--store", str(tmp_path), "--dry-run"])
        assert "would remove 5 case(s), 0.1 MB" in capsys.readouterr().out
        script = "import sys; from segshift import cli; cli.main(sys.argv[1:]); " + (
            "assert not {'torch', 'lightning'} & sys.modules.keys()"
        )
        command = [sys.executable, "-c", script, "cohort", "clean", "--store", tmp_path]
        out = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout
        assert "removed 5 case(s)" in out
        assert "left: 0 case(s), 0.0 MB" in out
        with pytest.raises(SystemExit, match="no store at"):
            cli.main(["cohort", "clean", "--store", str(tmp_path / "absent")])
