"""Image formats: one convention in, the file's own geometry out, and no header is believed."""

import gzip
import itertools
import os
import shutil
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from conftest import REAL_DATA, save_nifti
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from segshift.cohort import Annotation, Case
from segshift.cohort.checks import check_headers, load_case
from segshift.cohort.images import (
    image_files,
    label_suffix,
    pictures,
    read_geometry,
    read_image,
    read_label,
    save_label,
)
from segshift.errors import InputError

SHAPE = (3, 4, 5)  # z, y, x
TURNS = [
    (order, signs)
    for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2))
    for signs in itertools.product((1, -1), repeat=3)
]


def numbers(shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)


def turned(order, signs) -> tuple[np.ndarray, np.ndarray]:
    """A RAS volume as stored (i, j, k) with its axes in another order and direction, affine."""
    array = numbers().transpose(2, 1, 0)  # x, y, z
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    affine[:3, 3] = (-7.0, 11.0, 13.0)
    stored = np.transpose(array, order)
    matrix = affine[:, [*order, 3]]
    for axis, sign in enumerate(signs):
        if sign < 0:
            matrix[:3, 3] += matrix[:3, axis] * (stored.shape[axis] - 1)
            matrix[:3, axis] *= -1
            stored = np.flip(stored, axis)
    return np.ascontiguousarray(stored), matrix


def save_itk(path: Path, stored: np.ndarray, affine: np.ndarray, *, compressed=False) -> Path:
    image = sitk.GetImageFromArray(stored.transpose(2, 1, 0))
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=compressed)
    return path


def save_series(folder: Path, stored: np.ndarray, affine: np.ndarray, **tags: object) -> Path:
    """Slices (i, j) of a stored volume (i, j, k) under names that do not follow their order."""
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    series = generate_uid()
    for k in range(stored.shape[2]):
        one = Dataset()
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID = MRImageStorage
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID = generate_uid()
        one.SeriesInstanceUID, one.PatientID, one.Modality = series, "P1", "MR"
        one.Columns, one.Rows = stored.shape[:2]
        one.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        one.ImageOrientationPatient = (lps[:3, :2] / spacing[:2]).T.ravel().tolist()
        one.ImagePositionPatient = (lps[:3, 3] + k * lps[:3, 2]).tolist()
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated = one.BitsStored = 16
        one.HighBit, one.PixelRepresentation = 15, 1
        one.PixelData = stored[:, :, k].T.astype("<i2").tobytes()
        for name, value in tags.items():
            setattr(one, name, value)
        one.save_as(folder / f"{(7 * k + 3) % 11:02d}.dcm", enforce_file_format=True)
    return folder


def saved(kind: str, folder: Path, stored: np.ndarray, affine: np.ndarray) -> Path:
    if kind.startswith(".nii"):
        nib.save(nib.Nifti1Image(stored, affine), folder / f"i{kind}")
        return folder / f"i{kind}"
    if kind == "dicom":
        return save_series(folder / "series", stored, affine)
    return save_itk(folder / f"i{kind}", stored, affine)


@pytest.mark.parametrize("kind", [".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", "dicom"])
@pytest.mark.parametrize(("order", "signs"), TURNS)
def test_every_orientation_comes_in_as_ras_and_goes_out_as_it_was(kind, order, signs, tmp_path):
    stored, affine = turned(order, signs)
    path = saved(kind, tmp_path, stored, affine)
    geometry = read_geometry(path)
    assert geometry.shape == SHAPE
    np.testing.assert_allclose(geometry.spacing_mm, (5, 3, 2), rtol=1e-5)
    expected = np.diag([2.0, 3, 5, 1])
    expected[:3, 3] = (-7, 11, 13)
    np.testing.assert_allclose(geometry.affine, expected, atol=1e-4)
    np.testing.assert_array_equal(read_image(path)[0], numbers())
    np.testing.assert_array_equal(read_label(path), numbers())

    label = (numbers() > 100).astype(np.int64) * 3
    out = tmp_path / f"out{label_suffix(path)}"
    save_label(out, label, like=path)
    assert [each.name for each in tmp_path.glob("*out*")] == [out.name]
    np.testing.assert_array_equal(read_label(out), label)
    np.testing.assert_allclose(read_geometry(out).affine, expected, atol=1e-4)
    if kind == ".nii.gz":
        np.testing.assert_allclose(nib.load(out).affine, affine)
        assert nib.load(out).get_data_dtype() == np.uint8
    elif kind != "dicom":
        before, after = sitk.ReadImage(str(path)), sitk.ReadImage(str(out))
        for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(before, name)(), getattr(after, name)())


