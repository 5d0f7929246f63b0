"""Shifts against analytic values, MONAI's formulas and the phantom's own physics."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from scipy import ndimage
from scipy.signal import resample
from skimage.color import hed2rgb, rgb2hed

from segshift import shifts
from segshift.cohort.phantom import image_patient, parse_site, simulate_patient
from segshift.cohort.physics import tissue_maps
from segshift.errors import InputError
from segshift.seeds import generator
from segshift.shifts import Acquisition, Graded, Identity, Turning

EVERY = [
    part
    for part in (getattr(shifts, name) for name in shifts.__all__)
    if isinstance(part, type) and issubclass(part, Graded) and part is not Graded
]
HOME = Acquisition((3.0, 2.0, 2.0))
SMOOTHING = ("SliceThickness", "Resolution", "Blur", "SmoothKernel", "SharpKernel")
SIGNED = ("dose_noise", "hounsfield_offset", "sharp_kernel", "smooth_kernel")


def body(shape=(12, 40, 48), channels=1, seed=0) -> np.ndarray:
    """A smooth MR-like body with organs in dark air, (C, D, H, W)."""
    random = np.random.default_rng(seed)
    z, y, x = (np.linspace(-1, 1, size) for size in shape)
    inside = (y[:, None] ** 2 + x**2 < 0.7) & (z[:, None, None] > -2)
    texture = ndimage.gaussian_filter(random.normal(size=(channels, *shape)), (0, 1, 2, 2))
    organ = (y[:, None] - 0.2) ** 2 + (x + 0.2) ** 2 < 0.1
    image = 400.0 * inside + 300.0 * organ + 400 * texture * inside + 20
    return np.maximum(image, 0).astype(np.float32)


def rgb(shape=(1, 32, 40)) -> np.ndarray:
    """Purple nuclei on pink beside white glass, 0 to 255."""
    random = np.random.default_rng(1)
    nuclei = ndimage.gaussian_filter(random.normal(size=shape), (0, 2, 2))[None] > 0.05
    colours = np.array([[230.0, 170, 200], [110.0, 70, 160]], dtype=np.float32)
    image = np.where(nuclei, *(c[:, None, None, None] for c in colours[::-1])).astype(np.float32)
    image[..., :3] = 255
    return image


def sample_of(part: type) -> np.ndarray:
    if part.name in ("stain", "blur", "illumination"):
        return rgb()
    return body() - 500 if part.name in SIGNED else body()


def applied(part: type, severity: int, image=None, *, case="a", acquisition=HOME) -> np.ndarray:
    image = sample_of(part) if image is None else image
    random = generator(0, "shift", part.name, case)
    return part(severity)(image, acquisition=acquisition, random=random)


def by_name(part: type) -> str:
    return part.name


@pytest.mark.parametrize("part", EVERY, ids=by_name)
class TestEvery:
    def test_severity_0_changes_no_bit(self, part):
        image = sample_of(part)
        before = image.tobytes()
        assert applied(part, 0, image) is image
        assert image.tobytes() == before

    def test_it_is_a_pure_function_of_case_and_severity(self, part):
        image = sample_of(part)
        before = image.copy()
        results = [applied(part, severity, image) for severity in (1, 3, 5)]
        np.testing.assert_array_equal(image, before)
        for severity, first in zip((1, 3, 5), results, strict=True):
            assert first.dtype == np.float32
            assert first.shape == image.shape
            assert np.isfinite(first).all()
            np.testing.assert_array_equal(applied(part, severity, image), first)

    def test_a_higher_severity_changes_more(self, part):
        """Root mean square change against the image, for several cases."""
        image = sample_of(part)
        for case in ("a", "b", "c", "d"):
            harm = [
                float(np.sqrt(np.mean((applied(part, s, image, case=case) - image) ** 2)))
                for s in range(6)
            ]
            assert np.all(np.diff(harm) > 0), harm

    @pytest.mark.parametrize("shape", [(1, 16, 20), (1, 1, 1), (3, 1, 9)])
    @pytest.mark.parametrize("channels", [1, 2, 3])
    def test_every_shape_works(self, part, shape, channels):
        image = np.random.default_rng(0).uniform(0, 200, (channels, *shape)).astype(np.float32)
        for severity in (1, 5):
            changed = applied(part, severity, image)
            assert changed.shape == image.shape
            assert np.isfinite(changed).all()

    def test_a_constant_image_stays_finite(self, part):
        for value in (0, 7):
            image = np.full((1, 2, 8, 8), value, np.float32)
            assert np.isfinite(applied(part, 5, image)).all()

    @pytest.mark.parametrize("severity", [-1, 6, 2.0, True, "3", None])
    def test_a_wrong_severity_is_refused(self, part, severity):
        with pytest.raises(InputError, match=f"{part.name}: severity {severity!r}; .* 0 .* to 5"):
            part(severity)

    def test_it_says_what_its_five_numbers_are(self, part):
        assert len(part.numbers) == 5
        assert part.unit
        assert list(part.numbers) in (sorted(part.numbers), sorted(part.numbers, reverse=True))


class TestNoise:
    def test_its_moments_are_rices(self):
        """Mean of squares A^2 + 2 s^2; without signal the mean is s sqrt(pi / 2)."""
        image = np.zeros((1, 40, 100, 100), np.float32)
        image[:, 20:] = 1000
        noisy = applied(shifts.RicianNoise, 5, image)
        sigma = shifts.RicianNoise.numbers[4] * 1000
        assert noisy[:, :20].mean() == pytest.approx(sigma * np.sqrt(np.pi / 2), rel=0.01)
        assert np.mean(noisy[:, :20] ** 2) == pytest.approx(2 * sigma**2, rel=0.01)
        assert np.mean(noisy[:, 20:] ** 2) == pytest.approx(1000**2 + 2 * sigma**2, rel=0.01)
        assert noisy.min() >= 0

    def test_a_quarter_of_the_dose_has_twice_the_noise(self):
        added = [np.std(applied(shifts.DoseNoise, s, np.zeros((1, 8, 128, 128), np.float32)))
                 for s in range(1, 6)]  # fmt: skip
        whole = [np.hypot(10, one) for one in added]
        wanted = [10 / np.sqrt(dose) for dose in shifts.DoseNoise.numbers]
        np.testing.assert_allclose(whole, wanted, rtol=0.03)

    def test_its_spectrum_rises_and_falls(self):
        noise = applied(shifts.DoseNoise, 5, np.zeros((1, 16, 64, 64), np.float32))
        power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=(0, 1))
        radius = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64))
        low, middle, high = (
            power[(radius > a) & (radius < b)].mean()
            for a, b in ((0, 0.05), (0.15, 0.25), (0.5, 0.7))
        )
        assert middle > 2 * low
        assert middle > 1.5 * high


class TestFields:
    @pytest.mark.parametrize("severity", range(1, 6))
    def test_the_largest_factor_over_the_smallest(self, severity):
        ones = np.ones((2, 6, 30, 20), np.float32)
        field = applied(shifts.BiasField, severity, ones)
        assert field.max() / field.min() == pytest.approx(shifts.BiasField.numbers[severity - 1])
        np.testing.assert_array_equal(field[0], field[1])
        darker = applied(shifts.Illumination, severity, ones)
        assert darker.min() == pytest.approx(
            1 - shifts.Illumination.numbers[severity - 1], abs=1e-6
        )
        assert darker.max() == 1
        np.testing.assert_array_equal(darker[:, 0], darker[:, 5])

    def test_the_field_is_monais(self):
        """The same Legendre polynomials of its RandBiasField, from the same coefficients."""
        from monai.transforms import RandBiasField

        from segshift.shifts.fields import smooth_field

        shape, coefficients = (5, 8, 7), generator(0, "x").uniform(-1, 1, (4, 4, 4))
        low = [coefficients[place] for place in np.ndindex(4, 4, 4) if sum(place) <= 3]
        theirs = RandBiasField(degree=3)._generate_random_field(shape, 3, low)
        theirs = (theirs - theirs.min()) / (theirs.max() - theirs.min())
        np.testing.assert_allclose(smooth_field(shape, 3, generator(0, "x")), theirs, atol=1e-5)


class TestKSpace:
    def test_ghosts_are_moved_copies(self):
        image = body((2, 60, 32))
        for severity in range(1, 6):
            random = generator(0, "shift", "ghosting", "a")
            ghosts = int(random.integers(3, 6, endpoint=True))
            strength = shifts.Ghosting.numbers[severity - 1]
            copies = [np.roll(image, way * 60 // ghosts, axis=2) for way in (-1, 1)]
            wanted = image + strength * sum(copies)
            np.testing.assert_allclose(
                applied(shifts.Ghosting, severity, image), wanted, atol=1e-3 * wanted.max()
            )

    def test_an_edge_rings_by_9_percent(self, monkeypatch):
        """Gibbs' constant: 8.95 % of the step; the less is kept, the finer are pixels beside it."""
        image = np.zeros((1, 1, 256, 256), np.float32)
        image[:, :, 64:192] = 100
        image += 50
        for severity in (3, 4, 5):
            changed = applied(shifts.Gibbs, severity, image)
            assert changed.max() - 150 == pytest.approx(8.95, abs=2.2)
        assert 50 - changed.min() == pytest.approx(8.95, abs=1)
        mildly = applied(shifts.Gibbs, 1, image)  # most of its ringing is between pixels
        assert 0 < mildly.max() - 150 < 8.95
        monkeypatch.setattr(shifts.Gibbs, "numbers", (0.1,) * 5)
        changed = resample(applied(shifts.Gibbs, 1, image)[0, 0, :, 0], 4096)
        assert changed.max() - 150 == pytest.approx(8.95, abs=0.2)

    def test_what_is_kept_of_k_space_is_untouched(self):
        image, edge = body(), shifts.Gibbs.numbers[2] / 2
        before, after = (np.fft.fft2(i) for i in (image, applied(shifts.Gibbs, 3, image - 900)))
        y, x = (np.abs(np.fft.fftfreq(n)) for n in image.shape[2:])
        kept = (y[:, None] <= edge) & (x <= edge)
        kept[0, 0] = False  # the offset
        np.testing.assert_allclose(after[..., kept], before[..., kept], rtol=1e-3, atol=1)
        assert np.abs(after[..., (y[:, None] > edge) & (x > edge)]).max() < 1

    def test_other_software_is_a_window_over_the_middle_of_k_space(self):
        """By NumPy: 1 - s sin^2(pi u / 2) along y and along x, 0 beyond 1 - s / 4."""
        image = body((2, 40, 48))
        for severity, s in enumerate(shifts.Reconstruction.numbers, 1):
            y, x = (np.abs(np.fft.fftfreq(n)) / (0.5 - s / 8) for n in (40, 48))
            along_y, along_x = (
                np.where(u <= 1, 1 - s * np.sin(np.pi * u / 2) ** 2, 0) for u in (y, x)
            )
            wanted = np.fft.ifft2(np.fft.fft2(image) * np.outer(along_y, along_x))
            assert np.abs(wanted.imag).max() < 1e-6 * image.max()
            found = applied(shifts.Reconstruction, severity, image)
            np.testing.assert_allclose(found, np.abs(wanted), rtol=1e-3, atol=0.01)

    def test_other_software_sees_slices_one_by_one_and_keeps_their_means(self):
        image = body((4, 40, 48)) - 900  # no magnitude, whose mean the absolute value would lift
        changed = applied(shifts.Reconstruction, 5, image)
        np.testing.assert_allclose(changed.mean(axis=(2, 3)), image.mean(axis=(2, 3)), rtol=1e-5)
        for z in range(4):
            alone = applied(shifts.Reconstruction, 5, image[:, z : z + 1])
            np.testing.assert_allclose(changed[:, z : z + 1], alone, atol=1e-2)

    def test_other_software_rings_less_than_a_cut(self):
        """Of an edge, at equal severity: the filter is what takes the ringing away."""
        image = np.zeros((1, 1, 128, 128), np.float32)
        image[:, :, 32:96] = 100
        image += 50
        for severity in (3, 4, 5):
            soft, cut = (
                applied(part, severity, image).max() - 150
                for part in (shifts.Reconstruction, shifts.Gibbs)
            )
            assert soft < cut / 2

    def test_a_spike_is_one_sample_of_k_space(self):
        image = np.full((1, 3, 32, 48), -1, np.float32)  # no magnitude: the real part stays
        image[..., 10:20] = 1
        wave = np.fft.fft2(applied(shifts.Spike, 4, image) - image)
        size = np.abs(wave) / (32 * 48)
        for one in size[0]:
            place = np.argwhere(one > 1e-3)
            assert len(place) == 2  # the sample and, of a real wave, its mirror image
            np.testing.assert_array_equal((place[0] + place[1]) % (32, 48), 0)
            assert one.max() == pytest.approx(shifts.Spike.numbers[3] * 2 / 2, rel=1e-3)

    def test_moving_leaves_the_middle_of_k_space_and_the_place(self):
        image = body((1, 64, 64)) - 900  # no magnitude, which would mix lines
        for case in "abcdef":
            moved = applied(shifts.Motion, 5, image, case=case)
            before, after = (np.fft.fft2(each)[0, 0] for each in (image, moved))
            # The real part stays of lines that are not each other's mirror images: both halves.
            still = np.abs(np.fft.fftfreq(64)) < 0.5 - 0.6 * shifts.Motion.numbers[4]
            np.testing.assert_allclose(after[still], before[still], rtol=1e-3, atol=1)
            assert np.abs(after - before)[~still].max() > 100
            assert np.argmax(np.fft.ifft2(before * after.conj()).real) == 0  # of all displacements

    def test_the_moved_patient_is_scipys(self):
        """By 5 mm and 5 degrees, with its own rotation and displacement."""
        image = body((2, 48, 40))
        random = generator(0, "shift", "motion", "a")
        before, k_space = random.uniform(0.4, 0.6), np.fft.fft2(image)
        for side, share in ((-1, before), (1, 1 - before)):
            angle, turn = random.uniform(0, 2 * np.pi), random.choice([-1, 1])
            border = np.median(image[:, :, [0, -1]])
            turned = ndimage.rotate(image - border, turn * 5, (3, 2), False, order=1) + border
            step = 5 / 2 * np.array([0, 0, np.sin(angle), np.cos(angle)])  # pixels of 2 mm
            displaced = ndimage.fourier_shift(np.fft.fft2(turned), step)
            lines = side * np.fft.fftfreq(48) > 0.5 - share * shifts.Motion.numbers[4]
            k_space[:, :, lines] = displaced[:, :, lines]
        wanted = np.abs(np.fft.ifft2(k_space))
        changed = applied(shifts.Motion, 5, image)
        np.testing.assert_allclose(changed, wanted, atol=0.02 * wanted.max())
        assert np.abs(changed - image).max() > 0.1 * image.max()


