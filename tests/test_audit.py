"""Every kind of planted fault is found, named and mendable; a clean cohort raises no alarm."""

import csv
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
from conftest import REAL_DATA, composed, make_case
from hydra.utils import instantiate
from test_images import numbers, png_claiming, save_series

from segshift import cli
from segshift.audit import check_manifest, write_page
from segshift.audit.compare import robust_z
from segshift.audit.duplicates import NEAR, check_duplicates
from segshift.audit.measure import Facts
from segshift.audit.orientation import POSES
from segshift.audit.pooling import pooled
from segshift.cohort import Case, write_manifest

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="session")
def clean(workplace: Path, phantom: tuple[str, ...]) -> Path:
    """The tiny phantom's manifest, simulated once per worker."""
    config = composed(*phantom)
    cohort = instantiate(config.data.cohort, _convert_="all")
    return cohort.cases[0].images[0].parents[1] / "manifest.csv"


@pytest.fixture(scope="session")
def clean_audit(clean: Path):
    return check_manifest(clean)


class Planting:
    """A copy of the phantom whose lines and files can be spoilt."""

    def __init__(self, clean: Path, folder: Path) -> None:
        shutil.copytree(clean.parent, folder)
        self.path = folder / "manifest.csv"
        with self.path.open(newline="") as file:
            self.lines = {line["id"]: line for line in csv.DictReader(file)}

    def file(self, case: str, column: str = "image") -> Path:
        return self.path.parent / self.lines[case][column]

    def edit(self, case: str, change, *, column: str = "image", affine=None) -> None:
        """Save what `change` makes of the (x, y, z) voxels."""
        path = self.file(case, column)
        image = nib.load(path)
        voxels = change(np.asarray(image.dataobj))
        nib.save(nib.Nifti1Image(voxels, image.affine if affine is None else affine), path)

    def copy(self, case: str, like: str, **columns: str) -> None:
        self.lines[case] = {**self.lines[like], "id": case, "patient": case, **columns}

    def audit(self, **options):
        with self.path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(next(iter(self.lines.values()))))
            writer.writeheader()
            writer.writerows(self.lines.values())
        return check_manifest(self.path, **options)


def set_first(value):
    def change(voxels):
        voxels = voxels.astype(np.float32)
        voxels[0, 0, 0] = value
        return voxels

    return change


def noisy(voxels):
    noise = np.random.default_rng(0).normal(1, 0.02, voxels.shape)
    return (voxels * noise).astype(np.float32)


def truncate(p: Planting) -> None:
    path = p.file("alpha-001")
    path.write_bytes(path.read_bytes()[:-500])


def far_affine(p: Planting) -> None:
    affine = nib.load(p.file("alpha-001")).affine.copy()
    affine[0, 3] += 50
    p.edit("alpha-001", lambda v: v, column="label", affine=affine)


def other_spacing(p: Planting) -> None:
    for column in ("image", "label"):
        affine = nib.load(p.file("alpha-001", column)).affine @ np.diag([2, 2, 1, 1])
        p.edit("alpha-001", lambda v: v, column=column, affine=affine)


def other_size(p: Planting) -> None:
    for column in ("image", "label"):
        p.edit("alpha-001", lambda v: np.repeat(v, 4, axis=2), column=column)


def mirrored_case(p: Planting) -> None:
    for column in ("image", "label"):
        p.edit("alpha-001", lambda v: v[::-1], column=column)


def duplicate(p: Planting) -> None:
    shutil.copy(p.file("alpha-001"), p.file("beta-001"))


def duplicate_at_home(p: Planting) -> None:
    shutil.copy(p.file("alpha-001"), p.path.parent / "again.nii.gz")
    p.copy("alpha-001b", "alpha-001", image="again.nii.gz", patient="alpha-001")


def nearly(p: Planting) -> None:
    shutil.copy(p.file("alpha-001"), p.file("beta-001"))
    p.edit("beta-001", noisy)


def bomb(p: Planting) -> None:
    path = p.path.parent / "bomb.nii"
    header = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    path.write_bytes(header[:40] + struct.pack("<8h", 3, *[30000] * 3, 1, 1, 1, 1) + header[56:])
    p.lines["alpha-001"]["image"] = "bomb.nii"