class TestNifti:
    def test_an_oblique_affine_and_the_codes_come_back(self, tmp_path):
        affine = nib.affines.from_matvec(
            nib.eulerangles.euler2mat(0.2, 0.3, 0.1) * [2, 3, 5], [1, 2, 3]
        )
        image = nib.Nifti1Image(numbers().T, affine)
        image.set_qform(affine, 1)
        image.set_sform(affine, 2)
        nib.save(image, tmp_path / "i.nii")
        save_label(tmp_path / "o.nii.gz", read_label(tmp_path / "i.nii"), like=tmp_path / "i.nii")
        out = nib.load(tmp_path / "o.nii.gz")
        np.testing.assert_allclose(out.affine, affine, atol=1e-6)
        assert (out.header["qform_code"], out.header["sform_code"]) == (1, 2)
        np.testing.assert_array_equal(np.asarray(out.dataobj), numbers().T)

    def test_an_image_without_codes_keeps_its_place(self, tmp_path):
        image = nib.Nifti1Image(numbers().T, np.eye(4))
        image.set_sform(None, 0)
        image.set_qform(None, 0)
        nib.save(image, tmp_path / "i.nii")
        before = read_geometry(tmp_path / "i.nii")
        label = read_label(tmp_path / "i.nii")
        save_label(tmp_path / "o.nii.gz", label, like=tmp_path / "i.nii")
        assert read_geometry(tmp_path / "o.nii.gz") == before

    def test_a_wrong_name_and_a_wrong_shape(self, tmp_path):
        path = save_nifti(tmp_path / "i.nii.gz", numbers())
        with pytest.raises(InputError, match=r"o.png.*\*.nii.gz"):
            save_label(tmp_path / "o.png", numbers(), like=path)
        with pytest.raises(InputError, match=r"\(2, 4, 5\).*\(3, 4, 5\)"):
            save_label(tmp_path / "o.nii.gz", numbers()[:2], like=path)


class TestItk:
    def test_channels(self, tmp_path):
        array = np.random.default_rng(0).normal(size=(*SHAPE, 3)).astype(np.float32)
        for name in ("v.nrrd", "v.mha"):
            sitk.WriteImage(sitk.GetImageFromArray(array, isVector=True), str(tmp_path / name))
            assert read_geometry(tmp_path / name).channels == 3
            # ITK's axes without a direction point to the left and back.
            expected = array[:, ::-1, ::-1].transpose(3, 0, 1, 2)
            np.testing.assert_array_equal(read_image(tmp_path / name), expected)
        series = array.transpose(3, 0, 1, 2)
        sitk.WriteImage(sitk.GetImageFromArray(series, isVector=False), str(tmp_path / "t.nrrd"))
        np.testing.assert_array_equal(read_image(tmp_path / "t.nrrd"), series[..., ::-1, ::-1])

    def test_two_dimensions(self, tmp_path):
        sitk.WriteImage(sitk.GetImageFromArray(numbers((4, 5))), str(tmp_path / "i.mha"))
        assert read_geometry(tmp_path / "i.mha").shape == (1, 4, 5)
        save_label(tmp_path / "o.mha", read_label(tmp_path / "i.mha"), like=tmp_path / "i.mha")
        assert sitk.ReadImage(str(tmp_path / "o.mha")).GetSize() == (5, 4)
        np.testing.assert_array_equal(
            read_label(tmp_path / "o.mha"), read_label(tmp_path / "i.mha")
        )

    @pytest.mark.parametrize("name", ["i.nrrd", "i.mha", "i.nhdr", "i.mhd"])
    @pytest.mark.parametrize("compressed", [True, False])
    def test_damage_is_told_in_one_line(self, tmp_path, name, compressed, capfd):
        array = numbers((20, 30, 40))
        path = save_itk(tmp_path / name, array, np.eye(4), compressed=compressed)
        data = next((p for p in tmp_path.iterdir() if p != path), path)
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
        with pytest.raises(InputError, match=name) as raised:
            read_image(path)
        assert "\n" not in str(raised.value)
        if not compressed:
            with pytest.raises(InputError, match="cannot hold them"):
                read_geometry(path)
        path.write_bytes(b"NRRD0004\nrubbish: \xff\n\n" if "n" in name else b"NDims = \xff")
        with pytest.raises(InputError, match=name):
            read_geometry(path)
        assert capfd.readouterr() == ("", "")

    def test_voxels_elsewhere_are_not_followed(self, tmp_path):
        (tmp_path / "in").mkdir()
        path = save_itk(tmp_path / "in" / "i.mhd", numbers(), np.eye(4))
        shutil.move(tmp_path / "in" / "i.raw", tmp_path / "i.raw")
        path.write_text(path.read_text().replace("= i.raw", "= ../i.raw"))
        with pytest.raises(InputError, match=r"i.mhd.*no single file in the same folder"):
            read_geometry(path)