class TestSharpness:
    def test_thick_slices_are_means(self):
        image = body((8, 10, 12))
        thick = applied(shifts.SliceThickness, 2, image)
        pairs = image.reshape(1, 4, 2, 10, 12).mean(axis=2)
        np.testing.assert_allclose(thick[:, 0], pairs[:, 0], rtol=1e-5)
        np.testing.assert_allclose(thick[:, 2], pairs[:, 0] * 0.25 + pairs[:, 1] * 0.75, rtol=1e-5)
        np.testing.assert_allclose(thick[:, 7], pairs[:, 3], rtol=1e-5)

    @pytest.mark.parametrize("imaging", ["mr", "ct", "microscopy"])
    @pytest.mark.parametrize("severity", [1, 3, 5])
    def test_larger_pixels_are_means_over_larger_squares(self, imaging, severity):
        """Of profiles that are 200 times as fine, the means over a window around each centre."""
        random = np.random.default_rng(0)
        profiles = [random.random(size).astype(np.float32) for size in (14, 19)]
        shift = shifts.Resolution(severity, imaging)
        half = round(100 * shift.number)
        means = []
        for profile in profiles:
            fine, centres = np.repeat(profile, 200), 200 * np.arange(len(profile)) + 100
            means.append([fine[max(0, c - half) : c + half].mean() for c in centres])
        image = np.outer(*profiles)[None, None]
        made = shift(image, acquisition=HOME, random=random)[0, 0]
        np.testing.assert_allclose(made, np.outer(*means), rtol=1e-4)

    def test_pixels_thrice_as_large_are_scipys_uniform_filter(self, monkeypatch):
        monkeypatch.setitem(shifts.sharpness.RESOLUTION, "mr", (3.0,) * 5)
        image = body((2, 20, 24))
        wanted = ndimage.uniform_filter(image, (0, 0, 3, 3))
        inner = (..., slice(1, -1), slice(1, -1))
        np.testing.assert_allclose(applied(shifts.Resolution, 2, image)[inner], wanted[inner],
                                   rtol=1e-4)  # fmt: skip

    def test_the_kind_of_images_is_one_of_three(self):
        with pytest.raises(InputError, match=r"imaging is 'pet'; valid are \['ct', 'microscopy'"):
            shifts.Resolution(1, "pet")
        with pytest.raises(InputError, match="severity 7"):
            shifts.Resolution(7, "ct")

    @pytest.mark.parametrize("name", SMOOTHING)
    def test_a_flat_image_stays_flat(self, name):
        flat = np.full((2, 9, 13, 11), 42, np.float32)
        np.testing.assert_allclose(applied(getattr(shifts, name), 5, flat), flat, rtol=1e-5)

    def test_widths_and_gains(self):
        """Of a point, its width; of a wave, its height."""
        point = np.zeros((1, 1, 65, 65), np.float32)
        point[..., 32, 32] = 1
        for severity in (3, 5):
            profile = applied(shifts.SmoothKernel, severity, point)[0, 0, 32]
            fine = np.interp(np.linspace(0, 64, 6401), np.arange(65), profile)
            width = np.count_nonzero(fine > fine.max() / 2) / 100
            assert width == pytest.approx(shifts.SmoothKernel.numbers[severity - 1], rel=0.06)
            spread = applied(shifts.Blur, severity, point)[0, 0].sum(axis=0)
            sigma = np.sqrt((spread * (np.arange(65) - 32) ** 2).sum())
            assert sigma == pytest.approx(shifts.Blur.numbers[severity - 1], rel=0.02)
        finest = np.resize([-1.0, 1.0], (1, 1, 16, 16)).astype(np.float32)
        gain = applied(shifts.SharpKernel, 5, finest)[..., 5:11, 5:11].max()
        assert gain == pytest.approx(1 + shifts.SharpKernel.numbers[4], rel=0.02)


