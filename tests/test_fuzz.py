"""2,800 damaged manifests, headers and files: each a finding or an InputError, never a crash."""

import ctypes
import gzip
import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import make_case
from PIL import Image
from test_images import save_itk, save_series

from segshift import environment
from segshift.audit import check, check_manifest, measure
from segshift.audit.measure import measure_case
from segshift.cohort import Annotation, Case, read_manifest, write_manifest
from segshift.cohort.checks import check_headers, load_case
from segshift.errors import InputError

MANIFESTS, FILES, HEADERS = 1200, 200, 200  # files of each of the seven formats
MOST_BYTES = 200 * 2**20
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
FORMATS = [".nii", ".nii.gz", ".nrrd", ".mha", ".png", ".tif"]
TOKENS = [b"", b",", b'"', b"\n", b"\r", b"\x00", b"\xff\xfe", b"nan", b"-1", b"../", b"=", b";"]
TOKENS += [
    b"1e999",
    b"id",
    b"site",
    b"label_2",
    b"image_x",
    b"a" * 5000,
    b"9" * 5000,
    "\u2028".encode(),
]


def damaged(content: bytes, random: np.random.Generator) -> bytes:
    """Some bytes flipped, cut, repeated, swapped or put in between."""
    data = bytearray(content)
    for _ in range(int(random.integers(1, 5))):
        at = int(random.integers(0, len(data) + 1))
        length = int(random.integers(1, 40))
        match int(random.integers(0, 6)):
            case 0:
                for i in random.integers(0, max(1, len(data)), 4):
                    if len(data):
                        data[int(i) % len(data)] ^= 1 << int(random.integers(0, 8))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = random.bytes(length)
            case 3:
                data[at:at] = TOKENS[int(random.integers(0, len(TOKENS)))]
            case 4:
                del data[at : at + length]
            case 5:
                data[at : at + length] = b"\xff" * length
    return bytes(data)


def shuffled_cells(content: bytes, random: np.random.Generator) -> bytes:
    """Two cells of any two lines change places."""
    rows = [line.split(b",") for line in content.splitlines()]
    for _ in range(3):
        one, other = rows[int(random.integers(len(rows)))], rows[int(random.integers(len(rows)))]
        i, j = int(random.integers(len(one))), int(random.integers(len(other)))
        one[i], other[j] = other[j], one[i]
    return b"\n".join(b",".join(row) for row in rows)


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    return make_case(tmp_path_factory.mktemp("fuzz"), "a", shape=(4, 8, 8))


@contextmanager
def little_memory() -> Iterator[None]:
    """Fails where the process holds more than MOST_BYTES more than before at once in between.

    By the kernel's count of what was touched, on Linux: tracemalloc would make every reader four
    times as slow. What was freed before is given back first (a run in this process may have told
    malloc to keep it), or it would be taken again unseen.
    """
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR.write_text("5")  # proc_pid_clear_refs(5): the peak is what is resident now
    before = resident_bytes("VmRSS")
    yield
    assert resident_bytes("VmHWM") - before < MOST_BYTES


def resident_bytes(entry: str) -> int:
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(entry)]
    return int(line.split()[1]) * 2**10


@pytest.fixture(autouse=True)
def _little_memory():
    with little_memory() if CLEAR.exists() else nullcontext():
        yield


def survives(task) -> bool:
    """Whether it ended well; an InputError is an answer too, everything else is a crash."""
    try:
        task()
    except InputError as error:
        assert str(error)
        return False
    return True