class TestPictures:
    @pytest.mark.parametrize("compression", [None, "zlib", "pillow"])
    def test_pages_are_slices(self, tmp_path, compression):
        path, array = tmp_path / "i.tif", numbers().astype(np.uint16)
        if compression == "pillow":  # LZW, which tifffile leaves to imagecodecs
            pages = [Image.fromarray(page) for page in array]
            pages[0].save(path, save_all=True, append_images=pages[1:], compression="tiff_lzw")
        else:
            tifffile.imwrite(path, array, photometric="minisblack", compression=compression)
        assert read_geometry(path).shape == SHAPE
        np.testing.assert_array_equal(read_label(path), array)
        save_label(tmp_path / "o.tif", array.astype(np.int32) + 300, like=path)
        np.testing.assert_array_equal(read_label(tmp_path / "o.tif"), array + 300)

    @pytest.mark.parametrize("channels", [3, 4])
    def test_colours_of_a_tiff(self, tmp_path, channels):
        array = numbers((6, 7, channels)).astype(np.uint8)
        extra = ["unassalpha"] if channels == 4 else None
        tifffile.imwrite(tmp_path / "i.tif", array, photometric="rgb", extrasamples=extra)
        assert read_geometry(tmp_path / "i.tif").channels == 3
        expected = array[..., :3].transpose(2, 0, 1)
        np.testing.assert_array_equal(read_image(tmp_path / "i.tif")[:, 0], expected)

    def test_more_axes_than_slices_and_channels(self, tmp_path):
        array = numbers((2, 3, 6, 7)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "i.tif", array, imagej=True, metadata={"axes": "TZYX"})
        with pytest.raises(InputError, match=r"TZYX.*one volume a file"):
            read_geometry(tmp_path / "i.tif")

    @pytest.mark.parametrize("name", ["i.png", "i.jpg", "i.bmp"])
    def test_labels_beside_pictures(self, tmp_path, name):
        Image.fromarray(numbers((6, 7)).astype(np.uint8)).save(tmp_path / name)
        label = numbers((1, 6, 7)).astype(np.int32) * 2
        save_label(tmp_path / "o.png", label, like=tmp_path / name)
        np.testing.assert_array_equal(read_label(tmp_path / "o.png"), label)
        with pytest.raises(InputError, match="o.png.*values up to 65535"):
            save_label(tmp_path / "o.png", label + 70_000, like=tmp_path / name)