class TestContrast:
    def test_a_gamma_keeps_the_range_and_the_order(self):
        image = body()
        low, high = np.percentile(image, [1, 99])
        for case in ("a", "b", "c", "d"):
            changed = applied(shifts.Contrast, 5, image, case=case)
            outside = (image <= low) | (image >= high)
            np.testing.assert_allclose(changed[outside], image[outside], rtol=1e-5, atol=1e-2)
            order = np.argsort(image.ravel(), kind="stable")
            assert np.diff(changed.ravel()[order]).min() > -1e-2
        middle = [
            applied(shifts.Contrast, 5, image, case=c).mean() > image.mean() for c in "abcdefgh"
        ]
        assert set(middle) == {True, False}  # brighter in some cases, darker in others

    def test_inversion_mirrors_all_at_5(self):
        image = body()
        low, high = np.percentile(image, [1, 99])
        np.testing.assert_allclose(
            applied(shifts.Inversion, 5, image), low + high - image, rtol=1e-4, atol=0.05
        )
        part = applied(shifts.Inversion, 2, image)
        below = image < low + shifts.Inversion.numbers[1] * (high - low)
        assert np.corrcoef(part[below], image[below])[0, 1] > 0.999
        assert np.corrcoef(part[~below], image[~below])[0, 1] < -0.999

    def test_an_offset_is_one_number_for_the_case(self):
        image = body() - 900
        signs = set()
        for case in "abcdefgh":
            offset = np.unique(
                np.round(applied(shifts.HounsfieldOffset, 4, image, case=case) - image, 2)
            )
            np.testing.assert_allclose(np.abs(offset), 20.9, atol=0.01)
            signs.add(float(np.sign(offset[0])))
        assert signs == {-1.0, 1.0}

    def test_the_dyes_are_scikit_images(self):
        """Unmixed, multiplied and mixed again with its own functions."""
        image = rgb()
        changed = applied(shifts.Stain, 5, image)
        dyes, after = (rgb2hed(np.moveaxis(i[:, 0] / 255, 0, -1)) for i in (image, changed))
        kept = (dyes > 0.01) & (after > 0.01)  # it cuts negative densities off
        ratio = after / np.where(kept, dyes, 1)
        for dye in range(2):
            own = ratio[..., dye][kept[..., dye]]
            assert own.std() < 0.02 * own.mean()
            largest = shifts.Stain.numbers[4]
            assert 1 / largest <= own.mean() <= largest
            assert abs(np.log(own.mean())) > 0.4 * np.log(largest)
        assert np.abs(hed2rgb(rgb2hed(np.moveaxis(image[:, 0] / 255, 0, -1))) * 255
                      - np.moveaxis(image[:, 0], 0, -1)).max() < 12  # fmt: skip

    def test_a_dye_that_shines_is_brighter_and_one_that_absorbs_is_denser(self):
        dark, bright = np.full((1, 1, 8, 8), 10, np.float32), np.full((1, 1, 8, 8), 250, np.float32)
        dark[..., 2:4, :], bright[..., 2:4, :] = 200, 100
        limited = set()
        for case in "abcdefgh":
            shone, absorbed = (applied(shifts.Stain, 5, i, case=case) for i in (dark, bright))
            factor = float(shone[0, 0, 0, 0] / 10)
            np.testing.assert_allclose(shone, np.minimum(dark * factor, 255), rtol=1e-5)
            np.testing.assert_allclose(
                np.log(absorbed / 250), factor * np.log(bright / 250), rtol=1e-4
            )
            limited.add(shone.max() == 255)
        assert limited == {True, False}

    def test_grey_that_is_stored_as_colours_is_grey(self):
        dark, bright = np.full((1, 1, 8, 8), 14, np.float32), np.full((1, 1, 8, 8), 226, np.float32)
        dark[..., 2:4, :], bright[..., 2:4, :] = 90, 110
        for image, case in itertools.product((dark, bright), "abcd"):
            grey = applied(shifts.Stain, 5, image, case=case)
            coloured = applied(shifts.Stain, 5, np.repeat(image, 3, axis=0), case=case)
            np.testing.assert_array_equal(coloured, np.repeat(grey, 3, axis=0))

    def test_a_dark_background_in_colours_shines_too(self):
        image = np.full((3, 1, 8, 8), 14, np.float32)
        image[2, :, 2:4] = 90
        factor = applied(shifts.Stain, 5, image) / image
        np.testing.assert_allclose(factor, factor[0, 0, 0, 0], rtol=1e-5)
        assert factor.max() * 90 <= 255

    @pytest.mark.parametrize("white", [0.9, 1, 230, 2000, 4000, 20_000, 65535])
    def test_the_glass_stays_as_bright_as_it_is(self, white):
        """Whatever the detector's range, and with a hot pixel; nothing is brighter than before."""
        image = np.full((1, 1, 64, 64), white, np.float32)
        image[..., 8:16, 8:16] = 0.4 * white
        image[..., 0, 0] = 1.02 * white
        for case in "abcd":
            changed = applied(shifts.Stain, 5, image, case=case)
            np.testing.assert_allclose(changed[..., 20:, :], white, rtol=1e-5)
            spot = changed[0, 0, 12, 12] / (0.4 * white)
            assert max(spot, 1 / spot) > 1.1
            assert changed.max() <= image.max()

    @pytest.mark.parametrize(
        ("brightest", "limit"), [(200, 255), (300, 511), (4000, 4095), (0.6, 1), (2.5, 2.5)]
    )
    def test_what_shines_ends_where_the_detector_does(self, brightest, limit):
        image = np.full((1, 1, 8, 8), brightest / 100, np.float32)
        image = np.rint(image) if brightest >= 200 else image
        image[..., 2:4, :] = brightest
        most = [applied(shifts.Stain, 5, image, case=case).max() for case in "abcdefgh"]
        assert max(most) == pytest.approx(min(limit, 1.352 * brightest), rel=0.1)
        assert max(most) <= limit

    def test_white_stays_white(self):
        for channels, white in itertools.product((1, 3), (1, 255, 65535)):
            image = np.full((channels, 1, 4, 4), white, np.float32)
            np.testing.assert_allclose(applied(shifts.Stain, 5, image), white, rtol=1e-5)


