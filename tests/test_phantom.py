"""The simulated sites: physics against known values, shifts against truth, bytes against seeds."""

import dataclasses
import hashlib
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy import ndimage

from segshift.cohort import Cohort
from segshift.cohort.phantom import (
    GUIDELINES,
    STRUCTURES,
    Guideline,
    Patient,
    annotate,
    image_patient,
    parse_site,
    simulate_patient,
    simulated_cohort,
)
from segshift.cohort.physics import TISSUES, Tissue
from segshift.errors import InputError
from segshift.mr_signal import add_rician_noise, spin_echo

CONFIG = Path(__file__).parents[1] / "conf" / "data" / "phantom.yaml"
SITES = yaml.safe_load(CONFIG.read_text())["cohort"]["sites"]
TINY = {"shape": (12, 24, 28), "spacing_mm": (16.0, 13.5, 14.5)}
FINE = {"shape": (32, 64, 80), "spacing_mm": (6.0, 5.0, 5.0)}
LIVER, KIDNEY, LESION = STRUCTURES.values()


def patient_of(site: str, number: int = 1, *, grid: dict = FINE, **changes: object) -> Patient:
    population = parse_site(site, SITES[site] | changes).population
    return simulate_patient(f"patient-{number:03d}", population, seed=0, **grid)


def tiny_cohort(folder: Path, *, seed: int = 0, order: int = 1, **changes: object) -> Cohort:
    sites = {name: {**site, "patients": 2, **changes} for name, site in SITES.items()}
    return simulated_cohort(folder, seed=seed, sites=dict(list(sites.items())[::order]), **TINY)


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def read(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj).transpose(2, 1, 0)


def test_a_lesion_that_had_to_shrink_still_finds_its_place():
    # Rounding once left it no voxel at all: radius + thickness was a last bit above the room.
    population = parse_site("gamma", SITES["gamma"]).population
    grid = {"shape": (32, 64, 80), "spacing_mm": (6.0, 5.0, 5.0)}
    assert simulate_patient("gamma-012", population, seed=9, **grid).instances.max() >= 1


# --- bytes and files


def test_the_same_seed_gives_the_same_bytes_whatever_the_order_and_the_place(tmp_path):
    tiny_cohort(tmp_path / "a")
    tiny_cohort(tmp_path / "b", order=-1)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert len(hashes(tmp_path / "a")) == 2 + 5 * 8  # parameters, manifest, five files a case


def test_a_case_does_not_depend_on_the_other_cases(tmp_path):
    tiny_cohort(tmp_path / "all")
    simulated_cohort(
        tmp_path / "one", seed=0, sites={"gamma": {**SITES["gamma"], "patients": 1}}, **TINY
    )
    by_name = [
        {Path(name).parent.name + Path(name).name: value for name, value in hashes(folder).items()}
        for folder in (tmp_path / "all", tmp_path / "one")
    ]
    cases = [name for name in by_name[1] if name.endswith(".nii.gz")]
    assert len(cases) == 5
    assert all(by_name[0][name] == by_name[1][name] for name in cases)


def test_another_seed_gives_other_bytes_in_every_image_and_truth(tmp_path):
    for seed in (0, 1):
        tiny_cohort(tmp_path / str(seed), seed=seed)
    first, second = (
        {Path(n).parent.name + Path(n).name: v for n, v in hashes(tmp_path / str(seed)).items()}
        for seed in (0, 1)
    )
    names = [name for name in first if name.startswith(("images", "truth"))]
    assert len(names) == 16
    assert not any(first[name] == second[name] for name in names)
    kidneys = [
        simulate_patient("one", parse_site("alpha", SITES["alpha"]).population, seed=seed, **TINY)
        for seed in (0, 1)
    ]
    assert not np.array_equal(*(patient.truth == KIDNEY for patient in kidneys))