class TestSeries:
    def test_an_oblique_series_and_its_files(self, tmp_path):
        affine = nib.affines.from_matvec(
            nib.eulerangles.euler2mat(0.2, 0.3, 0.1) * [2, 3, 5], [1, 2, 3]
        )
        folder = save_series(
            tmp_path / "s", numbers().T, affine, RescaleSlope=2, RescaleIntercept=1
        )
        (folder / "notes.txt").write_text("no slice")
        np.testing.assert_allclose(read_geometry(folder).affine, affine, atol=1e-5)
        np.testing.assert_array_equal(read_image(folder)[0], numbers() * 2 + 1)
        assert len(image_files(folder)) == SHAPE[0]
        save_label(tmp_path / "o.nii.gz", numbers(), like=folder)
        np.testing.assert_allclose(nib.load(tmp_path / "o.nii.gz").affine, affine, atol=1e-5)

    def test_gaps_and_doubles(self, tmp_path):
        folder = save_series(tmp_path / "s", numbers((5, 4, 3)).T, np.eye(4))
        middle = image_files(folder)[2]
        middle.rename(tmp_path / "kept")
        with pytest.raises(InputError, match="2 mm apart.*missing or doubled"):
            read_geometry(folder)
        shutil.copy(image_files_of(folder)[0], middle)
        with pytest.raises(InputError, match="missing or doubled"):
            read_geometry(folder)

    def test_two_series_in_a_folder(self, tmp_path):
        folder = save_series(tmp_path / "s", numbers().T, np.eye(4))
        first = image_files_of(folder)[0]
        other = save_series(tmp_path / "o", numbers()[..., ::-1].T, np.eye(4))
        for file in other.iterdir():
            shutil.copy(file, folder / f"other-{file.name}")
        with pytest.raises(InputError, match="2 series in one folder"):
            read_geometry(folder)
        np.testing.assert_array_equal(read_image(first)[0], numbers())
        assert len(image_files(first)) == SHAPE[0]

    @pytest.mark.parametrize(
        ("tags", "message"),
        [
            ({"NumberOfFrames": 3}, "several frames.*dcm2niix"),
            ({"ImagePositionPatient": None}, "ImagePositionPatient"),
            ({"Rows": 60_000, "Columns": 60_000}, "cannot hold them"),
        ],
    )
    def test_what_is_no_volume(self, tmp_path, tags, message):
        folder = save_series(tmp_path / "s", numbers().T, np.eye(4), **tags)
        with pytest.raises(InputError, match=message):
            read_geometry(folder)

    def test_empty_folders_and_mixed_slices(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="no DICOM files"):
            read_geometry(tmp_path / "empty")
        folder = save_series(tmp_path / "s", numbers().T, np.eye(4))
        file = image_files_of(folder)[1]
        one = pydicom.dcmread(file)
        one.ImageOrientationPatient = [0, 1, 0, 0, 0, 1]
        one.save_as(file)
        with pytest.raises(InputError, match="ImageOrientationPatient.*localizer"):
            read_geometry(folder)

    @pytest.mark.parametrize("codec", ["RLE", "JPEG2000"])
    def test_compressed_slices(self, tmp_path, codec):
        folder = save_series(tmp_path / "s", numbers((3, 40, 50)).T, np.eye(4))
        for file in image_files(folder):
            one, plane = pydicom.dcmread(file), sitk.ReadImage(str(file))
            if codec == "JPEG2000":  # GDCM makes and takes it; its tags are put right again
                sitk.WriteImage(plane, str(file), useCompression=True, compressor=codec)
                made = pydicom.dcmread(file)
                one.PixelData, one.file_meta = made.PixelData, made.file_meta
                one["PixelData"].is_undefined_length = True
            else:
                one.compress(pydicom.uid.RLELossless)
            one.save_as(file)
        assert pydicom.dcmread(image_files(folder)[0]).file_meta.TransferSyntaxUID.is_encapsulated
        np.testing.assert_array_equal(read_image(folder)[0], numbers((3, 40, 50)))

    @pytest.mark.real_data
    def test_the_hippocampus_series(self):
        folder = REAL_DATA / "dicom" / "hippocrop"
        geometry = read_geometry(folder)
        assert geometry.shape == (32, 51, 35)
        reference = sitk.ImageSeriesReader()
        reference.SetFileNames(reference.GetGDCMSeriesFileNames(str(folder)))
        expected = sitk.GetArrayFromImage(reference.Execute())
        np.testing.assert_array_equal(read_image(folder)[0], expected[:, ::-1, ::-1])


def image_files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"))