GRID = {"shape": (16, 48, 60), "spacing_mm": (12.0, 6.5, 6.5)}
ALPHA = {
    "patients": 1, "guideline": "reference", "vendor": "v", "tr_ms": 500, "te_ms": 12,
    "field_strength_t": 1.5, "noise": 0.0, "bias": 0.1, "blur_mm": 6.0, "slice_mm": 12.0,
    "lesion_count": [1, 3], "lesion_radius_mm": [15, 25],
}  # fmt: skip


class TestEchoTimes:
    """Against the image that the phantom's scanner would have acquired."""

    @pytest.mark.parametrize("severity", range(1, 6))
    def test_it_is_what_the_scanner_would_have_seen(self, severity):
        site = parse_site("alpha", ALPHA)
        patient = simulate_patient("p", site.population, seed=0, **GRID)
        part = shifts.Contrast.parts[severity - 1]
        tr_ms, te_ms = 500 * 4**part, 12 * 5**part
        other = replace(site.scanner, tr_ms=tr_ms, te_ms=te_ms)
        spacing_mm = GRID["spacing_mm"]
        image, wanted = (
            image_patient(patient, s, seed=0, spacing_mm=spacing_mm) for s in (site.scanner, other)
        )
        maps = tissue_maps(
            patient.tissue, patient.properties, patient.texture, field_strength_t=1.5
        )
        acquisition = Acquisition(spacing_mm, {"tr_ms": "500", "te_ms": "12"}, maps)
        changed = applied(
            shifts.Contrast, severity, image[None].astype(np.float32), acquisition=acquisition
        )[0]
        error, difference = (
            np.sqrt(np.mean((one - wanted.astype(float)) ** 2)) for one in (changed, image)
        )
        assert error < 0.12 * difference
        assert np.corrcoef(changed.ravel(), wanted.ravel())[0, 1] > 0.99

    def test_without_maps_or_times_it_is_a_gamma(self):
        image = body()
        gamma = applied(shifts.Contrast, 3, image)
        maps = np.ones((3, *image.shape[1:]), np.float32)
        for tags, held in (({"tr_ms": "500"}, maps), ({"tr_ms": "500", "te_ms": "x"}, maps),
                           ({"tr_ms": "500", "te_ms": "12"}, None)):  # fmt: skip
            acquisition = Acquisition((3.0, 2.0, 2.0), tags, held)
            np.testing.assert_array_equal(
                applied(shifts.Contrast, 3, image, acquisition=acquisition), gamma
            )

    def test_air_keeps_its_noise_and_maps_may_hold_zeros(self):
        image, maps = body(), np.zeros((3, *body().shape[1:]), np.float32)
        maps[:, :, 10:] = np.array([1.0, 800, 60])[:, None, None, None]
        acquisition = Acquisition((3.0, 2.0, 2.0), {"tr_ms": "500", "te_ms": "12"}, maps)
        changed = applied(shifts.Contrast, 5, image, acquisition=acquisition)
        np.testing.assert_allclose(changed[:, :, :7], image[:, :, :7], rtol=0.02)
        assert np.isfinite(changed).all()


