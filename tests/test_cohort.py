"""Manifests, image files, checks and importers: right in, or an error that names the case."""

import csv
import gzip
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from conftest import REAL_DATA, make_case, reannotated, save_nifti
from PIL import Image
from test_images import save_series

from segshift.cohort import Annotation, Case, read_manifest, write_manifest
from segshift.cohort.checks import check_headers, load_case, load_label
from segshift.cohort.images import read_geometry, read_image, read_label
from segshift.cohort.importers import import_msd
from segshift.cohort.manifest import read_sound_lines
from segshift.errors import InputError


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


HEADER = "id,patient,site,image,label,structures,vendor"
LINE = "a,p1,dijon,a.nii.gz,al.nii.gz,liver=1 kidney=4,Siemens"


class TestManifest:
    def test_a_line_becomes_a_case(self, tmp_path):
        cohort = read_manifest(write_csv(tmp_path / "m.csv", HEADER, LINE))
        assert cohort.name == "m"
        assert cohort.structures == ("liver", "kidney")
        assert cohort.cases == (
            Case(
                "a",
                "p1",
                "dijon",
                (tmp_path / "a.nii.gz",),
                Annotation(tmp_path / "al.nii.gz", (1, 4)),
                {"vendor": "Siemens"},
            ),
        )

    def test_the_option_wins_over_the_column(self, tmp_path):
        path = write_csv(tmp_path / "m.csv", HEADER, LINE)
        cohort = read_manifest(path, structures={"spleen": 7})
        assert cohort.structures == ("spleen",)
        assert cohort.cases[0].annotation.values == (7,)

    def test_sites_may_number_structures_differently(self, tmp_path):
        other = "b,p2,toronto,b.nii.gz,bl.nii.gz,kidney=1 liver=2,GE"
        cohort = read_manifest(write_csv(tmp_path / "m.csv", HEADER, LINE, other))
        assert [case.annotation.values for case in cohort.cases] == [(1, 4), (2, 1)]

    def test_sites_are_chosen_by_name(self, tmp_path):
        other = "b,p2,toronto,b.nii.gz,bl.nii.gz,spleen=2,GE"
        path = write_csv(tmp_path / "m.csv", HEADER, LINE, other)
        assert read_manifest(path, sites=["toronto"]).structures == ("spleen",)
        for wrong in (["oslo"], [], "toronto"):
            with pytest.raises(InputError, match=r"data\.sites=.*dijon.*toronto"):
                read_manifest(path, sites=wrong)

    @pytest.mark.parametrize("wrong", [{"liver": 1.5}, {"liver": True}, 5, {"a": 2, "b": 2}])
    def test_a_wrong_option_is_refused(self, tmp_path, wrong):
        path = write_csv(tmp_path / "m.csv", HEADER, LINE)
        with pytest.raises(InputError, match=r"data\.structures"):
            read_manifest(path, structures=wrong)

    def test_several_channels(self, tmp_path):
        path = write_csv(
            tmp_path / "m.csv",
            "id,patient,site,image_t1,image_flair,label,structures",
            "a,a,s,t1.nii.gz,flair.nii.gz,l.nii.gz,wm=1",
        )
        cohort = read_manifest(path)
        assert cohort.channels == ("t1", "flair")
        assert [p.name for p in cohort.cases[0].images] == ["t1.nii.gz", "flair.nii.gz"]

    def test_round_trip(self, tmp_path):
        cases = [
            Case(
                "007",
                "p",
                "x,y",
                (tmp_path / "i.png",),
                Annotation(tmp_path / "l.png", (1, 255)),
                {"TR": "5"},
            ),
            Case(
                "b",
                "q",
                "z",
                (Path("/far/i.png"),),
                Annotation(values=(None, None)),
                {"TE": '7"'},
            ),
        ]
        write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["u", "v"])
        read = read_manifest(tmp_path / "m.csv").cases
        assert read[0] == replace(cases[0], tags={"TR": "5", "TE": ""})
        assert read[1] == replace(cases[1], tags={"TR": "", "TE": '7"'})
        with (tmp_path / "m.csv").open() as file:
            assert next(csv.DictReader(file))["image"] == "i.png"  # relative where it can be

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["id,patient,label", "a,p,l"], r"lacks the column\(s\) \['site', 'image'\]"),
            ([HEADER], "no cases"),
            (["id,patient,site,site,image,label", "a,p,s,t,i,l"], r"column\(s\) \['site'\] more"),
            ([HEADER, LINE.replace("kidney=4", "liver=4")], "names 'liver' twice"),
            ([HEADER, LINE, LINE], "line 3: id 'a' was used before, on line 2"),
            ([HEADER, LINE + ",more"], "number of values"),
            ([HEADER, "a,p1"], "number of values"),
            ([HEADER, LINE.replace("dijon", " ")], "'site' is empty"),
            ([HEADER, LINE.replace("liver=1 kidney=4", "liver")], "should read like"),
            ([HEADER, LINE.replace("liver=1 kidney=4", "")], r"data\.structures"),
            ([HEADER, LINE.replace("kidney=4", "kidney=1")], "each structure needs its own"),
            ([HEADER, LINE.replace("kidney=4", "kidney=0")], "from 1 upwards"),
            ([HEADER, LINE.replace("dijon", "a/b")], "may not hold '/'"),
            ([HEADER, LINE.replace("dijon", "..")], "nor begin with"),
            ([HEADER, LINE.replace("dijon", "a\\b")], "becomes part of names"),
            ([HEADER, LINE.replace("liver=1", "mean=1")], "not 'mean'"),
            ([HEADER, LINE.replace("liver=1", "a/b=1")], "structure name"),
            ([HEADER, LINE.replace("liver=1", "$x$=1")], "structure name"),
            ([HEADER, LINE.replace("liver=1", "=1")], "structure name"),
            (
                [HEADER, LINE, LINE.replace("a,p1", "b,p2").replace("kidney", "spleen")],
                "case 'b' has the structures",
            ),
        ],
    )
    def test_faults_are_named(self, tmp_path, lines, message):
        with pytest.raises(InputError, match=message):
            read_manifest(write_csv(tmp_path / "m.csv", *lines))

    def test_many_faults_are_counted_and_the_first_are_named(self, tmp_path):
        broken = [f"{i},p,dijon," for i in range(5)]
        path = write_csv(tmp_path / "m.csv", HEADER, LINE, *broken)
        with pytest.raises(InputError, match=r"and 2 more broken line\(s\); `segshift") as raised:
            read_manifest(path)
        told = [n for n in range(2, 8) if f"line {n}:" in str(raised.value)]
        assert told == [3, 4, 5]

    def test_a_typo_on_the_first_line_is_that_lines_fault(self, tmp_path):
        typo = LINE.replace("a,p1", "z,p0").replace("kidney", "kidny")
        path = write_csv(tmp_path / "m.csv", HEADER, typo, LINE, LINE.replace("a,p1", "b,p2"))
        cohort, (line,) = read_sound_lines(path)
        assert (line.number, line.case, line.site) == (2, "z", "dijon")
        assert cohort.structures == ("liver", "kidney")
        assert [case.id for case in cohort.cases] == ["a", "b"]

    def test_lines_are_numbered_as_in_an_editor(self, tmp_path):
        path = write_csv(tmp_path / "m.csv", HEADER, "", LINE, "", LINE.replace("dijon", " "))
        with pytest.raises(InputError, match="line 5: column 'site' is empty"):
            read_manifest(path)

    def test_nameless_columns_of_a_spreadsheet_do_no_harm(self, tmp_path):
        path = write_csv(tmp_path / "m.csv", HEADER + ",,", LINE + ",,")
        assert read_manifest(path).cases[0].id == "a"

    def test_missing_file_and_no_text(self, tmp_path):
        with pytest.raises(InputError, match="no manifest at"):
            read_manifest(tmp_path / "m.csv")
        (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00\x81")
        with pytest.raises(InputError, match="not a readable CSV"):
            read_manifest(tmp_path / "m.csv")


class TestImages:
    def test_axes_are_z_y_x_in_ras(self, tmp_path):
        array = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)  # (z, y, x)
        # The file runs from right to left, and its axes are x, z, y: nothing of that is seen.
        affine = np.array([[-2.0, 0, 0, 6], [0, 0, 3, 0], [0, 5, 0, 0], [0, 0, 0, 1]])
        stored = array[:, :, ::-1].transpose(1, 0, 2)  # save_nifti transposes to (x, z, y)
        path = save_nifti(tmp_path / "i.nii.gz", np.ascontiguousarray(stored), affine)
        geometry = read_geometry(path)
        assert geometry.shape == (2, 3, 4)
        assert geometry.spacing_mm == (5, 3, 2)
        np.testing.assert_array_equal(np.diag(geometry.affine)[:3], (2, 3, 5))
        np.testing.assert_array_equal(read_label(path), array)
        np.testing.assert_array_equal(read_image(path)[0], array)

    @pytest.mark.parametrize("size_mm", [1e-6, 0.0005, 1.0, 1e4])
    def test_voxels_of_any_size_are_read_but_none_without_volume(self, tmp_path, size_mm):
        affine = np.diag([size_mm, size_mm, size_mm, 1])
        path = save_nifti(tmp_path / "i.nii", np.ones((2, 3, 4), np.uint8), affine)
        np.testing.assert_allclose(read_geometry(path).spacing_mm, size_mm, rtol=1e-6)
        affine[:3, 2] = affine[:3, 1]
        path = tmp_path / "flat.nii"
        image = nib.Nifti1Image(np.ones((2, 3, 4), np.uint8), np.eye(4))
        image.set_qform(None, 0)
        for axis, name in enumerate("xyz"):
            image.header[f"srow_{name}"] = affine[axis]
        image.header["sform_code"] = 1
        path.write_bytes(image.header.binaryblock + bytes(4) + bytes(24))
        with pytest.raises(InputError, match="affine matrix is not usable"):
            read_geometry(path)

    def test_a_deflated_series_that_packs_well_is_read(self, tmp_path):
        folder = save_series(tmp_path / "s", np.zeros((64, 64, 3), np.int16), np.eye(4))
        for file in folder.iterdir():
            one = pydicom.dcmread(file)
            one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
            one.save_as(file)
            assert file.stat().st_size < 64 * 64
        np.testing.assert_array_equal(read_image(folder), np.zeros((1, 3, 64, 64)))

    def test_four_dimensions_are_channels(self, tmp_path):
        array = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
        path = save_nifti(tmp_path / "i.nii.gz", array)
        assert read_geometry(path).channels == 2
        np.testing.assert_array_equal(read_image(path), array)

    @pytest.mark.parametrize("mode", ["L", "I;16", "RGB"])
    def test_pictures_are_one_slice(self, tmp_path, mode):
        shape = (6, 7, 3) if mode == "RGB" else (6, 7)
        array = np.random.default_rng(0).integers(0, 200, shape)
        array = array.astype(np.uint16 if mode == "I;16" else np.uint8)
        Image.fromarray(array).save(tmp_path / "i.png")
        assert read_geometry(tmp_path / "i.png").shape == (1, 6, 7)
        read = read_image(tmp_path / "i.png")
        assert read.shape == (3 if mode == "RGB" else 1, 1, 6, 7)
        np.testing.assert_array_equal(np.moveaxis(read[:, 0], 0, -1).reshape(shape), array)

    def test_transparency_is_no_channel(self, tmp_path):
        array = np.random.default_rng(0).integers(0, 200, (6, 7, 4)).astype(np.uint8)
        Image.fromarray(array).save(tmp_path / "i.png")
        assert read_geometry(tmp_path / "i.png").channels == 3
        read = read_image(tmp_path / "i.png")[:, 0]
        np.testing.assert_array_equal(read, array.transpose(2, 0, 1)[:3])

    def test_fractional_labels_are_refused(self, tmp_path):
        path = save_nifti(tmp_path / "l.nii.gz", np.full((2, 2, 2), 0.5, np.float32))
        with pytest.raises(InputError, match=r"whole numbers below 2\^31, found 0.5"):
            read_label(path)

    @pytest.mark.parametrize("name", ["i.nii.gz", "i.nii", "i.png", "i.xyz", "none.nii.gz"])
    @pytest.mark.parametrize("content", [b"", b"rubbish" * 100, b"\x1f\x8b\x08\x00"])
    def test_broken_files_are_named(self, tmp_path, name, content):
        if name != "none.nii.gz":
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            read_geometry(tmp_path / name)