def outside(p: Planting) -> None:
    away = p.path.parents[1] / f"{p.path.parent.name}-away.nii.gz"
    shutil.move(p.file("alpha-001"), away)
    p.lines["alpha-001"]["image"] = f"../{away.name}"


def line(case: str, **columns: str):
    return lambda p: p.lines[case].update(columns)


def voxels(change, *, column: str = "image", case: str = "alpha-001"):
    return lambda p: p.edit(case, change, column=column)


def flipped(axis: int, case: str = "alpha-001"):
    return voxels(lambda v: np.flip(v, axis), column="label", case=case)


def in_the_corner(label):
    moved = np.zeros_like(label)
    moved[:3, :3] = 1
    return moved


def unlike_numbers(label):
    return np.where(label == 1, 77, label)


# name: (severity, kind, the case that is named, what is done)
FAULTS = {
    "missing": ("error", "missing-file", "alpha-001", lambda p: p.file("alpha-001").unlink()),
    "truncated": ("error", "unreadable", "alpha-001", truncate),
    "not an image": (
        "error",
        "unreadable",
        "alpha-001",
        lambda p: p.file("alpha-001", "label").write_bytes(b"hello"),
    ),
    "shape": ("error", "geometry-mismatch", "alpha-001", voxels(lambda v: v[1:], column="label")),
    "affine": ("error", "geometry-mismatch", "alpha-001", far_affine),
    "nan": ("error", "not-finite", "alpha-001", voxels(set_first(np.nan))),
    "infinite": ("error", "not-finite", "alpha-001", voxels(set_first(np.inf))),
    "constant": ("error", "constant-image", "alpha-001", voxels(np.ones_like)),
    "fraction": ("error", "non-integer-label", "alpha-001", voxels(set_first(0.5), column="label")),
    "value": ("error", "unknown-label", "alpha-001", voxels(unlike_numbers, column="label")),
    "empty": ("warning", "empty-label", "alpha-001", voxels(np.zeros_like, column="label")),
    "in air": ("warning", "label-outside-body", "alpha-001", voxels(in_the_corner, column="label")),
    "left-right": ("warning", "orientation", "alpha-001", flipped(0)),
    "front-back": ("warning", "orientation", "alpha-001", flipped(1)),
    "up-down": ("warning", "orientation", "alpha-001", flipped(2)),
    "small site": ("warning", "orientation", "gamma-002", flipped(0, "gamma-002")),
    "transposed": (
        "warning",
        "orientation",
        "alpha-001",
        voxels(lambda v: v.swapaxes(0, 1), column="label"),
    ),
    "both mirrored": ("warning", "orientation", "alpha-001", mirrored_case),
    "spacing": ("warning", "spacing-outlier", "alpha-001", other_spacing),
    "size": ("warning", "size-outlier", "alpha-001", other_size),
    "copy": ("error", "duplicate-image", "beta-001", duplicate),
    "copy at home": ("warning", "duplicate-image", "alpha-001b", duplicate_at_home),
    "near copy": ("warning", "near-duplicate", "beta-001", nearly),
    "two sites": (
        "error",
        "patient-at-two-sites",
        "beta-001",
        line("beta-001", patient="alpha-001"),
    ),
    "few": ("warning", "few-patients", "", lambda p: p.lines.pop("beta-001")),
    "grey levels": (
        "warning",
        "intensity-outlier",
        "alpha-001",
        voxels(lambda v: v.astype(np.float32) * 1000),
    ),
    "bomb": ("error", "header-bomb", "alpha-001", bomb),
    "outside": ("warning", "outside-folder", "alpha-001", outside),
    "listed twice": (
        "error",
        "listed-twice",
        "again",
        lambda p: p.copy("again", "alpha-001", label=p.lines["alpha-002"]["label"]),
    ),
    "ids alike": (
        "warning",
        "patient-ids-alike",
        "alpha-002",
        line("alpha-002", patient="Alpha- 001"),
    ),
    "manifest": ("error", "manifest", "alpha-001", line("alpha-001", patient="")),
}