AXES = (["x"], ["y"], ["z"], ["y", "x"], ["z", "y", "x"])
TURNING = [*map(shifts.Rotation, range(6)), *(shifts.Flip(1, axes) for axes in AXES)]


@pytest.mark.parametrize("shift", TURNING, ids=lambda shift: f"{shift.name}-{shift.severity}")
class TestGeometry:
    def moved(self, shift, image, label, *, acquisition=HOME):
        assert isinstance(shift, Turning)
        streams = [generator(0, "shift", shift.name, "a") for _ in range(2)]
        return (
            shift(image, acquisition=acquisition, random=streams[0]),
            shift.turned_label(label, acquisition=acquisition, random=streams[1]),
        )

    def test_the_label_moves_with_the_image(self, shift):
        label = (body()[0] > 500).astype(np.uint8)
        image = 100 * label[None].astype(np.float32)
        turned, reference = self.moved(shift, image, label)
        assert reference.dtype == np.uint8
        shown = turned[0] > 50
        both = 2 * (shown & (reference > 0)).sum() / (shown.sum() + reference.sum())
        assert both == 1 if isinstance(shift, shifts.Flip) else both > 0.97

    def test_nobody_knows_stays_nobody_knows(self, shift):
        label = np.full((4, 12, 14), 255, np.uint8)
        label[:, 4:8] = 2
        _, reference = self.moved(shift, body((4, 12, 14)), label)
        assert set(np.unique(reference)) <= {0, 2, 255}


