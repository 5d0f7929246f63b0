"""Augmentation: drawn from the sample number, applied to whole batches, right in space."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from segshift.augment import Augment, Drawn, intensities, moved
from segshift.errors import InputError

OPTIONS = {
    "spacing_mm": (1.0, 1.0, 1.0), "seed": 0, "share": 1.0, "rotation_degrees": 30,
    "scale": (0.7, 1.4), "mirror_axes": (0, 1, 2), "gain": (0.75, 1.25),
    "contrast": (0.75, 1.25), "gamma": (0.7, 1.5), "noise": 0.3,
}  # fmt: skip


def augment(**options):
    return Augment(**OPTIONS | options)


def batch(dimensions, size=3):
    random = torch.Generator().manual_seed(0)
    shape = (12, 14, 16)[3 - dimensions :]
    image = torch.randn((size, 2, *shape), generator=random)
    return image, (image[:, :1] > 0.5).long(), torch.arange(size)


def neutral(dimensions, size=1, **changes):
    values = {
        "affine": torch.eye(dimensions).repeat(size, 1, 1),
        "mirrored": torch.zeros(size, dimensions, dtype=torch.bool),
        "gain": torch.ones(size), "contrast": torch.ones(size), "gamma": torch.ones(size),
        "noise": torch.zeros(size), "noise_seed": torch.arange(size),
    }  # fmt: skip
    return Drawn(**values | changes)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_sample_is_augmented_alike_in_any_batch(dimensions):
    image, label, samples = batch(dimensions)
    whole = augment()(image, label, samples)
    for i in range(3):
        alone = augment()(image[i : i + 1], label[i : i + 1], samples[i : i + 1])
        torch.testing.assert_close(alone[0][0], whole[0][i])
        torch.testing.assert_close(alone[1][0], whole[1][i])


def test_samples_and_seeds_differ():
    image, label, _ = batch(3, 1)
    results = [
        augment(seed=seed)(image, label, torch.tensor([sample]))[0]
        for seed in (0, 1)
        for sample in range(4)
    ]
    assert len(torch.unique(torch.stack(results).flatten(1), dim=0)) == 8


@pytest.mark.parametrize("dimensions", [2, 3])
def test_nothing_drawn_changes_nothing(dimensions):
    image, label, samples = batch(dimensions)
    got = augment(share=0.0, mirror_axes=())(image, label, samples)
    torch.testing.assert_close(got[0], image)
    torch.testing.assert_close(got[1], label)


def test_the_batch_handed_in_is_not_changed():
    image, label, samples = batch(3)
    before = image.clone(), label.clone()
    augment()(image, label, samples)
    torch.testing.assert_close(image, before[0])
    torch.testing.assert_close(label, before[1])


def test_autocast_does_not_coarsen_the_coordinates():
    image, label, samples = batch(3)
    plain = augment()(image, label, samples)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = augment()(image, label, samples)
    torch.testing.assert_close(mixed[0], plain[0])
    assert torch.equal(mixed[1], plain[1])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirroring_is_a_flip_of_that_axis(axis):
    image, label, _ = batch(3, 1)
    mirrored = torch.zeros(1, 3, dtype=torch.bool)
    mirrored[0, axis] = True
    got = moved(image, label, neutral(3, mirrored=mirrored), (1.0, 1.0, 1.0))
    torch.testing.assert_close(got[0], image.flip(axis + 2), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(got[1], label.flip(axis + 2))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.0, 2.0, 0.5)])
def test_rotation_is_rigid_in_millimetres(spacing):
    """Against SciPy, on a grid whose voxels are no cubes."""
    image = torch.randn(1, 1, 13, 15, 17, generator=torch.Generator().manual_seed(0))
    angle = np.deg2rad(20)
    turn = np.eye(3)
    turn[1:, 1:] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    drawn = neutral(3, affine=torch.tensor(turn[None], dtype=torch.float32))
    got = moved(image, torch.zeros_like(image).long(), drawn, spacing)[0][0, 0].numpy()
    voxels = np.diag(1 / np.array(spacing)) @ turn @ np.diag(spacing)
    centre = (np.array(image.shape[2:]) - 1) / 2
    expected = ndimage.affine_transform(
        image[0, 0].numpy(), voxels, centre - voxels @ centre, order=1, mode="nearest"
    )
    np.testing.assert_allclose(got, expected, atol=1e-3)


def test_image_and_label_move_together():
    label = torch.zeros(4, 1, 24, 24, 24, dtype=torch.int64)
    label[:, :, 6:16, 8:18, 10:14] = 1
    image, moved_label = augment(gain=(1, 1), contrast=(1, 1), gamma=(1, 1), noise=0.0)(
        label.float(), label, torch.arange(4)
    )
    agreement = ((image > 0.5) == (moved_label > 0)).float().mean()
    assert agreement > 0.99
    assert not torch.equal(moved_label, label)


def test_labels_are_never_interpolated():
    label = torch.randint(0, 2, (2, 1, 12, 12), generator=torch.Generator().manual_seed(0)) * 7
    got = augment()(label.float(), label, torch.arange(2))[1]
    assert set(got.unique().tolist()) <= {0, 7}


def test_a_coarse_axis_is_only_turned_in_plane():
    drawn = augment(spacing_mm=(8.0, 1.0, 1.0), scale=(1, 1)).draw(range(20), dimensions=3)
    torch.testing.assert_close(drawn.affine[:, 0], torch.eye(3)[0].repeat(20, 1))
    assert (drawn.affine[:, 1, 2].abs() > 0).all()


def test_the_drawn_ranges_and_share():
    drawn = augment(share=0.25).draw(range(2000), dimensions=3)
    for name, low, high in (("gain", 0.75, 1.25), ("gamma", 0.7, 1.5), ("contrast", 0.75, 1.25)):
        values = getattr(drawn, name)
        assert values.min() >= low
        assert values.max() <= high
        assert abs(float((values != 1).float().mean()) - 0.25) < 0.04
    assert abs(float((drawn.noise > 0).float().mean()) - 0.25) < 0.04
    assert abs(float(drawn.mirrored.float().mean()) - 0.5) < 0.03


def test_an_option_does_not_disturb_the_others_draws():
    plain = augment().draw(range(5), dimensions=3)
    other = augment(noise=0.0, gain=(1, 1), mirror_axes=()).draw(range(5), dimensions=3)
    torch.testing.assert_close(plain.affine, other.affine)
    torch.testing.assert_close(plain.gamma, other.gamma)


def test_intensities_by_hand():
    image = torch.tensor([[[[0.0, 1.0, 4.0]]]])
    got = intensities(image, neutral(2, gain=torch.tensor([2.0])))
    torch.testing.assert_close(got, image * 2)
    got = intensities(image, neutral(2, contrast=torch.tensor([0.5])))
    torch.testing.assert_close(got, (image - 5 / 3) * 0.5 + 5 / 3)
    got = intensities(image, neutral(2, gamma=torch.tensor([0.5])))
    torch.testing.assert_close(got, (image / 4).sqrt() * 4)


def test_noise_has_the_drawn_deviation():
    got = intensities(torch.zeros(1, 1, 64, 64), neutral(2, noise=torch.tensor([0.2])))
    assert abs(float(got.std()) - 0.2) < 0.01


@pytest.mark.parametrize("options", [{"share": 2.0}, {"mirror_axes": (3,)}])
def test_wrong_options(options):
    with pytest.raises(InputError, match=r"augment\."):
        augment(**options)


@pytest.mark.gpu
def test_the_gpu_does_what_the_cpu_does():
    image, label, samples = batch(3)
    options = {"noise": 0.0}  # its stream is the device's own
    cpu = augment(**options)(image, label, samples)
    gpu = augment(**options)(image.cuda(), label.cuda(), samples)
    torch.testing.assert_close(gpu[0].cpu(), cpu[0], atol=1e-4, rtol=1e-4)
    assert (gpu[1].cpu() == cpu[1]).float().mean() > 0.999