def png_claiming(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


class TestBombs:
    """A few bytes that declare gigabytes are refused from the header alone."""

    @pytest.mark.parametrize("name", ["i.nii", "i.nii.gz"])
    def test_nifti(self, tmp_path, name):
        header = nib.Nifti1Header()
        header.set_data_shape((30_000, 30_000, 30_000))
        header.set_data_dtype(np.float64)
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        content = header.binaryblock + b"\0" * 100
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        for reads in (read_geometry, read_image, read_label):
            with pytest.raises(InputError, match=f"{name}.*216000000000352 bytes"):
                reads(tmp_path / name)

    @pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])
    def test_nrrd(self, tmp_path, encoding):
        (tmp_path / "i.nrrd").write_bytes(
            b"NRRD0004\ntype: double\ndimension: 3\nsizes: 30000 30000 30000\nendian: little\n"
            + f"encoding: {encoding}\n\n".encode()
            + b"0" * 100
        )
        with pytest.raises(InputError, match="i.nrrd.*cannot hold them"):
            read_image(tmp_path / "i.nrrd")

    @pytest.mark.parametrize("compressed", ["True", "False"])
    def test_mha(self, tmp_path, compressed):
        (tmp_path / "i.mha").write_bytes(
            b"ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 30000 30000 30000\n"
            + f"CompressedData = {compressed}\n".encode()
            + b"ElementType = MET_DOUBLE\nElementDataFile = LOCAL\n"
            + b"0" * 100
        )
        with pytest.raises(InputError, match="i.mha.*cannot hold them"):
            read_image(tmp_path / "i.mha")

    def test_pictures(self, tmp_path):
        (tmp_path / "i.png").write_bytes(png_claiming(9000, 9000))
        with pytest.raises(InputError, match="i.png.*cannot hold them"):
            read_image(tmp_path / "i.png")
        tifffile.imwrite(tmp_path / "i.tif", numbers((20, 30)).astype(np.uint8))
        with tifffile.TiffFile(tmp_path / "i.tif", mode="r+b") as file:
            file.pages[0].tags["ImageLength"].overwrite(2**30)
        with pytest.raises(InputError, match="i.tif.*32212254720 bytes.*cannot hold them"):
            read_image(tmp_path / "i.tif")

    def test_an_empty_label_that_compresses_well_is_read(self, tmp_path):
        for name in ("l.nii.gz", "l.nrrd", "l.png", "l.tif"):
            like, shape = tmp_path / f"like-{name}", (1, 600, 600)
            if name == "l.nii.gz":
                save_nifti(like, np.zeros(shape, np.uint8))
            elif name == "l.nrrd":
                save_itk(like, np.zeros(shape, np.uint8).T, np.eye(4))
            else:
                Image.fromarray(np.zeros(shape[1:], np.uint8)).save(like)
            save_label(tmp_path / name, np.zeros(shape, np.int32), like=like)
            assert not read_label(tmp_path / name).any()


def test_reading_in_threads_leaves_stderr_as_it_was(tmp_path):
    """MetaIO is silenced by turning stderr away, which all threads share."""
    path = tmp_path / "i.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(path))
    before = os.fstat(2)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read_image, [path] * 200))
    assert os.fstat(2) == before


MICRON = {"unit": "um", "axes": "ZYX", "spacing": 2.0}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True, "metadata": MICRON}, (2e-3, 2.5e-4, 5e-4)),
        ({"imagej": True, "metadata": MICRON | {"unit": "\\u00B5m"}}, (2e-3, 2.5e-4, 5e-4)),
        ({"imagej": True, "metadata": MICRON | {"unit": "inch"}}, None),  # a printer's
        ({"imagej": True, "metadata": {"unit": "um", "axes": "ZYX"}}, None),  # of a stack, no z
        ({"resolutionunit": "CENTIMETER", "photometric": "minisblack"}, None),
    ],
)
def test_a_tiff_of_imagej_has_a_voxel_size_and_a_printers_has_none(tmp_path, options, expected):
    path = tmp_path / "i.tif"
    tifffile.imwrite(path, numbers().astype(np.uint16), resolution=(2, 4), **options)
    found = pictures.declared_spacing_mm(path)
    assert found == (expected if expected is None else pytest.approx(expected))
    assert read_geometry(path).spacing_mm == (1, 1, 1)  # of the file, as of its label


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({"X": 0.5, "Y": 250, "YUnit": "nm"}, (5e-4, 2.5e-4, 5e-4)),
        ({"X": 0.5, "Y": 0.25, "Z": 3.0}, (3e-3, 2.5e-4, 5e-4)),
        ({"X": 0.5, "Y": 0.25, "YUnit": "pixel"}, None),
        ({"X": 0.5, "Y": 0.0}, None),
        ({}, None),
    ],
)
def test_an_ome_tiff_has_the_voxel_size_of_its_xml(tmp_path, sizes, expected):
    about = {f"PhysicalSize{axis}": size for axis, size in sizes.items()}
    array = numbers((20, 30)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "i.ome.tif", array, ome=True, metadata={"axes": "YX", **about})
    found = pictures.declared_spacing_mm(tmp_path / "i.ome.tif")
    assert found == (expected if expected is None else pytest.approx(expected))