def test_only_these_move_the_patient():
    turning = {one for one in EVERY if isinstance(one(1), Turning)}
    assert turning == {shifts.Rotation}
    assert not isinstance(Identity(), Turning)


class TestFlip:
    def flipped(self, axes, image, severity=1):
        random = np.random.default_rng(0)
        return shifts.Flip(severity, axes)(image, acquisition=HOME, random=random)

    def test_axes_are_read_backwards(self):
        image = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
        for axes, wanted in ((["x"], image[..., ::-1]), (["y"], image[:, :, ::-1]),
                             (["z"], image[:, ::-1]), (["y", "x"], image[:, :, ::-1, ::-1]),
                             (["x", "z", "y"], image[:, ::-1, ::-1, ::-1])):  # fmt: skip
            found = self.flipped(axes, image)
            np.testing.assert_array_equal(found, wanted)
            assert found.flags["C_CONTIGUOUS"]
            np.testing.assert_array_equal(self.flipped(axes, found), image)

    def test_severity_0_changes_no_bit(self):
        image = body()
        assert self.flipped(["x"], image, severity=0) is image

    def test_a_name_for_each_set_of_axes(self):
        assert [shifts.Flip(1, axes).name for axes in AXES] == [
            "flip_x", "flip_y", "flip_z", "flip_yx", "flip_zyx"
        ]  # fmt: skip
        assert shifts.Flip(1, ["x", "y"]) == shifts.Flip(1, ("y", "x"))

    @pytest.mark.parametrize("severity", [2, 3, 5])
    def test_there_is_no_more_of_it(self, severity):
        told = rf"shift flip_x: severity {severity}; a flip is there \(1\) or not \(0\)"
        with pytest.raises(InputError, match=told):
            shifts.Flip(severity, ["x"])

    @pytest.mark.parametrize("severity", [-1, 6, 1.0, True, "1", None])
    def test_a_wrong_severity_is_refused(self, severity):
        with pytest.raises(InputError, match="flip_x: severity"):
            shifts.Flip(severity, ["x"])

    @pytest.mark.parametrize("axes", [[], "x", "yx", ["x", "x"], ["w"], [2], [["x"]], None, 1])
    def test_wrong_axes_are_refused(self, axes):
        with pytest.raises(InputError, match="shift flip: axes is .*; a list of some of z, y, x"):
            shifts.Flip(1, axes)