def test_a_finished_cohort_is_read_and_not_generated_again(tmp_path):
    cohort = tiny_cohort(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert tiny_cohort(tmp_path) == cohort
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")} == before


def test_other_options_get_their_own_folder(tmp_path):
    first, second = tiny_cohort(tmp_path), tiny_cohort(tmp_path, noise=0.03)
    assert first.cases[0].images != second.cases[0].images
    assert all(case.images[0].is_file() for case in first.cases + second.cases)


def test_a_killed_generation_is_made_whole(tmp_path):
    cohort = tiny_cohort(tmp_path)
    whole = hashes(tmp_path)
    next(tmp_path.rglob("manifest.csv")).unlink()
    cohort.cases[3].images[0].write_bytes(b"half a file")
    cohort.cases[4].images[0].unlink()
    assert tiny_cohort(tmp_path) == cohort
    assert hashes(tmp_path) == whole


def test_the_manifest_says_how_each_case_was_made(tmp_path):
    cohort = tiny_cohort(tmp_path)
    root = cohort.cases[0].images[0].parents[1]
    header = (root / "manifest.csv").read_text().splitlines()[0].split(",")
    tags = {"tr_ms", "te_ms", "field_strength_t", "vendor", "guideline", "truth", "instances"}
    columns = {"id", "patient", "site", "image", "label", "maps", "structures"}
    assert set(header) == columns | tags
    assert cohort.name == "phantom"
    assert cohort.structures == ("liver", "kidney", "lesion")
    assert cohort.sites == ("alpha", "beta", "delta", "gamma")
    case = next(case for case in cohort.cases if case.site == "beta")
    assert (case.id, case.patient, case.annotation.values) == ("beta-001", "beta-001", (1, 2, 3))
    assert float(case.tags["tr_ms"]) == SITES["beta"]["tr_ms"]
    assert float(case.tags["te_ms"]) == SITES["beta"]["te_ms"]
    assert case.tags["field_strength_t"] == "3"
    assert (case.tags["vendor"], case.tags["guideline"]) == ("southmr", "reference")
    assert (root / case.tags["truth"]).is_file()
    assert (root / case.tags["instances"]).is_file()


def test_files_are_ras_with_the_spacing_in_the_affine(tmp_path):
    case = tiny_cohort(tmp_path).cases[0]
    image = nib.load(case.images[0])
    assert image.shape == (28, 24, 12)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert np.allclose(image.header.get_zooms(), (14.5, 13.5, 16.0))
    assert np.array_equal(nib.load(case.annotation.label).affine, image.affine)


def test_the_files_hold_what_the_functions_compute(tmp_path):
    cohort = tiny_cohort(tmp_path)
    case = next(case for case in cohort.cases if case.id == "delta-002")
    site = parse_site("delta", SITES["delta"])
    patient = simulate_patient("delta-002", site.population, seed=0, **TINY)
    root = case.images[0].parents[1]
    expected = image_patient(patient, site.scanner, seed=0, spacing_mm=TINY["spacing_mm"])
    assert np.array_equal(read(case.images[0]), expected)
    assert np.array_equal(read(case.annotation.label), annotate(patient, GUIDELINES["generous"]))
    assert np.array_equal(read(root / case.tags["truth"]), patient.truth)
    assert np.array_equal(read(root / case.tags["instances"]), patient.instances)


# --- physics


def test_the_spin_echo_signal_is_the_textbook_one():
    density, t1, t2 = np.array([1.0, 0.8]), np.array([1000.0, 500.0]), np.array([100.0, 50.0])
    signal = spin_echo(density, t1, t2, tr_ms=1000.0, te_ms=50.0)
    # (1 - e^-1) e^-0.5 = 0.63212 * 0.60653 and 0.8 (1 - e^-2) e^-1 = 0.8 * 0.86466 * 0.36788
    assert signal == pytest.approx([0.383400, 0.254474], abs=1e-6)


def test_t1_is_the_measured_one_at_both_field_strengths_and_grows_with_the_field():
    liver = TISSUES["liver"]
    assert liver.t1_ms(1.5) == pytest.approx(586.0)
    assert liver.t1_ms(3.0) == pytest.approx(809.0)
    assert liver.t1_ms(0.5) < 586.0 < liver.t1_ms(2.0) < 809.0


def test_the_background_has_the_mean_and_the_spread_of_rician_noise_without_signal():
    noise = add_rician_noise(np.zeros((40, 50, 60)), 0.02, np.random.default_rng(0))
    assert noise.mean() == pytest.approx(0.02 * math.sqrt(math.pi / 2), rel=0.01)
    assert noise.std() == pytest.approx(0.02 * math.sqrt(2 - math.pi / 2), rel=0.01)


def test_rician_noise_becomes_gaussian_where_the_signal_is_strong():
    noisy = add_rician_noise(np.ones((40, 50, 60)), 0.02, np.random.default_rng(0))
    assert noisy.mean() == pytest.approx(1 + 0.02**2 / 2, abs=2e-4)
    assert noisy.std() == pytest.approx(0.02, rel=0.01)


def test_the_image_is_noise_in_the_air_and_has_an_arbitrary_scale():
    scanner = parse_site("alpha", SITES["alpha"] | {"scale": [1000, 1000], "noise": 0.05}).scanner
    patient = patient_of("alpha")
    image = image_patient(patient, scanner, seed=0, spacing_mm=FINE["spacing_mm"])
    corner = image[:, :6, :6]
    assert corner.mean() == pytest.approx(1000 * 0.05 * math.sqrt(math.pi / 2), rel=0.03)
    quiet = parse_site("alpha", SITES["alpha"] | {"noise": 0, "bias": 0}).scanner
    brightest = [
        image_patient(patient, quiet, seed=seed, spacing_mm=FINE["spacing_mm"]).max()
        for seed in range(6)
    ]
    assert max(brightest) > 1.3 * min(brightest)


def test_a_thicker_slice_and_a_wider_point_spread_blur_only_their_own_axes():
    quiet = SITES["alpha"] | {"noise": 0, "bias": 0, "blur_mm": 0, "slice_mm": 0}
    patient = patient_of("alpha", texture=0)

    def roughness(**changes: float) -> tuple[float, float]:
        scanner = parse_site("alpha", quiet | {"scale": [1000, 1000]} | changes).scanner
        image = image_patient(patient, scanner, seed=0, spacing_mm=FINE["spacing_mm"]).astype(float)
        return np.abs(np.diff(image, axis=0)).mean(), np.abs(np.diff(image, axis=2)).mean()

    sharp, wide, thick = roughness(), roughness(blur_mm=15.0), roughness(slice_mm=18.0)
    assert wide[1] < 0.8 * sharp[1]
    assert thick[0] < 0.8 * sharp[0]
    assert wide[1] / sharp[1] < wide[0] / sharp[0]
    assert thick[0] / sharp[0] < thick[1] / sharp[1]


def test_tissues_differ_between_patients_by_the_spread_and_not_without_it():
    varied = [patient_of("alpha", n, grid=TINY).properties[11].t1_ms_at_1_5_t for n in range(1, 31)]
    assert 0.03 < np.std(np.log(varied)) < 0.07
    same = patient_of("alpha", grid=TINY, tissue_spread=0).properties
    assert same == tuple(TISSUES.values())
    assert isinstance(same[0], Tissue)


# --- anatomy


@pytest.mark.parametrize("site", ["alpha", "gamma"])
def test_volumes_are_those_of_an_abdomen(site):
    patients = [patient_of(site, n) for n in range(1, 9)]
    voxel_ml = math.prod(FINE["spacing_mm"]) / 1000
    liver = [((p.truth == LIVER) | (p.truth == LESION)).sum() * voxel_ml for p in patients]
    kidneys = [(p.truth == KIDNEY).sum() * voxel_ml for p in patients]
    assert 900 < np.mean(liver) < 1900
    assert 200 < np.mean(kidneys) < 400
    middle = FINE["shape"][2] / 2
    x = np.nonzero(patients[0].truth == LIVER)[2]
    assert x.mean() > middle + 5  # the liver is on the patient's right, where RAS x is larger
    assert ndimage.label(patients[0].truth == KIDNEY)[1] == 2


@pytest.mark.parametrize("number", range(1, 7))
def test_every_lesion_is_one_piece_in_the_liver_with_an_id_of_its_own(number):
    patient = patient_of("gamma", number)
    ids = np.unique(patient.instances)
    assert np.array_equal(ids, np.arange(len(ids)))
    assert len(ids) > 2
    assert all(ndimage.label(patient.instances == one)[1] == 1 for one in ids[1:])
    assert np.array_equal(patient.instances > 0, patient.truth == LESION)
    assert (patient.truth[patient.rim] == LIVER).all()
    # In the liver: the same body without lesions has liver wherever this one has a lesion.
    healthy = patient_of("gamma", number, lesion_count=[0, 0])
    assert (healthy.truth[patient.truth == LESION] == LIVER).all()
    assert np.array_equal(healthy.truth == KIDNEY, patient.truth == KIDNEY)
    assert not healthy.instances.any()


@pytest.mark.parametrize("number", range(1, 4))
def test_lesions_have_the_size_that_the_site_asks_for(number):
    patient = patient_of("alpha", number, lesion_count=[3, 3], lesion_radius_mm=[15, 15])
    volumes_mm3 = np.bincount(patient.instances.ravel())[1:] * math.prod(FINE["spacing_mm"])
    assert len(volumes_mm3) == 3
    assert volumes_mm3 / (4 / 3 * math.pi * 15**3) == pytest.approx(1.0, abs=0.45)


def test_the_number_of_lesions_spans_its_range():
    counts = {int(patient_of("alpha", n, grid=TINY).instances.max()) for n in range(1, 31)}
    low, high = SITES["alpha"]["lesion_count"]
    assert counts == set(range(low, high + 1))


def test_the_maps_are_those_of_the_tissue_and_change_no_image(tmp_path):
    (case,) = (c for c in tiny_cohort(tmp_path).cases if c.id == "beta-002")
    site = parse_site("beta", SITES["beta"])
    patient = simulate_patient("beta-002", site.population, seed=0, **TINY)
    image = image_patient(patient, site.scanner, seed=0, spacing_mm=TINY["spacing_mm"])
    assert np.array_equal(read(case.images[0]), image)
    maps = nib.load(case.maps).get_fdata(dtype=np.float32).T
    assert maps.shape == (3, *TINY["shape"])
    for place in np.argwhere(patient.truth == LIVER)[::100]:
        one = patient.properties[patient.tissue[tuple(place)]]
        density = one.proton_density * patient.texture[tuple(place)]
        wanted = (density, one.t1_ms(3.0), one.t2_ms)
        assert maps[:, *place] == pytest.approx(wanted, abs=6e-4)


# --- the three shifts


def test_every_site_but_alpha_differs_from_it_in_one_kind_of_option():
    sites = {name: parse_site(name, options) for name, options in SITES.items()}
    alpha = sites.pop("alpha")
    differing = {
        name: {
            field.name
            for field in dataclasses.fields(site)
            if field.name != "patients" and getattr(site, field.name) != getattr(alpha, field.name)
        }
        for name, site in sites.items()
    }
    assert differing == {"beta": {"scanner"}, "gamma": {"population"}, "delta": {"guideline"}}


def test_beta_changes_the_image_and_its_contrast_but_not_the_patient():
    patient, at_beta = patient_of("alpha", 2), patient_of("beta", 2)
    assert np.array_equal(patient.truth, at_beta.truth)
    assert np.array_equal(patient.instances, at_beta.instances)

    def image(site: str) -> np.ndarray:
        scanner = parse_site(site, SITES[site]).scanner
        return image_patient(patient, scanner, seed=0, spacing_mm=FINE["spacing_mm"])

    liver, kidney = patient.truth == LIVER, patient.truth == KIDNEY
    first, second = image("alpha"), image("beta")
    assert first[kidney].mean() < first[liver].mean()  # T1-weighted: liver is brighter
    assert second[kidney].mean() > 1.2 * second[liver].mean()  # T2-weighted: kidney is


def test_gamma_has_more_and_larger_lesions_in_the_same_bodies():
    pairs = [(patient_of("alpha", n), patient_of("gamma", n)) for n in range(1, 7)]
    volumes = np.array([[(p.truth == LESION).sum() for p in pair] for pair in pairs])
    counts = np.array([[p.instances.max() for p in pair] for pair in pairs])
    assert volumes[:, 1].sum() > 3 * volumes[:, 0].sum()
    assert counts[:, 1].sum() > counts[:, 0].sum()
    assert all(np.array_equal(a.truth == KIDNEY, g.truth == KIDNEY) for a, g in pairs)


def test_the_reference_annotation_is_the_truth():
    patient = patient_of("alpha")
    assert np.array_equal(annotate(patient, GUIDELINES["reference"]), patient.truth)


@pytest.mark.parametrize("number", range(1, 5))
def test_delta_draws_one_voxel_outside_and_counts_the_rim(number):
    patient = patient_of("delta", number, lesion_count=[2, 4])
    truth, drawn = patient.truth, annotate(patient, GUIDELINES["generous"])
    cross = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]])
    lesion = ndimage.binary_dilation((truth == LESION) | patient.rim, cross)
    assert np.array_equal(drawn == LESION, lesion & (truth != KIDNEY))
    assert patient.rim.sum() > 0
    kidney = ndimage.binary_dilation(truth == KIDNEY, cross)
    assert (drawn[truth == KIDNEY] == KIDNEY).all()
    assert np.array_equal(
        drawn == KIDNEY, kidney & ~np.isin(truth, [LIVER, LESION]) & ~(drawn == LESION)
    )
    liver = ndimage.binary_dilation(truth == LIVER, cross)
    assert (drawn[liver] > 0).all()
    assert (drawn[truth > 0] > 0).all()
    for value in (KIDNEY, LESION):
        assert (drawn == value).sum() > (truth == value).sum()
    assert (drawn > 0).sum() > (truth > 0).sum()
    assert set(np.unique(drawn)) <= {0, 1, 2, 3}