@pytest.mark.skipif(not CLEAR.exists(), reason="memory is watched by Linux's /proc alone")
def test_a_large_array_is_noticed():
    environment.keep_freed_memory()  # as tests before this one do
    np.ones(2 * MOST_BYTES // 8)
    with pytest.raises(AssertionError), little_memory():
        np.ones(2 * MOST_BYTES // 8)
    with little_memory():
        np.ones(MOST_BYTES // 16)  # which also starts the watch of this test itself anew


def test_damaged_manifests(case, tmp_path):
    path = case.images[0].parents[1] / "m.csv"
    other = make_case(path.parent, "b", shape=(4, 8, 8), site="there")
    write_manifest(path, [case, other], channels=["image"], structures=["box", "core"])
    content, fine = path.read_bytes(), 0
    for number in range(MANIFESTS):
        random = np.random.default_rng([1, number])
        path.write_bytes((shuffled_cells if number % 4 == 0 else damaged)(content, random))
        readable = survives(lambda: read_manifest(path))
        fine += readable
        if number % 20 < 2 or (readable and number % 4 < 2):  # of each kind of damage
            audit = check_manifest(path)
            assert readable or audit.status == 2
    assert 0 < fine < MANIFESTS


def test_manifests_that_are_no_files(tmp_path):
    (tmp_path / "empty.csv").touch()
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "zeros.csv").write_bytes(bytes(1000))
    for name in ("empty.csv", "folder.csv", "zeros.csv", "absent.csv"):
        assert not survives(lambda name=name: read_manifest(tmp_path / name))
        assert check_manifest(tmp_path / name).status == 2


def picture(kind: str, array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


def contents(case: Case) -> dict[str, bytes]:
    packed = case.images[0].read_bytes()
    grey = np.arange(64, dtype=np.uint8).reshape(8, 8)
    folder = case.images[0].parent
    label = nib.load(case.annotation.label).get_fdata().astype(np.int16)
    save_itk(folder / "i.nrrd", label, np.eye(4))
    save_itk(folder / "i.mha", label, np.eye(4), compressed=True)
    return {
        ".nrrd": (folder / "i.nrrd").read_bytes(),
        ".mha": (folder / "i.mha").read_bytes(),
        ".nii": gzip.decompress(packed),
        ".nii.gz": packed,
        ".png": picture("PNG", grey),
        ".tif": picture("TIFF", grey),
    }


def examined(broken: Case) -> tuple[bool, bool]:
    """Whether its headers and its voxels can be read; what cannot has a finding."""
    headers = survives(lambda: check_headers(broken))
    loads = survives(lambda: load_case(broken))
    found, facts = measure_case(broken, structures=2)
    assert found or facts
    assert loads or found, broken
    return headers, loads


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(suffix, case, tmp_path, capfd):
    content, fine = contents(case)[suffix], 0
    ends = {".nii": 352, ".nrrd": content.find(b"\n\n") + 2, ".mha": content.find(b"LOCAL") + 6}
    for number in range(FILES):
        random = np.random.default_rng([2, number])
        path = tmp_path / f"{number}{suffix}"
        head = ends.get(suffix, len(content)) if number % 2 else len(content)
        damage = damaged(content[:head], random) + content[head:]
        if suffix == ".nii.gz" and number % 2:  # damage below the compression, too
            damage = gzip.compress(damaged(gzip.decompress(content), random), compresslevel=1)
        path.write_bytes(damage)
        drawn = Annotation(path if number % 3 else case.annotation.label, (5, 9))
        broken = Case("a", "p", "s", (path,), drawn)
        headers, _ = examined(broken)
        fine += headers
        path.unlink()
    assert 0 < fine < FILES
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore")
def test_a_series_with_a_damaged_slice(case, tmp_path):
    stored = nib.load(case.annotation.label).get_fdata().astype(np.int16)
    folder = save_series(tmp_path / "s", stored, np.eye(4))
    broken, fine = Case("a", "p", "s", (folder,), Annotation(folder, (5, 9))), 0
    slices = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    for number in range(FILES):
        path, content = list(slices.items())[number % len(slices)]
        pixels = content.rfind(b"OW")  # the last tag's type: tags alone, every other time
        head = pixels if number % 2 else len(content)
        path.write_bytes(
            damaged(content[:head], np.random.default_rng([4, number])) + content[head:]
        )
        headers, _ = examined(broken)
        fine += headers
        path.write_bytes(content)
    assert 0 < fine < FILES


@pytest.mark.parametrize("suffix", [*FORMATS, ".dcm"])
def test_what_is_no_image_file(suffix, tmp_path):
    empty, folder, text = (tmp_path / f"{n}{suffix}" for n in ("empty", "folder", "text"))
    empty.touch()
    folder.mkdir()
    text.write_text("id,patient\n")
    long, null = Path("a" * 5000 + suffix), Path("a\0b" + suffix)
    for path in (empty, folder, text, long, null):
        broken = Case("a", "p", "s", (path,), Annotation(path, (1,)))
        found, facts = measure_case(broken, structures=1)
        assert facts is None
        assert found[0].severity == "error"
        assert not survives(lambda broken=broken: load_case(broken)), path


def test_headers_with_impossible_affines_and_sizes(case, tmp_path):
    content = gzip.decompress(case.images[0].read_bytes())
    for number in range(HEADERS):
        random = np.random.default_rng([3, number])
        header = nib.Nifti1Header(content[:348], check=False)
        extremes = [np.nan, np.inf, -np.inf, 0, 1e30, -1e-30]
        rows = header["srow_x"], header["srow_y"], header["srow_z"], header["pixdim"]
        rows[number % 4][random.integers(0, 4)] = random.choice(extremes)
        if number % 3 == 0:
            header["dim"][random.integers(0, 8)] = random.choice([-1, 0, 7, 32767, -32768])
        if number % 5 == 0:
            header["scl_slope"], header["vox_offset"] = random.choice(extremes, 2)
        path = tmp_path / f"{number}.nii"
        path.write_bytes(header.binaryblock + content[348:])
        broken = Case("a", "p", "s", (path,), Annotation(case.annotation.label, (5, 9)))
        loads = survives(lambda broken=broken: load_case(broken))
        found, _ = measure_case(broken, structures=2)
        assert loads or found
        path.unlink()


def raising(error: Exception, *, only: str = ""):
    """A replacement of a function of a case that fails at one case, or always."""

    def replacement(original):
        def wrapped(*arguments, **options):
            if not only or getattr(arguments[0], "id", "") == only:
                raise error
            return original(*arguments, **options)

        return wrapped

    return replacement


def test_a_surprise_in_one_case_is_its_finding_and_the_others_go_on(boxes, tmp_path, monkeypatch):
    shutil.copytree(boxes.parent, tmp_path / "copy")
    (tmp_path / "copy" / "images" / "south-5.nii.gz").write_bytes(b"damaged too")
    surprise = raising(RuntimeError("who would have thought"), only="north-3")
    monkeypatch.setattr(measure, "check_headers", surprise(measure.check_headers))
    audit = check_manifest(tmp_path / "copy" / boxes.name)
    unread = {f.case: f.message for f in audit.findings if f.kind == "unreadable"}
    assert set(unread) == {"north-3", "south-5"}
    assert "RuntimeError: who would have thought" in unread["north-3"]
    assert audit.status == 2


def test_a_surprise_in_the_manifest_is_a_finding(boxes, monkeypatch):
    surprise = raising(KeyError("odd"))
    monkeypatch.setattr(check, "read_sound_lines", surprise(check.read_sound_lines))
    (finding,) = check_manifest(boxes).findings
    assert (finding.severity, finding.kind) == ("error", "manifest")
    assert "KeyError: 'odd'" in finding.message


@pytest.mark.parametrize(
    "line", ["rubbish", "rubbish: x", "sizes: x", "kinds: ", "NDims = ", "Name = "]
)
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_long_line_of_a_header_is_refused_before_itk_dies_of_it(suffix, line, case, tmp_path):
    """Several of these end the process with a segmentation fault in ITK's own readers."""
    first, rest = contents(case)[suffix].split(b"\n", 1)
    path = tmp_path / f"i{suffix}"
    path.write_bytes(first + b"\n" + line.encode() + b"9" * 5000 + b"\n" + rest)
    broken = Case("a", "p", "s", (path,), Annotation(path, (5, 9)))
    assert examined(broken) == (False, False)