class TestRotation:
    def test_angles_are_right_on_pixels_that_are_no_squares(self):
        """A bar of 40 mm x 10 mm, whose principal axis turns by the stated angle."""
        y, x = np.meshgrid(np.arange(-30, 31), np.arange(-60, 61), indexing="ij")
        image = ((np.abs(2.0 * y) < 5) & (np.abs(1.0 * x) < 40)).astype(np.float32)[None, None]
        for severity, degrees in enumerate(shifts.Rotation.numbers, 1):
            turned = applied(shifts.Rotation, severity, image, acquisition=Acquisition((1, 2, 1)))
            at_y, at_x = 2.0 * y[turned[0, 0] > 0.5], 1.0 * x[turned[0, 0] > 0.5]
            angle = 0.5 * np.arctan2(2 * np.cov(at_x, at_y)[0, 1], np.var(at_x) - np.var(at_y))
            assert abs(np.rad2deg(angle)) == pytest.approx(degrees, abs=0.6)

    def test_what_comes_in_is_as_the_border(self):
        image = np.full((1, 1, 21, 21), 500, np.float32)
        np.testing.assert_allclose(applied(shifts.Rotation, 5, image), image)


def test_the_page_has_every_shift_with_its_numbers():
    page = (ROOT / "docs" / "shifts.md").read_text()
    for part in EVERY:
        numbers = ", ".join(f"{number:g}" for number in part.numbers)
        assert f"\n| `{part.name}` | `{part.__name__}` | {numbers} " in page