class TestChecks:
    def test_a_good_case(self, tmp_path):
        case = make_case(tmp_path, "good")
        volume = load_case(case)
        assert volume.image.shape == (1, 8, 16, 16)
        assert volume.image.dtype == np.float32
        assert set(np.unique(volume.label)) == {0, 1, 2}
        raw = read_label(case.annotation.label)
        np.testing.assert_array_equal(volume.label == 1, raw == 5)
        np.testing.assert_array_equal(volume.label == 2, raw == 9)

    def test_another_shape(self, tmp_path):
        case = make_case(tmp_path, "odd")
        label = save_nifti(tmp_path / "l.nii.gz", np.zeros((8, 16, 15), np.uint8))
        with pytest.raises(InputError, match=r"case 'odd'.*\(8, 16, 15\).*\(8, 16, 16\)"):
            check_headers(reannotated(case, label=label))

    def test_another_affine(self, tmp_path):
        case = make_case(tmp_path, "odd")
        affine = np.diag([1.0, 1, 1, 1])
        affine[0, 3] = 5
        label = save_nifti(tmp_path / "l.nii.gz", np.zeros((8, 16, 16), np.uint8), affine)
        with pytest.raises(InputError, match="case 'odd'.*lie elsewhere"):
            check_headers(reannotated(case, label=label))

    @pytest.mark.parametrize(("scale", "same"), [(1.005, True), (1.02, False)])
    def test_affines_are_compared_where_they_matter(self, tmp_path, scale, same):
        """At the far corner, 15 voxels away: 0.08 of a voxel is a rounding, 0.3 another grid."""
        case = make_case(tmp_path, "odd")
        affine = np.diag([scale, 1, 1, 1])
        label = save_nifti(tmp_path / "l.nii.gz", np.zeros((8, 16, 16), np.uint8), affine)
        if same:
            check_headers(reannotated(case, label=label))
        else:
            with pytest.raises(InputError, match="lie elsewhere"):
                check_headers(reannotated(case, label=label))

    def test_an_unknown_value(self, tmp_path):
        case = reannotated(make_case(tmp_path, "odd"), values=(5, 8))
        with pytest.raises(InputError, match=r"case 'odd'.*\[9\].*known are \[0, 5, 8\]"):
            load_label(case)

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_no_number(self, tmp_path, value):
        case = make_case(tmp_path, "odd")
        image = read_image(case.images[0])[0]
        image[1, 2, 3] = value
        path = save_nifti(tmp_path / "i.nii.gz", image)
        with pytest.raises(InputError, match="case 'odd': 1 voxels .* NaN or infinite"):
            load_case(replace(case, images=(path,)))

    def test_truncated_pixels_behind_a_good_header(self, tmp_path):
        case = make_case(tmp_path, "cut", shape=(32, 64, 64))
        whole = case.images[0].read_bytes()
        case.images[0].write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match="case 'cut'.*truncated or unreadable"):
            load_case(case)

    def test_no_label(self, tmp_path):
        with pytest.raises(InputError, match="case 'bare' has no label"):
            load_label(reannotated(make_case(tmp_path, "bare"), label=None))

    def test_any_damage_is_an_input_error(self, tmp_path):
        """Bytes of header and pixels flipped at random: read as they are, or refused by name."""
        case = make_case(tmp_path, "fuzz")
        whole = bytearray(gzip.decompress(case.images[0].read_bytes()))
        random = np.random.default_rng(0)
        refused = 0
        for _ in range(300):
            damaged = bytearray(whole)
            for place in random.integers(0, 352, 3):
                damaged[place] = random.integers(256)
            case.images[0].write_bytes(gzip.compress(bytes(damaged), 1))
            try:
                load_case(case)
            except InputError as error:
                refused += 1
                assert "case 'fuzz'" in str(error)
        assert refused > 50


