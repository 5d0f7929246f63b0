"""Reconstruction software: windows against published values, images against NumPy's transform."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, composed
from omegaconf import OmegaConf

from segshift import build
from segshift.cohort.anatomy import simulate_patient
from segshift.cohort.phantom import image_patient, parse_site
from segshift.errors import InputError
from segshift.mr_signal import add_rician_noise, k_space_window, reconstructed

HAMMING = 0.92  # 0.54 + 0.46 cos = 1 - 0.92 sin^2
SITES = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/data/phantom.yaml").cohort.sites)
SOFTWARE = {"acquired": 0.7, "filter_strength": HAMMING}
GRID = {"shape": (16, 48, 60), "spacing_mm": (12.0, 6.5, 6.5)}


class TestWindow:
    @pytest.mark.parametrize(
        ("strength", "window"), [(1.0, np.hanning), (HAMMING, np.hamming), (0.0, np.ones)]
    )
    def test_it_is_numpys(self, strength, window):
        """Over the acquired half of 64 samples: 33 from edge to edge."""
        found = np.fft.fftshift(k_space_window((64, 64), acquired=0.5, filter_strength=strength))
        wanted = np.zeros(64)
        wanted[16:49] = window(33)
        np.testing.assert_allclose(found, np.outer(wanted, wanted), atol=1e-12)

    def test_without_filter_and_whole_it_is_one(self):
        for shape in ((1, 1), (7, 8), (64, 80)):
            window = k_space_window(shape, acquired=1, filter_strength=0)
            np.testing.assert_array_equal(window, np.ones(shape))

    def test_the_middle_is_kept(self):
        for acquired, strength in ((0.1, 1), (0.5, 0.3), (1, 1)):
            window = k_space_window((9, 12), acquired=acquired, filter_strength=strength)
            assert window[0, 0] == window.max() == 1
            assert window.min() >= 0


def half_width(profile: np.ndarray, oversampling: int) -> float:
    """Full width at half maximum, in pixels."""
    above = np.flatnonzero(profile >= profile.max() / 2)
    low, high = above[0], above[-1]
    left = low - (profile[low] - profile.max() / 2) / (profile[low] - profile[low - 1])
    right = high + (profile[high] - profile.max() / 2) / (profile[high] - profile[high + 1])
    return (right - left) / oversampling


class TestPoint:
    """A point's spread, whose width is known for each window (Harris 1978; sinc: 1.207)."""

    @pytest.mark.parametrize(("strength", "bins"), [(0, 1.207), (1, 2.0), (HAMMING, 1.816)])
    @pytest.mark.parametrize("acquired", [0.5, 0.25])
    def test_width_at_half_its_height(self, strength, bins, acquired):
        """In pixels of the acquired matrix, which zero filling makes smaller, not sharper."""
        point = np.zeros((1024, 1024))
        point[512, 512] = 1
        spread = reconstructed(point, acquired=acquired, filter_strength=strength)
        fine = np.abs(np.fft.ifft(np.pad(np.fft.fftshift(np.fft.fft(spread[512])), 512 * 7)))
        width = half_width(fine, 8)
        assert width * acquired == pytest.approx(bins, rel=0.01)

    def test_its_energy_is_what_the_window_lets_through(self):
        """Parseval: the mean of the squared weights; its sum stays 1."""
        point = np.zeros((3, 32, 48))
        point[:, 10, 20] = 1
        for acquired, strength in ((1, 1), (0.6, 0), (0.6, 0.5)):
            spread = reconstructed(point, acquired=acquired, filter_strength=strength)
            window = k_space_window((32, 48), acquired=acquired, filter_strength=strength)
            np.testing.assert_allclose(spread.sum(axis=(1, 2)), 1, rtol=1e-12)
            np.testing.assert_allclose((spread**2).sum(axis=(1, 2)), (window**2).mean(), rtol=1e-12)

    def test_slices_are_apart(self):
        point = np.zeros((5, 16, 16))
        point[2, 8, 8] = 1
        spread = reconstructed(point, **SOFTWARE)
        assert np.abs(spread[[0, 1, 3, 4]]).max() == 0

    @pytest.mark.parametrize("shape", [(2, 16, 20), (1, 15, 21), (2, 1, 9), (1, 1, 1)])
    def test_it_is_numpys_transform(self, shape):
        image = np.random.default_rng(0).normal(size=shape)
        y, x = (np.abs(np.fft.fftfreq(n)) / 0.35 for n in shape[1:])
        along = [np.where(u < 1.001, 1 - HAMMING * np.sin(np.pi / 2 * u) ** 2, 0) for u in (y, x)]
        wanted = np.fft.ifft2(np.fft.fft2(image) * np.outer(*along))
        np.testing.assert_allclose(reconstructed(image, **SOFTWARE), wanted, atol=1e-12)