def test_margin_and_rim_are_separate_rules():
    patient = patient_of("delta", lesion_count=[2, 4])
    rim_only = annotate(patient, Guideline(margin_voxels=0, rim_is_lesion=True))
    assert np.array_equal(rim_only == LESION, (patient.truth == LESION) | patient.rim)
    assert np.array_equal(rim_only > 0, patient.truth > 0)


def test_labels_hold_only_the_structures(tmp_path):
    for case in tiny_cohort(tmp_path).cases:
        truth = read(case.images[0].parents[1] / case.tags["truth"])
        assert set(np.unique(read(case.annotation.label))) <= {0, 1, 2, 3}
        assert {1, 2} <= set(np.unique(truth)) <= {0, 1, 2, 3}
        assert (case.site == "delta") != np.array_equal(read(case.annotation.label), truth)


# --- what users give


def test_the_whole_configuration_works_as_hydra_gives_it(tmp_path):
    config = OmegaConf.load(CONFIG)
    assert config.held_out == ["beta", "gamma", "delta"]
    for name, options in config.cohort.sites.items():
        assert parse_site(name, options) == parse_site(name, SITES[name])
    config.cohort.shape, config.cohort.spacing_mm = TINY["shape"], TINY["spacing_mm"]
    for options in config.cohort.sites.values():
        options.patients = 1
    cohort = instantiate(config.cohort, folder=tmp_path)
    assert len(cohort.cases) == 4