def test_a_clean_cohort_raises_no_alarm(clean_audit):
    assert clean_audit.findings == ()
    assert clean_audit.status == 0
    assert clean_audit.cases == {"alpha": 6, "beta": 3, "delta": 3, "gamma": 3}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name, clean, tmp_path):
    severity, kind, case, plant = FAULTS[name]
    planting = Planting(clean, tmp_path / "copy")
    plant(planting)
    audit = planting.audit()
    hits = [f for f in audit.findings if (f.severity, f.kind, f.case) == (severity, kind, case)]
    assert hits, audit.findings
    assert kind == "manifest" or all(repr(case)[1:-1] in one.message for one in hits)
    assert audit.status == {"error": 2, "warning": 1}[severity]
    accused = {f.case for f in audit.findings}
    assert accused <= {case, "alpha-001", ""}, audit.findings


def test_every_broken_line_is_a_finding_and_the_other_cases_are_read(clean, tmp_path):
    planting = Planting(clean, tmp_path / "copy")
    planting.lines["alpha-002"]["patient"] = ""
    planting.lines["beta-001"]["structures"] = "liver=1 liver=2"
    planting.lines["beta-002"]["id"] = "beta-003"
    truncate(planting)
    audit = planting.audit()
    names = list(planting.lines)
    broken = {f.case: f.message for f in audit.findings if f.kind == "manifest"}
    assert list(broken) == ["alpha-002", "beta-001", "beta-003"]
    for name, place in (("alpha-002", "alpha-002"), ("beta-001", "beta-001"), ("beta-003",) * 2):
        assert f"line {names.index(place) + 2}: " in broken[name]
    assert [f.case for f in audit.findings if f.kind == "unreadable"] == ["alpha-001"]
    assert sum(audit.cases.values()) == len(names) - 3
    assert "alpha-002" in write_page(audit, tmp_path / "p.html").read_text()


@pytest.mark.parametrize("rules", [{"liver": 0}, {"liver": {"nowhere": 1}}])
def test_a_wrong_option_is_one_finding_not_one_for_each_line(clean, rules):
    (finding,) = check_manifest(clean, structures=rules).findings
    assert (finding.kind, finding.case) == ("manifest", "")
    assert finding.message.startswith("data.structures")


def test_a_manifest_that_never_says_what_labels_mean_is_one_finding(tmp_path):
    lines = ("id,patient,site,image,label", "a,p,s,a.nii,al.nii", "b,q,s,b.nii,bl.nii")
    (tmp_path / "m.csv").write_text("\n".join(lines))
    (finding,) = check_manifest(tmp_path / "m.csv").findings
    assert "nothing says what the label's values mean" in finding.message