class TestSite:
    def patient(self):
        site = parse_site("alpha", SITES["alpha"] | {"patients": 1})
        return simulate_patient("p", site.population, seed=0, **GRID), site.scanner

    def image(self, patient, scanner):
        return image_patient(patient, scanner, seed=0, spacing_mm=GRID["spacing_mm"])

    def test_the_default_changes_no_bit(self):
        patient, scanner = self.patient()
        assert not scanner.reconstructs
        explicit = replace(scanner, acquired=1.0, filter_strength=0.0)
        np.testing.assert_array_equal(self.image(patient, scanner), self.image(patient, explicit))
        # A window of ones, by the transform that is otherwise not taken: the same but for rounding.
        nearly = replace(scanner, filter_strength=1e-12)
        assert nearly.reconstructs
        difference = self.image(patient, nearly).astype(int) - self.image(patient, scanner)
        assert np.abs(difference).max() <= 1

    def test_without_noise_it_is_what_its_software_makes_of_the_signal(self):
        patient, scanner = self.patient()
        silent = replace(scanner, noise=0.0)
        plain = self.image(patient, silent).astype(np.float64)
        y, x = (np.abs(np.fft.fftfreq(n)) / 0.35 for n in GRID["shape"][1:])
        along = [np.where(u < 1.001, 1 - HAMMING * np.sin(np.pi / 2 * u) ** 2, 0) for u in (y, x)]
        wanted = np.abs(np.fft.ifft2(np.fft.fft2(plain) * np.outer(*along)))
        found = self.image(patient, replace(silent, **SOFTWARE))
        np.testing.assert_allclose(found, wanted, atol=2)  # grey levels are rounded once, not twice

    def test_noise_is_filtered_before_the_magnitude(self):
        """Of no signal: Rayleigh noise of the filtered deviation, whose mean is s sqrt(pi / 2)."""
        rng = np.random.default_rng(0)
        channels = rng.normal(size=(2, 40, 64, 64))
        window = k_space_window((64, 64), **SOFTWARE)
        sigma = np.sqrt((window**2).mean())
        magnitude = np.hypot(*reconstructed(channels, **SOFTWARE))
        assert magnitude.mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.02)
        patient, scanner = self.patient()
        air = replace(patient, tissue=np.zeros_like(patient.tissue))
        window = k_space_window(GRID["shape"][1:], **SOFTWARE)
        plain, other = (
            self.image(air, one).mean() for one in (scanner, replace(scanner, **SOFTWARE))
        )
        assert other / plain == pytest.approx(np.sqrt((window**2).mean()), rel=0.03)

    def test_the_same_noise_reaches_both_scanners(self):
        """Channels are drawn in the same order, with or without the software."""
        first = add_rician_noise(np.ones((3, 4, 5)), 0.1, np.random.default_rng(1))
        rng = np.random.default_rng(1)
        real = 1 + 0.1 * rng.standard_normal((3, 4, 5))
        imaginary = 0.1 * rng.standard_normal((3, 4, 5))
        np.testing.assert_array_equal(first, np.hypot(real, imaginary))

    @pytest.mark.parametrize(
        ("option", "value", "told"),
        [("acquired", 0, "above 0"), ("acquired", 1.5, "1 at most"), ("acquired", "all", "number"),
         ("filter_strength", -0.1, "from 0 up"), ("filter_strength", 2, "1 at most")],
    )  # fmt: skip
    def test_parts_are_from_0_to_1(self, option, value, told):
        with pytest.raises(InputError, match=rf"site 'a': {option} is .*{told}"):
            parse_site("a", SITES["alpha"] | {option: value})


def test_the_fifth_hospital_differs_from_alpha_in_the_software_alone():
    config = composed("data=phantom_reconstruction").data
    sites = OmegaConf.to_container(config.cohort.sites)
    assert {name: sites[name] for name in SITES} == SITES  # the other four are as they were
    fifth = parse_site("epsilon", sites["epsilon"])
    alpha = parse_site("alpha", sites["alpha"])
    assert fifth.scanner.reconstructs
    plain = replace(fifth.scanner, acquired=1.0, filter_strength=0.0)
    assert (plain, fifth.population, fifth.guideline) == (
        alpha.scanner, alpha.population, alpha.guideline
    )  # fmt: skip
    assert "epsilon" in config.held_out


def test_it_is_simulated_beside_the_others(tmp_path):
    options = composed("data=phantom_reconstruction").data.cohort
    sites = {name: {**options.sites[name], "patients": 1} for name in ("alpha", "epsilon")}
    grid = {"shape": [12, 24, 28], "spacing_mm": [16.0, 13.5, 14.5]}
    made = OmegaConf.merge(options, {"folder": str(tmp_path)}, grid)
    made.sites = sites
    cohort = build.instantiate(made)
    assert cohort.sites == ("alpha", "epsilon")