class TestMsd:
    def msd(self, folder: Path, **changes: object) -> Path:
        for name in ("liver_1", "liver_2"):
            save_nifti(folder / "imagesTr" / f"{name}.nii.gz", np.ones((3, 4, 5), np.float32))
            save_nifti(folder / "labelsTr" / f"{name}.nii.gz", np.ones((3, 4, 5), np.uint8))
        description = {
            "name": "My Liver",
            "modality": {"0": "CT"},
            "labels": {"0": "background", "1": "Liver", "2": "Liver tumour"},
            "training": [
                {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
                for n in ("liver_1", "liver_2")
            ],
        } | changes
        (folder / "dataset.json").write_text(json.dumps(description))
        return folder

    def test_cases_and_names(self, tmp_path):
        cases, channels, structures = import_msd(self.msd(tmp_path))
        assert channels == ("ct",)
        assert structures == ("liver", "liver_tumour")
        assert [(c.id, c.patient, c.site, c.annotation.values) for c in cases] == [
            ("liver_1", "liver_1", "my_liver", (1, 2)),
            ("liver_2", "liver_2", "my_liver", (1, 2)),
        ]
        write_manifest(tmp_path / "m.csv", cases, channels=channels, structures=structures)
        assert read_manifest(tmp_path / "m.csv").cases == cases
        load_case(cases[0])

    def test_the_site_is_an_option(self, tmp_path):
        assert import_msd(self.msd(tmp_path), site="dijon")[0][0].site == "dijon"

    @pytest.mark.parametrize("changes", [{"labels": {"x": "y"}}, {"training": 5}, {"training": []}])
    def test_faults(self, tmp_path, changes):
        with pytest.raises(InputError, match=r"dataset\.json"):
            import_msd(self.msd(tmp_path, **changes))
        with pytest.raises(InputError, match=r"dataset\.json does not exist"):
            import_msd(tmp_path / "nowhere")

    @pytest.mark.real_data
    def test_hippocampus(self):
        cases, _, structures = import_msd(REAL_DATA / "hippocampus")
        assert len(cases) == 200
        assert structures == ("anterior", "posterior")
        assert load_case(cases[0]).label.max() == 2


def test_a_line_too_short_for_a_site_is_broken_at_every_choice_of_sites(tmp_path):
    cases = [make_case(tmp_path, name, site="dijon") for name in "ab"]
    path = tmp_path / "m.csv"
    write_manifest(path, cases, channels=["image"], structures=["box", "core"])
    path.write_text(path.read_text() + "c,p\n")
    for sites in (None, ["dijon"]):
        with pytest.raises(InputError, match="line 4"):
            read_manifest(path, sites=sites)


def test_line_breaks_in_cells_are_spaces(tmp_path):
    case = replace(make_case(tmp_path, "a"), tags={"vendor": "x\ry\n\nz"})
    write_manifest(tmp_path / "m.csv", [case], channels=["image"], structures=["box", "core"])
    (read,) = read_manifest(tmp_path / "m.csv").cases
    assert read.tags["vendor"] == "x y z"