def test_pictures_that_are_no_tiff_declare_nothing(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "i.png", dpi=(300, 300))
    assert pictures.declared_spacing_mm(tmp_path / "i.png") is None


class TestSpacingOfPictures:
    """The column wins over the file, reaches the case's geometry, and may not contradict one."""

    def case(self, folder: Path, image: str, label: str, **tags: str) -> Case:
        for name in (image, label):
            Image.fromarray(np.eye(4, dtype=np.uint8)).save(folder / name)
        return Case("c", "p", "s", (folder / image,), Annotation(folder / label, (1,)), tags)

    def test_the_column(self, tmp_path):
        for text, expected in (
            ("", (1, 1, 1)),
            ("0.25;0.5", (0.5, 0.25, 0.5)),
            (" 2; 0.25; 0.5", (2, 0.25, 0.5)),
            ("1e-4;1e-4", (1e-4, 1e-4, 1e-4)),
        ):
            case = self.case(tmp_path, "i.png", "l.png", spacing_mm=text)
            geometry = check_headers(case)
            assert geometry.spacing_mm == load_case(case).spacing_mm == expected
            assert np.diag(geometry.affine)[2::-1].tolist() == list(expected)

    def test_the_file_beside_a_label_that_says_nothing(self, tmp_path):
        case = self.case(tmp_path, "i.tif", "l.png")
        options = {"imagej": True, "metadata": {"unit": "um", "axes": "YX"}}
        tifffile.imwrite(
            tmp_path / "i.tif", np.eye(4, dtype=np.uint8), resolution=(2, 4), **options
        )
        assert check_headers(case).spacing_mm == (5e-4, 2.5e-4, 5e-4)
        case = replace(case, tags={"spacing_mm": "3;3"})
        assert check_headers(case).spacing_mm == (3, 3, 3)

    @pytest.mark.parametrize("text", ["wide", "1", "1;2;3;4", "1;0", "1;nan", "1,2"])
    def test_a_column_that_is_none(self, tmp_path, text):
        with pytest.raises(InputError, match=r"case 'c'.*spacing_mm is .*z;y;x in mm"):
            check_headers(self.case(tmp_path, "i.png", "l.png", spacing_mm=text))

    def test_a_stack_needs_three(self, tmp_path):
        stack = numbers().astype(np.uint8)
        tifffile.imwrite(tmp_path / "i.tif", stack, photometric="minisblack")
        case = Case("c", "p", "s", (tmp_path / "i.tif",), tags={"spacing_mm": "1;1"})
        with pytest.raises(InputError, match=f"this case has {SHAPE[0]} slice"):
            check_headers(case)

    def test_a_header_of_its_own(self, tmp_path):
        path = save_nifti(tmp_path / "i.nii.gz", numbers(), np.diag([1.5, 1.5, 3.0, 1.0]))
        case = Case("c", "p", "s", (path,), tags={"spacing_mm": "3;1.5;1.501"})
        assert check_headers(case).spacing_mm == (3, 1.5, 1.5)
        with pytest.raises(InputError, match=r"case 'c'.*says \(1.5, 1.5, 3.0\).*i.nii.gz"):
            check_headers(replace(case, tags={"spacing_mm": "1.5;1.5;3"}))


def test_voxels_in_a_file_of_their_own_are_part_of_an_image(tmp_path):
    path = tmp_path / "i.mhd"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((2, 3, 4), np.int16)), str(path))
    assert image_files(path) == (path, tmp_path / "i.raw")