GIGABYTES = b"sizes: 1000 1000 4000"
BOMBS = {
    "i.nrrd": b"NRRD0004\ntype: uchar\ndimension: 3\n"
    + GIGABYTES
    + b"\nencoding: gzip\n\n"
    + bytes(99),
    "i.mha": b"ObjectType = Image\nNDims = 3\nDimSize = 1000 1000 4000\nElementType = MET_UCHAR\n"
    b"ElementDataFile = LOCAL\n" + bytes(99),
    "i.png": png_claiming(9000, 9000),
    "vast.png": png_claiming(60_000, 60_000),  # beyond Pillow's own bound
}
CHECK = """
import resource, sys
import pydicom, SimpleITK, tifffile
from segshift.audit import check_manifest
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (400 << 20),) * 2)
print(check_manifest(sys.argv[1]).json())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is bounded on Linux")
def test_a_header_that_declares_gigabytes_is_a_bomb_in_every_format(tmp_path):
    nifti = nib.Nifti1Header()
    nifti.set_data_shape((1000, 1000, 4000))
    nifti["vox_offset"], nifti["magic"] = 352, b"n+1"
    content = nifti.binaryblock + bytes(100)
    tifffile.imwrite(tmp_path / "i.tif", numbers((20, 30)).astype(np.uint8))
    with tifffile.TiffFile(tmp_path / "i.tif", mode="r+b") as file:
        file.pages[0].tags["ImageLength"].overwrite(2**27)
    save_series(tmp_path / "series", numbers().T, np.eye(4), Rows=60_000, Columns=60_000)
    bombs = BOMBS | {"i.nii": content, "i.nii.gz": gzip.compress(content)}
    for name, held in bombs.items():
        (tmp_path / name).write_bytes(held)
    lines = [f"{name},{name},s,{name}," for name in (*bombs, "i.tif", "series")]
    (tmp_path / "m.csv").write_text("\n".join(["id,patient,site,image,label", *lines]))
    done = subprocess.run(
        [sys.executable, "-c", CHECK, tmp_path / "m.csv"], capture_output=True, encoding="utf-8",
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    findings = json.loads(done.stdout)["findings"]
    found = {f["case"]: f["kind"] for f in findings if f["severity"] == "error"}
    assert found == dict.fromkeys((*bombs, "i.tif", "series"), "header-bomb")


def test_near_copies_are_one_finding_a_case_and_those_of_an_independent_correlation():
    random, count = np.random.default_rng(0), 1100  # more than two blocks
    hashes = random.random((count, 256)) < 0.5
    for copy, original in ((7, 3), (600, 3), (1099, 600), (900, 899)):
        hashes[copy] = hashes[original] ^ (random.random(256) < 0.02)
    patients = {899: "one", 900: "one"}
    facts = [
        Facts(
            case=Case(f"{i}", patients.get(i, f"p{i}"), "s", (Path(f"{i}"),)),
            shape=(1, 1, 1), spacing_mm=(1.0, 1.0, 1.0), quantiles=(), outside_share=np.nan,
            image_hash=i.to_bytes(2), label_hash=b"", appearance=row, poses=None,
        )
        for i, row in enumerate(hashes)
    ]  # fmt: skip
    correlation = np.triu(np.corrcoef(hashes.astype(float)), 1)
    correlation[899, 900] = 0  # one patient at one site
    expected = {f"{j}": correlation[:, j] for j in np.flatnonzero((correlation > NEAR).any(axis=0))}
    found = {one.case: one.message for one in check_duplicates(facts)}
    assert set(found) == set(expected) == {"7", "600", "1099"}
    for case, likeness in expected.items():
        assert f"case '{likeness.argmax()}' " in found[case]
        assert f"likeness {likeness.max():.2f}" in found[case]
        more = np.count_nonzero(likeness > NEAR) - 1
        assert (f"and like {more} more" in found[case]) == (more > 0)


def test_an_option_allows_what_lies_outside_and_small_sites(clean, tmp_path):
    planting = Planting(clean, tmp_path / "copy")
    outside(planting)
    planting.lines.pop("beta-001")
    assert planting.audit(allow_outside=True, min_patients=2).status == 0


def test_a_site_without_labels_is_no_fault(clean, tmp_path):
    planting = Planting(clean, tmp_path / "copy")
    for case in planting.lines:
        planting.lines[case]["label"] = ""
    audit = planting.audit()
    assert audit.status == 0
    assert {f.kind for f in audit.findings} == {"no-label"}
    assert len(audit.findings) == 4


def test_the_command_prints_writes_and_exits(clean, tmp_path, capsys):
    planting = Planting(clean, tmp_path / "copy")
    flipped(0)(planting)
    planting.audit()
    paths = [str(tmp_path / "out" / name) for name in ("a.json", "a.html")]
    with pytest.raises(SystemExit) as stop:
        cli.main(["cohort", "check", str(planting.path), "--json", paths[0], "--html", paths[1]])
    assert stop.value.code == 1
    assert "mirrored left-right" in " ".join(capsys.readouterr().out.split())
    content = json.loads(Path(paths[0]).read_text())
    assert content["counts"] == {"error": 0, "warning": 1, "info": 0}
    assert content["findings"][0]["case"] == "alpha-001"
    page = Path(paths[1]).read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "http" not in page


def test_a_clean_cohort_ends_with_zero(clean, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["cohort", "check", str(clean)])
    assert stop.value.code == 0
    assert "nothing found" in " ".join(capsys.readouterr().out.split())


def test_the_page_trusts_no_name(tmp_path):
    case = make_case(tmp_path, "a", site=EVIL.replace("/", ""))
    write_manifest(tmp_path / "m.csv", [case], channels=["image"], structures=["box", "core"])
    page = write_page(check_manifest(tmp_path / "m.csv"), tmp_path / "p.html").read_text()
    assert "<script" not in page
    assert "&lt;script" in page


def test_robust_z_is_blind_to_the_outlier_itself():
    z = robust_z(np.array([1.0, 1.1, 0.9, 1.0, 50.0]), floor=0.01)
    assert np.abs(z[:4]).max() < 2
    assert z[4] > 100
    assert np.abs(robust_z(np.array([1.0, 1.0, 1.001]), floor=0.1)).max() < 0.1


@pytest.mark.parametrize("shape", [(1, 7, 9), (5, 64, 64), (40, 100, 3)])
def test_pooling_keeps_a_constant_and_the_place(shape):
    assert np.allclose(pooled(np.full(shape, 3, np.int16), (8, 16, 16)), 3)
    ramp = np.broadcast_to(np.arange(shape[1])[:, None], shape)
    assert (np.diff(pooled(ramp, (2, 4, 4))[0, :, 0]) > 0).all()


def test_poses_are_sixteen_and_begin_with_none():
    volume = np.arange(2 * 3 * 3).reshape(2, 3, 3)
    assert len({pose(volume).tobytes() for pose in POSES}) == 16
    assert np.array_equal(POSES[0](volume), volume)


@pytest.mark.real_data
def test_the_hospitals_of_cardiac_raise_no_alarm():
    rules = {"cavity": {"dijon": 3, "toronto": 1}, "background": {"dijon": [1, 2]}}
    audit = check_manifest(REAL_DATA / "cardiac" / "manifest.csv", structures=rules)
    assert [f.message for f in audit.findings if f.severity != "info"] == []


def kinds(audit) -> set[tuple[str, str]]:
    return {(one.kind, one.case) for one in audit.findings}


def test_links_and_dots_out_of_the_folder_are_followed(tmp_path):
    inside = [make_case(tmp_path / "in", name) for name in "abc"]
    outside = make_case(tmp_path / "out", "d")
    for case in inside[1:]:
        case.images[0].unlink()
    inside[1].images[0].symlink_to(outside.images[0])
    folder = tmp_path / "in" / "linked"
    (tmp_path / "series").mkdir()
    folder.symlink_to(tmp_path / "series")
    lines = [
        "id,patient,site,image,label,structures",
        "a,a,here,images/a.nii.gz,labels/a.nii.gz,box=5 core=9",
        "b,b,here,images/b.nii.gz,labels/b.nii.gz,box=5 core=9",
        "c,c,here,linked,,",
        "d,d,here,..,,",
    ]
    path = tmp_path / "in" / "m.csv"
    path.write_text("\n".join(lines) + "\n")
    found = [one.message for one in check_manifest(path).findings if one.kind == "outside-folder"]
    assert len(found) == 3, found  # one for each folder: not for a


def test_a_name_that_no_file_system_takes_is_a_missing_file(tmp_path):
    case = make_case(tmp_path, "a")
    write_manifest(tmp_path / "m.csv", [case], channels=["image"], structures=["box", "core"])
    text = (tmp_path / "m.csv").read_text()
    (tmp_path / "m.csv").write_text(text.replace("images/a", "ima\0ges/a"))
    assert ("missing-file", "a") in kinds(check_manifest(tmp_path / "m.csv"))


def test_the_labels_of_every_rater_are_looked_at(tmp_path):
    cases = [make_case(tmp_path, name) for name in "abcd"]
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["box", "core"])
    with (tmp_path / "m.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["label_2"] = line["label"]
    lines[1]["label"] = ""  # drawn by rater 2 alone
    lines[2]["label_2"] = "nowhere.nii.gz"
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    assert kinds(check_manifest(tmp_path / "m.csv")) == {("missing-file", "c")}


def test_a_structure_that_nobody_drew_hides_no_other_fault(tmp_path):
    cases = [make_case(tmp_path, name) for name in "abc"]
    cases[1].images[0].unlink()
    path = tmp_path / "m.csv"
    write_manifest(path, cases, channels=["image"], structures=["box", "core"])
    path.write_text(path.read_text().replace("box=5 core=9", "box=5|9 rib=none"))
    found = check_manifest(path).findings
    assert {one.kind for one in found} >= {"manifest", "missing-file"}
    told = " ".join(one.message for one in found)
    assert "structure 'rib' is annotated in not one of the 3 cases" in told


def test_huge_grey_levels_are_measured_without_a_warning():
    volume = np.full((4, 40, 40), 3e38, dtype=np.float32)
    with np.errstate(all="raise"):
        assert pooled(volume, (1, 4, 4)) == pytest.approx(3e38, rel=1e-5)


def test_a_folder_as_a_report_is_refused_before_the_work(tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["cohort", "check", "absent.csv", "--json", str(tmp_path)])
    assert error.value.code == 2
    assert "is a folder; name the file to write" in capsys.readouterr().err
