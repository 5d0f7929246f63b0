"""Thousands of damaged manifests and files: each ends in a finding or an InputError, no crash."""

import gzip
import io
import resource
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import make_case
from PIL import Image

from segshift.audit import check_manifest
from segshift.audit.measure import measure_case
from segshift.cohort import Case, read_manifest, write_manifest
from segshift.cohort.checks import check_headers, load_case
from segshift.errors import InputError

MANIFESTS, FILES = 1200, 350  # the latter of each format
MOST_KILOBYTES = 200 * 1024
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


@pytest.fixture(autouse=True)
def _little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KILOBYTES


def survives(task) -> bool:
    """Whether it ended well; an InputError is an answer too, everything else is a crash."""
    try:
        task()
    except InputError as error:
        assert str(error)
        return False
    return True


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
        if number % 20 == 0 or (readable and number % 4 == 0):
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
    return {
        ".nii": gzip.decompress(packed),
        ".nii.gz": packed,
        ".png": picture("PNG", grey),
        ".tif": picture("TIFF", grey),
    }


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".png", ".tif"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files(suffix, case, tmp_path):
    content, fine = contents(case)[suffix], 0
    for number in range(FILES):
        random = np.random.default_rng([2, number])
        path = tmp_path / f"{number}{suffix}"
        head = 352 if suffix == ".nii" and number % 2 else len(content)
        damage = damaged(content[:head], random) + content[head:]
        if suffix == ".nii.gz" and number % 2:  # damage below the compression, too
            damage = gzip.compress(damaged(gzip.decompress(content), random), compresslevel=1)
        path.write_bytes(damage)
        broken = Case("a", "p", "s", (path,), path if number % 3 else case.label, (5, 9))
        fine += survives(lambda broken=broken: check_headers(broken))
        loads = survives(lambda broken=broken: load_case(broken))
        found, facts = measure_case(broken, structures=2)
        assert found or facts
        assert loads or found, path
        path.unlink()
    assert fine < FILES


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".png", ".tif"])
def test_what_is_no_image_file(suffix, tmp_path):
    empty, folder, text = (tmp_path / f"{n}{suffix}" for n in ("empty", "folder", "text"))
    empty.touch()
    folder.mkdir()
    text.write_text("id,patient\n")
    long, null = Path("a" * 5000 + suffix), Path("a\0b" + suffix)
    for path in (empty, folder, text, long, null):
        broken = Case("a", "p", "s", (path,), path, (1,))
        found, facts = measure_case(broken, structures=1)
        assert facts is None
        assert found[0].severity == "error"
        assert not survives(lambda broken=broken: load_case(broken)), path


def test_headers_with_impossible_affines_and_sizes(case, tmp_path):
    content = gzip.decompress(case.images[0].read_bytes())
    for number in range(200):
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
        broken = Case("a", "p", "s", (path,), case.label, (5, 9))
        loads = survives(lambda broken=broken: load_case(broken))
        found, _ = measure_case(broken, structures=2)
        assert loads or found
        path.unlink()