def test_an_unknown_key_is_named_with_the_valid_ones():
    with pytest.raises(InputError, match=r"'beta'.*\['flip_angle'\].*te_ms.*tr_ms"):
        parse_site("beta", SITES["beta"] | {"flip_angle": 70})


def test_a_missing_key_is_named():
    with pytest.raises(InputError, match=r"'beta' lacks.*tr_ms"):
        parse_site("beta", {key: value for key, value in SITES["beta"].items() if key != "tr_ms"})


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("guideline", "strict", r"'strict'.*\['generous', 'reference'\]"),
        ("vendor", 3, "a text"),
        ("tr_ms", "fast", "a number above 0"),
        ("tr_ms", 0, "a number above 0"),
        ("noise", -0.1, "a number from 0 up"),
        ("noise", float("nan"), "a number from 0 up"),
        ("patients", 2.5, "a whole number above 0"),
        ("patients", True, "a whole number above 0"),
        ("lesion_count", [3, 1], "two ascending numbers"),
        ("lesion_count", 3, "two ascending numbers"),
        ("lesion_count", [0.5, 1], "two ascending numbers"),
        ("lesion_radius_mm", [0, 5], "two ascending numbers above 0"),
        ("scale", [100, 200, 300], "two ascending numbers"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_valid(key, value, says):
    with pytest.raises(InputError, match=f"'beta': {key} is .*{says}"):
        parse_site("beta", SITES["beta"] | {key: value})


def test_a_site_that_is_no_mapping_or_has_an_odd_name_is_refused():
    with pytest.raises(InputError, match="should be a mapping"):
        parse_site("beta", None)
    with pytest.raises(InputError, match="letters, digits"):
        parse_site("../beta", SITES["beta"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": (12, 24)}, "three whole numbers"),
        ({"shape": (12, 24, 27.5)}, "three whole numbers"),
        ({"spacing_mm": (16.0, 0.0, 14.5)}, "three numbers"),
        ({"spacing_mm": (5.0, 5.0, 5.0)}, "an abdomen needs at least"),
        ({"sites": {}}, "at least one site"),
    ],
)
def test_a_wrong_grid_or_no_site_is_refused(tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        simulated_cohort(tmp_path, **{"seed": 0, "sites": SITES, **TINY, **changes})
    assert not any(tmp_path.iterdir())