def test_every_shift_is_in_a_suite():
    suites = [path.read_text() for path in (ROOT / "conf" / "shift").glob("*.yaml")]
    for part in EVERY:
        assert any(f"segshift.shifts.{part.__name__}" in suite for suite in suites)
    assert any("segshift.shifts.Flip" in suite for suite in suites)


class TestSuites:
    def test_an_entry_is_expanded_unless_it_has_a_severity(self):
        suite = [{"_target_": "a"}, {"_target_": "b", "severity": 4}]
        assert shifts.expanded(suite, [1, 3]) == [
            {"_target_": "a", "severity": 1},
            {"_target_": "a", "severity": 3},
            {"_target_": "b", "severity": 4},
        ]

    @pytest.mark.parametrize("severities", [[6], [1.5], ["2"], [True], 3, "1"])
    def test_wrong_severities_are_refused(self, severities):
        with pytest.raises(InputError, match="severit"):
            shifts.expanded([], severities)

    @pytest.mark.parametrize(
        ("entry", "severities"), [({}, []), ({}, [0]), ({"severity": 0}, [1, 3])]
    )
    def test_a_suite_that_would_test_nothing_is_refused(self, entry, severities):
        with pytest.raises(InputError, match=r"severities=.* no shift .*\[1,3\].*shift=none"):
            shifts.expanded([{"_target_": "a", **entry}], severities)
        assert shifts.expanded([], []) == []
        assert len(shifts.expanded([{"_target_": "a", "severity": 2}], [])) == 1

    def test_identities_go_and_doubles_are_refused(self):
        blur = shifts.Blur(2)
        assert shifts.distinct([Identity(), shifts.Blur(0), blur]) == [blur]
        with pytest.raises(InputError, match="blur2"):
            shifts.distinct([blur, shifts.Blur(2)])

    @pytest.mark.parametrize("name", ["", "a/b", "a+b", "3d", "a b"])
    def test_names_become_part_of_a_sets_name(self, name):
        with pytest.raises(InputError, match="names have letters"):
            shifts.distinct([Identity(name, 1)])
