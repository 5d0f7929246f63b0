"""Other people's folders become manifests that read back, or an error that says what to do."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REAL_DATA, make_case, save_nifti
from PIL import Image
from test_images import save_series

from segshift.cli import main
from segshift.cohort import read_manifest, write_manifest
from segshift.cohort.checks import check_headers, load_case, load_label
from segshift.cohort.images import read_geometry
from segshift.cohort.importers.imported import parse_structures
from segshift.errors import InputError

BOX = np.zeros((4, 5, 6), np.uint8)
BOX[1:3, 1:4, 1:5] = 1


def imported(tmp_path, *arguments: object):
    output = tmp_path / "out" / "m.csv"
    main(["cohort", "import", *map(str, arguments), "-o", str(output)])
    return read_manifest(output)


def failing(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(["cohort", *map(str, arguments)])
    assert str(stopped.value).startswith("error: ")
    assert "\n" not in str(stopped.value)
    return str(stopped.value)


def save_picture(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)
    return path


def save_json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def nnunet(folder: Path, *, names=("a_1", "a_2"), **changes: object) -> Path:
    content = {
        "channel_names": {"0": "T2", "1": "ADC"},
        "labels": {"background": 0, "Whole Gland": 1, "Tumour": 2},
        "file_ending": ".nii.gz",
    }
    save_json(folder / "dataset.json", content | changes)
    for name in names:
        for channel in range(2):
            save_nifti(folder / f"imagesTr/{name}_{channel:04d}.nii.gz", BOX * 100 + channel)
        save_nifti(folder / f"labelsTr/{name}.nii.gz", BOX)
    return folder


class TestNnunet:
    def test_one_data_set(self, tmp_path):
        cohort = imported(tmp_path, "nnunet", nnunet(tmp_path / "Dataset005_Prostate"))
        assert cohort.channels == ("t2", "adc")
        assert cohort.structures == ("whole_gland", "tumour")
        assert [case.id for case in cohort.cases] == ["a_1", "a_2"]
        assert cohort.sites == ("Dataset005_Prostate",)
        assert cohort.cases[0].annotation.values == (1, 2)
        assert load_case(cohort.cases[0]).image.shape == (2, 4, 5, 6)

    def test_several_are_sites_and_may_number_differently(self, tmp_path):
        nnunet(tmp_path / "raw" / "Dataset001_Here")
        labels = {"background": 0, "Tumour": 1, "Whole Gland": 2}
        nnunet(tmp_path / "raw" / "Dataset002_There", names=("a_1", "b_9"), labels=labels)
        cohort = imported(tmp_path, "nnunet", tmp_path / "raw")
        assert cohort.sites == ("Dataset001_Here", "Dataset002_There")
        assert {case.site: case.annotation.values for case in cohort.cases} == {
            "Dataset001_Here": (1, 2),
            "Dataset002_There": (2, 1),
        }
        assert [case.id for case in cohort.cases] == [
            "Dataset001_Here-a_1",
            "a_2",
            "Dataset002_There-a_1",
            "b_9",
        ]

    def test_version_1_and_ignore(self, tmp_path, capsys):
        content = {"0": "background", "1": "A"}
        cohort = imported(tmp_path, "nnunet", nnunet(tmp_path / "one", labels=content))
        assert cohort.structures == ("a",)
        labels = {"background": 0, "A": 1, "ignore": 2}
        cohort = imported(tmp_path, "nnunet", nnunet(tmp_path / "two", labels=labels))
        assert cohort.structures == ("a",)
        assert "2 is its ignore label" in capsys.readouterr().out

    def test_errors(self, tmp_path, capsys):
        output = ("-o", tmp_path / "m.csv")
        message = failing(capsys, "import", "nnunet", tmp_path, *output)
        assert "no dataset.json" in message
        regions = nnunet(tmp_path / "r", labels={"background": 0, "whole": [1, 2]})
        assert "--structures" in failing(capsys, "import", "nnunet", regions, *output)
        cohort = imported(tmp_path, "nnunet", regions, "--structures", "edema=1 core=2")
        assert cohort.structures == ("edema", "core")
        (regions / "imagesTr" / "a_2_0001.nii.gz").unlink()
        message = failing(
            capsys, "import", "nnunet", regions, "--structures", "edema=1 core=2", *output
        )
        assert "a_2_0001.nii.gz" in message
        (regions / "dataset.json").write_text("{")
        assert "not an nnU-Net description" in failing(capsys, "import", "nnunet", regions, *output)
        nnunet(tmp_path / "x" / "A")
        nnunet(tmp_path / "x" / "B", channel_names={"0": "T1"})
        assert "('t1',)" in failing(capsys, "import", "nnunet", tmp_path / "x", *output)


def bids(top: Path) -> Path:
    lines = ["participant_id\tsex\tsite\tlabel", "sub-1\tF\tnorth\tx", "sub-2\tn/a\tsouth\ty"]
    top.mkdir(parents=True)
    (top / "participants.tsv").write_text("\n".join([*lines, "sub-9\tM\tnorth\tz"]))
    save_json(top / "T1w.json", {"RepetitionTime": 2.5, "Manufacturer": "Siemens", "Nested": {}})
    for subject in ("sub-1", "sub-2"):
        stem = f"{subject}_ses-a"
        folder = top / subject / "ses-a" / "anat"
        save_nifti(folder / f"{stem}_T1w.nii.gz", BOX * 100)
        save_nifti(folder / f"{stem}_FLAIR.nii.gz", BOX * 50)
        save_json(folder / f"{stem}_T1w.json", {"EchoTime": 0.0035, "MagneticFieldStrength": 3})
        drawn = top / "derivatives" / "manual" / subject / "ses-a" / "anat"
        save_nifti(drawn / f"{stem}_T1w_dseg.nii.gz", BOX)
    return top


class TestBids:
    def test_sidecars_and_participants_become_columns(self, tmp_path, capsys):
        arguments = ("--suffix", "T1w", "--structures", "box=1")
        cohort = imported(tmp_path, "bids", bids(tmp_path / "study"), *arguments)
        assert "1 participants without images: sub-9" in capsys.readouterr().out
        first, second = cohort.cases
        assert (first.id, first.patient, first.site) == ("sub-1_ses-a", "sub-1", "north")
        assert first.tags == {
            "sex": "F",
            "original_label": "x",
            "tr_ms": "2500",
            "te_ms": "3.5",
            "field_strength_t": "3",
            "vendor": "Siemens",
        }
        assert second.tags["sex"] == ""
        assert set(np.unique(load_label(first))) == {0, 1}

    def test_channels(self, tmp_path):
        arguments = ("--suffix", "T1w,FLAIR", "--structures", "box=1")
        cohort = imported(tmp_path, "bids", bids(tmp_path / "study"), *arguments)
        assert cohort.channels == ("t1w", "flair")
        assert load_case(cohort.cases[0]).image.shape == (2, 4, 5, 6)

    def test_pixel_sizes_of_pictures(self, tmp_path, capsys):
        image = save_picture(tmp_path / "micr" / "sub-1" / "micr" / "sub-1_SEM.png", BOX[1])
        about = {"PixelSize": [0.13, 250, 1e3], "PixelSizeUnits": "nm"}
        save_json(image.with_name("sub-1_SEM.json"), about)
        (case,) = imported(tmp_path, "bids", tmp_path / "micr").cases
        assert case.tags["spacing_mm"] == "0.001;0.00025;1.3e-07"
        assert check_headers(case).spacing_mm == (0.001, 0.00025, 1.3e-07)
        output = ("-o", tmp_path / "m.csv")
        for change in ({"PixelSize": [1, "x"]}, {"PixelSize": 0.1}, {"PixelSizeUnits": "inch"}):
            save_json(image.with_name("sub-1_SEM.json"), about | change)
            message = failing(capsys, "import", "bids", tmp_path / "micr", *output)
            assert "sub-1_SEM.png has PixelSize" in message

    def test_a_mask_for_each_structure(self, tmp_path):
        top = bids(tmp_path / "study")
        for subject in ("sub-1", "sub-2"):
            drawn = top / "derivatives" / "manual" / subject / "ses-a" / "anat"
            next(drawn.iterdir()).unlink()
            name = f"{subject}_ses-a_label-{{}}_mask.nii.gz"
            save_nifti(drawn / name.format("lesion"), BOX * 255)
            if subject == "sub-1":
                save_nifti(drawn / name.format("edema"), BOX * 255)
        cohort = imported(tmp_path, "bids", top, "--suffix", "T1w")
        assert cohort.structures == ("edema", "lesion")
        assert [case.annotation.annotated for case in cohort.cases] == [(True, True), (False, True)]

    def test_a_table_names_the_values_and_the_nearest_one_holds(self, tmp_path):
        top = bids(tmp_path / "study")
        drawn = top / "derivatives" / "manual"
        inner = "sub-2/ses-a/anat/sub-2_ses-a"
        label = drawn / f"{inner}_T1w_dseg.nii.gz"
        label.rename(drawn / f"{inner}_T1w_seg-tissues_dseg.nii.gz")
        head = "index\tname\tabbreviation\n"
        (top / "dseg.tsv").write_text("index\tname\n5\tLiver\n")
        (drawn / "dseg.tsv").write_text(f"{head}0\tBackground\tBG\n2\tGray Matter\tGM\n1\tBox\tB\n")
        (drawn / "sub-9_dseg.tsv").write_text("of another subject")
        (drawn / f"{inner}_dseg.tsv").write_text(f"{head}1\tGray matter\tGM\n")
        cohort = imported(tmp_path, "bids", top, "--suffix", "T1w")
        assert cohort.structures == ("gray_matter", "box")
        assert [case.annotation.values for case in cohort.cases] == [(2, 1), (1, None)]
        assert [case.annotation.files for case in cohort.cases] == [(), ()]
        assert [np.unique(load_label(c)).tolist() for c in cohort.cases] == [[0, 2], [0, 1]]
        given = imported(tmp_path, "bids", top, "--suffix", "T1w", "--structures", "mine=1")
        assert given.structures == ("mine",)

    def test_a_label_that_names_its_structure_goes_before_a_table(self, tmp_path, capsys):
        top = bids(tmp_path / "study")
        drawn = top / "derivatives" / "manual"
        (drawn / "dseg.tsv").write_text("index\tname\n1\tbox\n")
        for subject in ("sub-1", "sub-2"):
            name = f"{subject}/ses-a/anat/{subject}_ses-a_label-lesion_dseg.nii.gz"
            save_nifti(drawn / name, BOX * 255)
        cohort = imported(tmp_path, "bids", top, "--suffix", "T1w")
        assert cohort.structures == ("lesion",)
        said = capsys.readouterr().out
        assert "left out, beside labels that name their structure: " in said
        assert "sub-2_ses-a_T1w_dseg.nii.gz" in said

    def test_a_broken_table_is_named(self, tmp_path, capsys):
        top = bids(tmp_path / "study")
        table = top / "derivatives" / "manual" / "dseg.tsv"
        for text, message in (
            ("value\tname\n1\tbox\n", "the columns index and name"),
            ("index\tname\n1.0\tbox\n", "dseg.tsv, line 2: index '1.0'"),
            (f"index\tname\n{'9' * 5000}\tbox\n", "dseg.tsv, line 2: index '999"),
            ("index\tname\n1\tn/a\n", "line 2: index '1' and name 'n/a'"),
            ("index\tname\n1\n", "line 2: index '1' and name None"),
            ("index\tname\n1\tA+\n2\tA-\n", "line 3: 2 'A-' repeats"),
            ("index\tname\n1\tA\n1\tB\n", "line 3: 1 'B' repeats"),
            ("index\tname\n0\tBackground\n", "names no structure"),
        ):
            table.write_text(text)
            output = ("--suffix", "T1w", "-o", tmp_path / "m.csv")
            assert message in failing(capsys, "import", "bids", top, *output)
        table.rename(table.with_name("sub-1_dseg.tsv")).write_text("index\tname\n1\tA\n")
        message = failing(capsys, "import", "bids", top, *output)
        assert "sub-2_ses-a_T1w_dseg.nii.gz: nothing says what its values mean" in message

    def test_errors(self, tmp_path, capsys):
        output = ("-o", tmp_path / "m.csv")
        top = bids(tmp_path / "study")
        message = failing(capsys, "import", "bids", top, *output)
        assert "FLAIR (2), T1w (2)" in message
        assert "--suffix" in message
        message = failing(capsys, "import", "bids", top, "--suffix", "T1w", *output)
        assert "--structures" in message
        assert "no image" in failing(capsys, "import", "bids", tmp_path / "no", *output)
        (top / "T1w.json").write_text("[")
        arguments = ("--suffix", "T1w", "--structures", "box=1", *output)
        assert "T1w.json is not readable" in failing(capsys, "import", "bids", top, *arguments)
        (top / "participants.tsv").write_text("name\nsub-1")
        assert "participant_id" in failing(capsys, "import", "bids", top, *arguments)

    @pytest.mark.real_data
    def test_axons(self, tmp_path, capsys):
        cohort = imported(tmp_path, "bids", REAL_DATA / "axons")
        assert "5 participants without images: sub-rat3" in capsys.readouterr().out
        assert cohort.structures == ("axon", "myelin")
        assert [case.patient for case in cohort.cases] == ["sub-rat1", "sub-rat2", "sub-rat4"]
        header = (tmp_path / "out" / "m.csv").read_text().splitlines()[0].split(",")
        assert {"label_axon", "label_myelin", "species"} <= set(header)
        edges_mm = [check_headers(case).spacing_mm for case in cohort.cases]
        assert edges_mm == [(1.8e-4,) * 3, (9.3e-5,) * 3, (1e-4,) * 3]
        assert set(np.unique(load_label(cohort.cases[0]))) == {0, 1, 2}


class TestFolder:
    def test_stems_match_and_levels_are_sites(self, tmp_path, capsys):
        for name in ("north/p1_a", "south/p2_a", "south/p3_a"):
            save_picture(tmp_path / "set" / "images" / f"{name}.jpg", BOX[1] * 100)
            if name != "south/p3_a":
                save_picture(tmp_path / "set" / "labels" / f"{name}.png", BOX[1])
        save_picture(tmp_path / "set" / "labels" / "north" / "p9.png", BOX[1])
        rules = ("--site-from", "level:2", "--patient-from", r"regex:-(\w+)_")
        cohort = imported(
            tmp_path, "folder", tmp_path / "set", "--structures", "cell=nonzero", *rules
        )
        said = capsys.readouterr().out
        assert "1 images without a label: south/p3_a" in said
        assert "1 labels without an image, left out: north/p9" in said
        assert [(c.id, c.site, c.patient) for c in cohort.cases] == [
            ("north-p1_a", "north", "p1"),
            ("south-p2_a", "south", "p2"),
            ("south-p3_a", "south", "p3"),
        ]
        assert cohort.cases[0].annotation.values == ((),)
        assert cohort.cases[2].annotation.label is None
        check_headers(cohort.cases[0])

    def test_labels_elsewhere(self, tmp_path):
        save_nifti(tmp_path / "scans" / "a.nii.gz", BOX * 100)
        save_nifti(tmp_path / "masks" / "a.nii", BOX)
        labels = ("--labels", tmp_path / "masks", "--structures", "box=1")
        cohort = imported(tmp_path, "folder", tmp_path / "scans", *labels)
        assert load_case(cohort.cases[0]).label.sum() == BOX.sum()

    def test_errors(self, tmp_path, capsys):
        output = ("-o", tmp_path / "m.csv")
        folder = ("import", "folder", tmp_path / "set")
        assert "is no folder" in failing(capsys, *folder, *output)
        save_picture(tmp_path / "set" / "images" / "a.png", BOX[1])
        save_picture(tmp_path / "set" / "labels" / "b.png", BOX[1])
        assert "'b' against 'a'" in failing(capsys, *folder, *output)
        save_picture(tmp_path / "set" / "labels" / "a.png", BOX[1])
        assert "--structures" in failing(capsys, *folder, *output)
        for text in ("box", "box=0", "a=1 b=1", "box=x", "a=nonzero b=1"):
            message = failing(capsys, *folder, "--structures", text, *output)
            assert f"--structures {text!r}" in message
        good = (*folder, "--structures", "box=1", *output)
        for rule, message in (
            ("level:7", "lies in 1 folder(s)"),
            ("level:0", "whole number from 1"),
            ("column:vendor", "no such column; there are: none"),
            ("regex:(", "not a regular expression"),
            ("regex:zz", "does not match the case 'a'"),
            ("hospital", "level:NUMBER, column:NAME or regex:EXPRESSION"),
        ):
            assert message in failing(capsys, *good, "--site-from", rule)
        save_picture(tmp_path / "set" / "images" / "a.bmp", BOX[1])
        assert "same name" in failing(capsys, *good)


PARAMETERS = {
    "RepetitionTime": 500,
    "EchoTime": 12.5,
    "MagneticFieldStrength": 1.5,
    "Manufacturer": "GE  Medical",
    "ManufacturerModelName": "Signa",
}


class TestDicom:
    def manifest(self, tmp_path, *arguments):
        output = tmp_path / "out" / "m.csv"
        main(["cohort", "import", "dicom", *map(str, arguments), "-o", str(output)])
        return read_manifest(output, structures={"any": 1})

    def test_series_are_cases(self, tmp_path, capsys):
        top = tmp_path / "scans"
        save_series(top / "p1" / "t2", BOX.T, np.eye(4), **PARAMETERS)
        save_series(top / "p2", BOX.T, np.eye(4), PatientID="P2", **PARAMETERS)
        for file in save_series(tmp_path / "more", BOX.T, np.eye(4), **PARAMETERS).iterdir():
            file.rename(top / "p2" / f"more-{file.name}")
        save_series(top / "gap", BOX[:1].T, np.eye(4), ImageOrientationPatient=None)
        cohort = self.manifest(tmp_path, top, "--site-from", "column:vendor")
        assert "left out: " in capsys.readouterr().out
        assert cohort.sites == ("GE Medical",)
        assert cohort.cases[0].id == "p1-t2"
        assert [case.patient for case in cohort.cases] == ["P1", "P2", "P1"]
        assert cohort.cases[0].tags["tr_ms"] == "500.0"
        assert cohort.cases[0].tags["te_ms"] == "12.5"
        assert cohort.cases[0].tags["field_strength_t"] == "1.5"
        assert cohort.cases[0].tags["scanner"] == "Signa"
        assert all(check_headers(case).shape == BOX.shape for case in cohort.cases)

    def test_errors(self, tmp_path, capsys):
        output = ("-o", tmp_path / "m.csv")
        assert "is no folder" in failing(capsys, "import", "dicom", tmp_path / "no", *output)
        assert "no DICOM series" in failing(capsys, "import", "dicom", tmp_path, *output)

    @pytest.mark.real_data
    def test_the_hippocampus_series(self, tmp_path):
        (case,) = self.manifest(tmp_path, REAL_DATA / "dicom").cases
        assert (case.id, case.patient, case.site) == ("hippocrop", "PGBM-002", "dicom")
        assert check_headers(case).shape == (32, 51, 35)


@pytest.mark.real_data
def test_hippocampus_with_a_site_from_the_id(tmp_path):
    rule = ("--site-from", "regex:^[a-z]+")
    cohort = imported(tmp_path, "msd", REAL_DATA / "hippocampus", *rule)
    assert len(cohort.cases) == 200
    assert cohort.sites == ("hippocampus",)


class TestConcat:
    def written(self, folder: Path, *names: str, site: str, **tags: str) -> Path:
        cases = [make_case(folder, name, site=site) for name in names]
        write_manifest(folder / "m.csv", cases, channels=["image"], structures=["box", "core"])
        if tags:
            lines = (folder / "m.csv").read_text().splitlines()
            ends = [",".join(tags), *([",".join(tags.values())] * len(names))]
            both = zip(lines, ends, strict=True)
            (folder / "m.csv").write_text("\n".join(f"{line},{end}" for line, end in both))
        return folder / "m.csv"

    def test_cases_keep_their_files(self, tmp_path, capsys):
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "extra.txt").write_text("x")
        one = self.written(tmp_path / "one", "a", "b", site="north", vendor="GE", truth="extra.txt")
        two = self.written(tmp_path / "two", "b", "c", site="south", scanner="Signa")
        output = tmp_path / "all.csv"
        main(["cohort", "concat", str(one), str(two), "-o", str(output)])
        said = capsys.readouterr().out
        assert "4 cases of 2 manifests" in said
        assert "1 patients occur in several manifests and stay one person each: b" in said
        cohort = read_manifest(output)
        assert [case.id for case in cohort.cases] == ["a", "one-b", "two-b", "c"]
        assert [case.site for case in cohort.cases] == ["north", "north", "south", "south"]
        assert cohort.cases[0].tags == {"vendor": "GE", "truth": "one/extra.txt", "scanner": ""}
        assert "one/images/a.nii.gz" in output.read_text()
        assert str(tmp_path) not in output.read_text()
        assert load_case(cohort.cases[3]).label.any()
        main(["cohort", "concat", str(output), "-o", str(tmp_path / "deep" / "er" / "all.csv")])
        again = read_manifest(tmp_path / "deep" / "er" / "all.csv")
        assert load_case(again.cases[0]).label.any()

    def test_errors(self, tmp_path, capsys):
        one = self.written(tmp_path / "one", "a", site="north")
        output = ("-o", tmp_path / "all.csv")
        assert "named twice" in failing(capsys, "concat", one, one, *output)
        assert "no manifest at" in failing(capsys, "concat", one, tmp_path / "no.csv", *output)
        other = tmp_path / "other.csv"
        for text, message in (
            ("id,patient\nx,x\n", "lacks the column(s) ['site']"),
            ("id,patient,site,image_a\nx,x,x,x\n", "image columns ['image_a']"),
            ("id,patient,site,image\nx,x\n", "line 2: the number of values"),
            ("id,patient,site,image\nx,x,x,i\nx,x,x,i\n", "['other-x'] occur twice"),
        ):
            other.write_text(text)
            assert message in failing(capsys, "concat", one, other, *output)


def test_help_and_import_are_light():
    script = (
        "import sys; from segshift.cli import main\n"
        "try: main(['cohort', 'import', '--help'])\n"
        "except SystemExit: pass\n"
        "print('pydicom' in sys.modules)\n"  # after this nibabel takes it in, where it is there
        "import segshift.cohort.importers, segshift.cohort.images\n"
        "print(sorted({'SimpleITK', 'tifffile', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("False\n[]\n")


def test_every_format_has_its_help(capsys):
    for name in ("msd", "nnunet", "bids", "folder", "dicom"):
        with pytest.raises(SystemExit):
            main(["cohort", "import", name, "--help"])
        assert "--site-from" in capsys.readouterr().out


def test_an_image_beside_no_volume_is_refused(tmp_path):
    (tmp_path / "i.xyz").write_bytes(b"?")
    with pytest.raises(InputError, match="unknown format.*nrrd.*DICOM"):
        read_geometry(tmp_path / "i.xyz")


@pytest.mark.parametrize("text", ["c=-1", "c=0", "a=1 b=1", "a=1 b=nonzero", ""])
def test_structures_that_mean_nothing(text):
    with pytest.raises(InputError, match="from 1 upwards"):
        parse_structures(text)


def test_a_manifest_that_no_run_would_read_is_refused_when_it_is_made(tmp_path, capsys):
    top = bids(tmp_path / "study")
    (top / "dseg.tsv").write_text("index\tname\n1\tmean\n")
    with pytest.raises(SystemExit) as error:
        imported(tmp_path, "bids", top, "--suffix", "T1w")
    assert "is not 'mean', which tables use" in str(error.value)
    assert "next:" not in capsys.readouterr().out
