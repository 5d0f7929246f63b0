"""The plan follows nnU-Net's published rules and reads training cases only."""

import json
import warnings
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest
from conftest import REAL_DATA, make_case, reannotated, save_nifti
from hypothesis import given, settings
from hypothesis import strategies as st

from segshift.cohort.checks import load_case
from segshift.cohort.images import read_image
from segshift.errors import InputError
from segshift.plan import (
    Normalisation,
    box_shape,
    crop_box,
    make_plan,
    memory,
    normalised,
    plan_from_dict,
    resampled_shape,
    topology,
)
from segshift.plan.pooling import padded


def plan(cases, **options):
    defaults = {
        "structures": ("box", "core"),
        "dimensions": 3,
        "context": 0,
        "batch": 2,
        "patch_voxels": 10**6,
    }
    return make_plan(cases, **defaults | options)


@pytest.mark.parametrize(
    ("patch", "spacing", "strides", "kernels"),
    [
        # nnU-Net's hippocampus 3d_fullres: four stages, all isotropic.
        ((36, 50, 35), (1, 1, 1), [[1, 1, 1]] + [[2, 2, 2]] * 3, [[3, 3, 3]] * 4),
        # nnU-Net's prostate 3d_fullres (patch 20x320x256, 3.6 x 0.62 x 0.62 mm): the coarse axis is
        # neither convolved nor pooled until the others have caught up.
        (
            (20, 320, 256),
            (3.6, 0.62, 0.62),
            [[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 2, 2]],
            [[1, 3, 3], [1, 3, 3]] + [[3, 3, 3]] * 5,
        ),
        # A 2D patch.
        ((48, 40), (1, 1), [[1, 1]] + [[2, 2]] * 3, [[3, 3]] * 4),
    ],
)
def test_topology(patch, spacing, strides, kernels):
    got_strides, got_kernels = topology(patch, spacing)
    assert [list(s) for s in got_strides] == strides
    assert [list(k) for k in got_kernels] == kernels


def test_a_tiny_patch_has_few_stages():
    """As nnU-Net's; 11.5 voxels, the median of two cases, are too few to be halved alone."""
    assert topology((4, 8, 8), (1, 1, 1)) == (((1, 1, 1), (1, 2, 2)), ((3, 3, 3), (3, 3, 3)))
    assert topology((5, 4), (1, 1)) == (((1, 1),), ((3, 3),))
    assert len(topology((5, 11.5), (1, 1))[0]) == 1
    assert len(topology((5, 12), (1, 1))[0]) == 2


def test_the_last_stage_has_whole_kernels_however_coarse_an_axis_is():
    """Four voxels of 40 mm across are never pooled and stay coarse to the end."""
    strides, kernels = topology((4, 32, 32), (40.0, 1.0, 1.0))
    assert strides == ((1, 1, 1), *[(1, 2, 2)] * 3)
    assert kernels == (*[(1, 3, 3)] * 3, (3, 3, 3))


def test_hand_computed(tmp_path):
    cases = [make_case(tmp_path, f"c{i}", shape=(12, 20 + i, 30)) for i in range(3)]
    made = plan(cases)
    assert made.spacing_mm == (1, 1, 1)
    # 12 is halved once (to 6), 21 and 30 as well twice: multiples of 2, 4 and 4.
    assert made.view.patch == (12, 24, 32)
    assert np.prod(made.strides, axis=0).tolist() == [2, 4, 4]
    counts = np.mean([np.bincount(load(c).ravel(), minlength=3) / load(c).size for c in cases], 0)
    np.testing.assert_allclose(made.structure_frequency, counts, atol=5e-3)
    assert sum(made.structure_frequency) == pytest.approx(1)


def load(case):
    from segshift.cohort.checks import load_label

    return load_label(case)


@pytest.mark.parametrize("options", [(), ("plan.memory_gb=4", "plan.normalisation=clip_global")])
def test_a_held_out_case_changes_no_byte_of_the_plan(tmp_path, options):
    """The plan reads what it is given; `build.experiment` gives it the training cases alone."""
    from conftest import composed

    from segshift import build
    from segshift.cohort import write_manifest

    cases = [make_case(tmp_path, f"{s}-{i}", site=s) for s in ("a", "b") for i in range(6)]
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["box", "core"])
    config = composed(
        "data=manifest", f"data.manifest={tmp_path / 'm.csv'}", "split=leave_site_out",
        "split.held_out=b", *options,
    )  # fmt: skip
    before = json.dumps(asdict(build.experiment(config).plan))
    for case in cases:
        if case.site == "b":  # another size, spacing, intensity and label
            affine = np.diag([3.0, 2, 5, 1])
            save_nifti(case.images[0], np.full((20, 30, 40), -900.0, np.float32), affine)
            save_nifti(case.annotation.label, np.full((20, 30, 40), 9, np.uint8), affine)
    assert json.dumps(asdict(build.experiment(config).plan)) == before
    for number in (1, 6, 9):  # of held-out cases
        held_out = [make_case(tmp_path, f"b-{i}", site="b", seed=7) for i in range(number)]
        write_manifest(
            tmp_path / "m.csv", [*cases[:6], *held_out], channels=["image"],
            structures=["box", "core"],
        )  # fmt: skip
        assert json.dumps(asdict(build.experiment(config).plan)) == before


def test_anisotropic_spacing_takes_the_tenth_percentile(tmp_path):
    cases = []
    for i, thick in enumerate((10, 10, 10, 4)):
        case = make_case(tmp_path, f"c{i}", shape=(5, 40, 40))
        image = np.zeros((5, 40, 40), np.float32)
        affine = np.diag([1.0, 1, thick, 1])
        save_nifti(case.images[0], image, affine)
        save_nifti(case.annotation.label, image.astype(np.uint8), affine)
        cases.append(case)
    assert plan(cases).spacing_mm == pytest.approx((np.percentile([10, 10, 10, 4], 10), 1, 1))


def test_the_patch_is_bounded(tmp_path):
    cases = [make_case(tmp_path, f"c{i}", shape=(16, 64, 64)) for i in range(2)]
    patch = plan(cases, patch_voxels=16 * 32 * 32).view.patch
    assert np.prod(patch) <= 16 * 32 * 32
    assert patch[0] == 16  # the longest edges give way first


@pytest.mark.parametrize("shape", [(30, 50, 70), (16, 61, 47)])
def test_padding_for_the_pooling_counts_too(tmp_path, shape):
    cases = [make_case(tmp_path, f"c{i}", shape=shape) for i in range(2)]
    assert 10000 < np.prod(plan(cases, patch_voxels=20000).view.patch) <= 20000


@pytest.mark.parametrize("shape", [(100000, 80000), (40000, 20), (512, 512, 512), (7, 900, 5)])
def test_a_huge_image_is_planned_in_few_trials(shape, monkeypatch):
    from segshift.plan import pooling as room
    from segshift.plan.sizes import fitting_voxels

    trials = []
    sound = room.topology
    monkeypatch.setattr(room, "topology", lambda *a: trials.append(a) or sound(*a))
    patch = fitting_voxels(np.array(shape), np.ones(len(shape)), 131072)
    assert padded(patch, np.ones(len(shape))).prod() <= 131072
    assert patch.prod() > 131072 / 3 or np.array_equal(patch, shape)
    assert len(trials) < 200


def test_the_batch_fills_the_voxels(tmp_path):
    cases = [make_case(tmp_path, f"c{i}", shape=(16, 32, 32)) for i in range(2)]
    assert plan(cases, batch=None, patch_voxels=32 * 32 * 10, dimensions=2).batch == 10
    assert plan(cases, batch=None, patch_voxels=16 * 32 * 32).batch == 2


def test_overrides_and_their_limits(tmp_path):
    cases = [make_case(tmp_path, f"c{i}", shape=(16, 32, 32)) for i in range(2)]
    assert plan(cases, patch=[8, 16, 16]).view.patch == (8, 16, 16)
    assert plan(cases, spacing_mm=[2, 2, 2]).spacing_mm == (2, 2, 2)
    with pytest.raises(InputError, match=r"next fitting patch is \[\d+, \d+, \d+\]"):
        plan(cases, patch=[9, 17, 16])
    with pytest.raises(InputError, match="needs 3 positive edges"):
        plan(cases, patch=[16, 16])
    with pytest.raises(InputError, match="three positive numbers"):
        plan(cases, spacing_mm=[1, 0, 1])
    with pytest.raises(InputError, match="2 or 3 dimensions"):
        plan(cases, dimensions=4)
    with pytest.raises(InputError, match="2D view only"):
        plan(cases, context=1)


def test_2d_images_refuse_a_3d_network(tmp_path):
    cases = [make_case(tmp_path, f"c{i}", shape=(1, 32, 32)) for i in range(2)]
    with pytest.raises(InputError, match="model=unet2d"):
        plan(cases)
    assert plan(cases, dimensions=2).view.patch == (32, 32)


def test_channels_must_agree(tmp_path):
    cases = [make_case(tmp_path, f"c{i}") for i in range(2)]
    double = replace(cases[1], images=cases[1].images * 2)
    with pytest.raises(InputError, match="case 'c1' has 2 channel.*, the training cases have 1"):
        plan([cases[0], double])


def test_voxels_far_below_a_micrometre_keep_their_size(tmp_path):
    cases = [make_case(tmp_path, name) for name in ("a", "b", "c")]
    for case in cases:
        for path in (*case.images, case.annotation.label):
            save_nifti(path, read_image(path)[0], np.diag([9.3e-7, 9.3e-7, 2e-6, 1]))
    assert plan(cases).spacing_mm == pytest.approx((2e-6, 9.3e-7, 9.3e-7), rel=1e-6)


def test_a_file_without_a_voxel_size_among_files_that_have_one_is_named(tmp_path):
    cases = [make_case(tmp_path, name) for name in ("a", "b", "c")]
    for path in (*cases[2].images, cases[2].annotation.label):
        save_nifti(path, read_image(path)[0], np.diag([1e-3, 1e-3, 1e-3, 1]))
    with pytest.raises(InputError, match="case 'c' has voxels of 0.001 x 0.001 x 0.001 mm"):
        plan(cases)
    assert plan(cases[:2]).spacing_mm == (1, 1, 1)


def test_through_json_and_back(tmp_path):
    made = plan([make_case(tmp_path, "c", shape=(8, 16, 16))], dimensions=2, context=2)
    assert plan_from_dict(json.loads(json.dumps(asdict(made)))) == made


def test_resampled_shape():
    assert resampled_shape((10, 20, 30), (2, 1, 0.5), (1, 1, 1)) == (20, 20, 15)
    assert resampled_shape((1, 4, 4), (1, 1, 1), (10, 1, 1)) == (1, 4, 4)


class TestMemory:
    @pytest.mark.parametrize(
        ("patch", "spacing_mm"),
        [
            ((40, 56, 40), (1, 1, 1)),
            ((128, 128, 128), (1, 1, 1)),
            ((16, 160, 160), (8, 1.5, 1.5)),
            ((160, 160), (1, 1)),
            ((512, 512), (1, 1)),
        ],
    )
    def test_the_estimate_is_what_a_network_keeps(self, patch, spacing_mm):
        import torch

        from segshift.networks import UNet
        from segshift.networks.summary import saved_bytes

        strides, kernels = topology(patch, spacing_mm)
        most = memory.MOST_FILTERS[len(patch)]
        filters = [min(memory.FILTERS * 2**i, most) for i in range(len(strides))]
        network = UNet(
            in_channels=1, out_channels=3, strides=strides, kernels=kernels, filters=filters
        )
        kept = saved_bytes(
            network, shape=(2, 1, *patch), precision="32-true",
            memory_format=torch.contiguous_format,
        )  # fmt: skip
        voxels = memory.feature_voxels(np.array(patch), np.array(spacing_mm), outputs=3)
        assert 1 / 1.3 < 2 * voxels * memory.BYTES / kept < 1.3

    def test_hand_counted(self):
        # Three stages of 8x8, 4x4, 2x2... : 16 is halved twice.
        voxels = memory.feature_voxels(np.array([16, 16]), np.array([1.0, 1.0]), outputs=3)
        assert voxels == 256 * 5 * 32 + 64 * 5 * 64 + 16 * 2 * 128 + 3 * 256

    def test_nnunets_patches(self):
        """BraTS-like (240x240x155 cropped) and Task01 in nnU-Net's 8 GB: 128x128x128, batch 2."""
        size = memory.fitting_memory(np.array([138, 170, 138]), np.ones(3), memory_gb=8, outputs=4)
        assert size.tolist() == [128, 128, 128]
        batch = memory.batch_for(size, np.ones(3), memory_gb=8, outputs=4, voxels=1e12)
        assert batch == 2

    @pytest.mark.parametrize(
        ("median", "spacing_mm", "together"),
        [((60, 300, 280), (3.0, 0.8, 0.8), 560e6 / 8), ((1500, 1100), (0.5, 0.5), 6 * 85e6 / 8)],
    )
    def test_more_memory_is_never_a_smaller_patch(self, median, spacing_mm, together):
        """And two of them fit: of the reference network in 8 GB 2 patches in 3D, 12 in 2D."""
        median, spacing_mm = np.array(median), np.array(spacing_mm)
        budgets = (0.5, 1, 2, 4, 8, 24, 80)
        sizes = [
            memory.fitting_memory(median, spacing_mm, memory_gb=gb, outputs=2) for gb in budgets
        ]
        patches = [padded(size, spacing_mm) for size in sizes]
        assert all(a.prod() <= b.prod() for a, b in pairwise(patches))
        assert patches[0].prod() < patches[-1].prod()
        for size, gb in zip(sizes, budgets, strict=True):
            assert memory.feature_voxels(size, spacing_mm, outputs=2) <= together * gb

    def test_batch_limits(self):
        patch, ones = np.array([32, 32, 32]), np.ones(3)
        few = memory.batch_for(patch, ones, memory_gb=8, outputs=2, voxels=32**3 * 100)
        assert few == 5  # 5 % of the voxels
        assert memory.batch_for(patch, ones, memory_gb=8, outputs=2, voxels=32**3) == 2

    def test_in_a_plan(self, tmp_path):
        cases = [make_case(tmp_path, f"c{i}", shape=(16, 32, 32)) for i in range(200)]
        made = plan(cases, batch=None, memory_gb=8, patch_voxels=1000)
        assert (made.view.patch, made.batch) == ((16, 32, 32), 10)
        assert plan(cases[:2], batch=None, memory_gb=8, patch=[8, 16, 16]).batch == 2
        assert plan(cases[:2], batch=7, memory_gb=8).batch == 7

    def test_wrong_budgets(self, tmp_path, monkeypatch):
        cases = [make_case(tmp_path, "c", shape=(16, 32, 32))]
        for wrong in (0, -1, "much", True, float("nan")):
            with pytest.raises(InputError, match="memory_gb="):
                plan(cases, memory_gb=wrong)
        with pytest.raises(InputError, match="not even a patch"):
            plan(cases, memory_gb=1e-6)

    @pytest.fixture
    def two_gpus(self, tmp_path, monkeypatch):
        """Of 24 and 8 GB, for a torch that would use them."""
        fake = tmp_path / "bin" / "nvidia-smi"
        fake.parent.mkdir()
        fake.write_text(
            "#!/bin/sh\nfor last; do :; done\n[ $last != --id=1 ] && echo 24576\necho 8192\n"
        )
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}:/bin:/usr/bin")
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(memory.metadata, "version", lambda _: "2.9.0")

    @pytest.mark.usefixtures("two_gpus")
    def test_the_devices_memory_is_that_of_the_gpu_that_is_trained_on(self, monkeypatch):
        assert memory.checked_memory_gb("device", on_gpu=True) == 24
        assert memory.checked_memory_gb("device", on_gpu=False) is None
        for visible, expected in (("1", 8), ("0,1", 24), ("", None), ("-1", None)):
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
            assert memory.checked_memory_gb("device", on_gpu=True) == expected
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        monkeypatch.setattr(memory.metadata, "version", lambda _: "2.9.0+cpu")
        assert memory.checked_memory_gb("device", on_gpu=True) is None

    def test_without_a_gpu_the_voxels_decide(self, tmp_path, monkeypatch):
        cases = [make_case(tmp_path, f"c{i}", shape=(16, 32, 32)) for i in range(3)]
        monkeypatch.setenv("PATH", "")
        options = {"batch": None, "patch_voxels": 4096, "on_gpu": True}
        assert plan(cases, memory_gb="device", **options) == plan(cases, **options)

    @pytest.mark.usefixtures("two_gpus")
    def test_a_run_on_the_cpu_never_asks_for_the_gpus_memory(self, boxes):
        from conftest import composed

        from segshift import build

        def patch(*options):
            config = composed(
                "data=manifest", f"data.manifest={boxes}", "split=kfold", "plan.patch_voxels=512",
                *options,
            )  # fmt: skip
            return build.experiment(config).plan.view.patch

        assert patch("trainer.accelerator=auto") == patch("trainer.accelerator=gpu") == (8, 16, 16)
        assert np.prod(patch("trainer.accelerator=cpu")) <= 512
        assert np.prod(patch("plan.memory_gb=null")) <= 512


def padded_case(folder, name, *, air, **options):
    """A case of `make_case` with `air` zeros before and behind each axis, and the case itself."""
    case = make_case(folder / "whole", name, **options)
    volume = load_case(case)
    label = np.array([0, 5, 9], np.uint8)[volume.label]
    image = save_nifti(folder / f"{name}.nii.gz", np.pad(volume.image[0], air))
    return replace(
        reannotated(case, label=save_nifti(folder / f"{name}-l.nii.gz", np.pad(label, air))),
        images=(image,),
    ), case


class TestCropping:
    @settings(max_examples=40, deadline=None)
    @given(st.data())
    def test_the_box_is_the_smallest_around_all_channels(self, data):
        shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
        places = data.draw(st.lists(st.tuples(*[st.integers(0, n - 1) for n in shape]), min_size=1))
        image = np.zeros((2, *shape), np.float32)
        for number, place in enumerate(places):
            image[number % 2, *place] = -1
        box = crop_box(image, crop="nonzero")
        found = np.array(places)
        assert [low for low, _ in box] == found.min(0).tolist()
        assert [high - 1 for _, high in box] == found.max(0).tolist()
        assert box_shape(box) == tuple(high - low for low, high in box)
        assert crop_box(image, crop="none") == tuple((0, n) for n in shape)

    def test_of_nothing_but_zeros_all_is_kept(self):
        assert crop_box(np.zeros((1, 2, 3, 4)), crop="nonzero") == ((0, 2), (0, 3), (0, 4))

    def test_air_around_the_body_changes_nothing_of_a_plan(self, tmp_path):
        air = ((3, 1), (7, 20), (0, 9))
        pairs = [
            padded_case(tmp_path, f"c{i}", air=air, shape=(12, 20 + 4 * i, 30)) for i in range(3)
        ]
        in_air, alone = zip(*pairs, strict=True)
        made, expected = plan(in_air, memory_gb=8, batch=None), plan(alone, memory_gb=8, batch=None)
        assert expected.normalisation == (Normalisation("zscore"),)
        assert made == replace(expected, normalisation=(Normalisation("zscore", nonzero=True),))
        assert plan(in_air, crop="none").view.patch != made.view.patch
        assert not plan(in_air, crop="none").normalisation[0].nonzero

    def test_the_coarse_axis_is_found_after_cropping_too(self, tmp_path):
        """One axis counts as coarse if it has few slices, and air is no slice."""
        cases = []
        for i, thick in enumerate((10, 10, 10, 4)):
            image = np.zeros((50, 40, 40), np.float32)
            image[20:25] = 1
            affine = np.diag([1.0, 1, thick, 1])
            paths = [
                save_nifti(tmp_path / f"{kind}{i}.nii.gz", array, affine)
                for kind, array in (("image", image), ("label", image.astype(np.uint8) * 5))
            ]
            case = make_case(tmp_path, f"c{i}")
            cases.append(replace(reannotated(case, label=paths[1]), images=(paths[0],)))
        assert plan(cases).spacing_mm == pytest.approx((np.percentile([10, 10, 10, 4], 10), 1, 1))
        assert plan(cases, crop="none").spacing_mm == (10, 1, 1)

    def test_zscore_looks_at_the_body_where_cropping_leaves_less_than_three_quarters(
        self, tmp_path
    ):
        def kept(*slices, **options):
            """Plan of cases of 8 slices, of which so many are not empty."""
            cases = [
                padded_case(tmp_path, f"{n}-{i}", air=((8 - n, 0), (0, 0), (0, 0)), shape=(n, 9, 9))
                for i, n in enumerate(slices)
            ]
            return plan([case for case, _ in cases], **options).normalisation[0].nonzero

        assert not kept(6, 6, 6)  # three quarters
        assert kept(5, 5, 8)  # the median
        assert not kept(5, 8, 8)
        assert not kept(5, 5, 5, normalisation="clip_global")
        assert not kept(5, 5, 5, normalisation="rgb")
        assert not kept(5, 5, 5, crop="none")

    def test_a_structure_outside_the_box_has_no_share(self, tmp_path):
        case, alone = padded_case(tmp_path, "c", air=((2, 2), (2, 2), (2, 2)))
        label = np.array([0, 5, 9], np.uint8)[load(case)]
        label[0] = 9
        save_nifti(case.annotation.label, label)
        assert plan([case]).structure_frequency == plan([alone]).structure_frequency

    def test_it_is_asked_for_by_name(self, tmp_path):
        with pytest.raises(InputError, match="plan.crop=body: known are nonzero, none"):
            plan([make_case(tmp_path, "c")], crop="body")

    def test_an_unreadable_image_is_named(self, tmp_path):
        case = make_case(tmp_path, "c")
        case.images[0].write_bytes(case.images[0].read_bytes()[:500])
        with pytest.raises(InputError, match="case 'c'"):
            plan([case])


class TestNormalisation:
    def test_outside_the_body_a_zscore_is_zero(self):
        random = np.random.default_rng(0)
        image = random.normal(400, 90, (2, 6, 7, 8)).astype(np.float32)
        inside = random.random((6, 7, 8)) < 0.4
        rules = (Normalisation("zscore", nonzero=True), Normalisation("zscore"))
        result = normalised(image, rules, inside=inside)
        chosen = image[0][inside].astype(np.float64)
        expected = np.zeros((6, 7, 8))
        expected[inside] = (chosen - chosen.mean()) / chosen.std()
        np.testing.assert_allclose(result[0], expected, atol=1e-5)
        np.testing.assert_array_equal(result[1], normalised(image)[1])
        with warnings.catch_warnings(action="error"):
            assert not normalised(image * 0, rules, inside=inside & False).any()

    def test_zscore_is_to_the_bit_what_it_was(self):
        random = np.random.default_rng(0)
        for shape in ((1, 7, 33, 29), (3, 40, 41, 5), (2, 1, 64, 64)):
            image = random.normal(400, 90, shape).astype(np.float32)
            mean = image.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
            deviation = image.std(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
            before = np.asarray((image - mean) / np.maximum(deviation, 1e-8), dtype=np.float32)
            np.testing.assert_array_equal(normalised(image), before)

    def test_hand_computed(self):
        image = np.array([[[[-2000.0, 0, 50]]], [[[0, 51, 255]]]], np.float32)
        rules = (Normalisation("clip_global", -100, 40, -10, 50), Normalisation("rgb"))
        expected = [[[[-1.8, 0.2, 1]]], [[[0, 0.2, 1]]]]
        np.testing.assert_allclose(normalised(image, rules), expected, rtol=1e-6)

    def test_mr_and_the_unknown_get_zscore(self, tmp_path):
        cases = [make_case(tmp_path, "c")]
        for tags in ({}, {"modality": "MR"}, {"modality": "T1"}):
            tagged = [replace(case, tags=tags) for case in cases]
            assert plan(tagged).normalisation == (Normalisation("zscore"),)

    def test_ct_is_clipped_to_its_structures(self, tmp_path):
        cases = [replace(make_case(tmp_path, f"c{i}"), tags={"modality": "CT"}) for i in range(3)]
        (rule,) = plan(cases).normalisation
        volumes = [load_case(case) for case in cases]
        inside = np.concatenate([v.image[0][v.label > 0] for v in volumes])
        assert (rule.low, rule.high) == pytest.approx(tuple(np.percentile(inside, [0.5, 99.5])))
        assert (rule.mean, rule.sd) == pytest.approx((inside.mean(), inside.std()))

    def test_ct_is_known_by_its_air(self, tmp_path):
        cases = [make_case(tmp_path, f"c{i}") for i in range(2)]
        image = np.full((8, 16, 16), -1000, np.int16)
        image[:, 4:9, 4:9] = 40
        for case in cases:
            save_nifti(case.images[0], image)
        assert plan(cases).normalisation[0].scheme == "clip_global"
        save_nifti(cases[1].images[0], image + np.float32(0.5))
        assert plan(cases).normalisation[0].scheme == "zscore"

    def test_by_name_and_by_choice(self, tmp_path):
        cases = [make_case(tmp_path, "c")]
        cases = [replace(cases[0], images=cases[0].images * 3)]
        schemes = [r.scheme for r in plan(cases, channel_names=["CT", "pet", "red"]).normalisation]
        assert schemes == ["clip_global", "zscore", "rgb"]
        assert {r.scheme for r in plan(cases, channel_names=["rgb"]).normalisation} == {"rgb"}
        wanted = ["zscore", "zscore", "rgb"]
        assert [r.scheme for r in plan(cases, normalisation=wanted).normalisation] == wanted
        told = [replace(cases[0], tags={"modality": "ct;pt;mr"})]
        assert [r.scheme for r in plan(told).normalisation][1:] == ["zscore", "zscore"]

    def test_refusals(self, tmp_path):
        cases = [make_case(tmp_path, f"c{i}") for i in range(2)]
        mixed = [
            replace(cases[0], tags={"modality": "CT"}),
            replace(cases[1], tags={"modality": "MR"}),
        ]
        with pytest.raises(InputError, match="'c0' asks for .*'c1' for"):
            plan(mixed)
        assert plan(mixed, normalisation="zscore").normalisation[0].scheme == "zscore"
        with pytest.raises(InputError, match="one of zscore, clip_global, rgb"):
            plan(cases, normalisation="minmax")
        with pytest.raises(InputError, match=r"1 channel\(s\)"):
            plan(cases, normalisation=["zscore", "rgb"])
        two = [replace(cases[0], tags={"modality": "ct;pt"})]
        with pytest.raises(InputError, match="'c0' has the modalities"):
            plan(two)

    def test_through_json(self, tmp_path):
        made = plan([make_case(tmp_path, "c")], normalisation="clip_global")
        values = json.loads(json.dumps(asdict(made)))
        assert plan_from_dict(values) == made
        del values["normalisation"], values["crop"]  # a plan of an earlier version
        assert plan_from_dict(values).normalisation == ()
        assert plan_from_dict(values).crop == "none"


def test_ignored_voxels_and_structures_that_are_not_annotated(tmp_path):
    cases = [make_case(tmp_path, f"c{i}", shape=(8, 16, 16)) for i in range(2)]
    ignoring = [reannotated(cases[0], values=(5, None), ignore_values=(9,)), cases[1]]
    labels = [load(case) for case in ignoring]
    decided = [int((label != 255).sum()) for label in labels]
    assert decided[0] < labels[0].size
    core = (labels[1] == 2).sum() / decided[1]  # only where it is annotated
    box = sum((label == 1).sum() for label in labels) / sum(decided)
    background = sum((label == 0).sum() for label in labels) / sum(decided)
    expected = np.array([background, box, core])
    got = plan(ignoring).structure_frequency
    np.testing.assert_allclose(got, expected / expected.sum())


@pytest.mark.real_data
def test_hippocampus_gets_nnunets_plan():
    from segshift.cohort.importers import import_msd

    imported = import_msd(REAL_DATA / "hippocampus")
    cases, structures = imported.cases, imported.structures
    made = plan(cases, structures=structures)
    assert made.view.patch == (40, 56, 40)
    assert len(made.strides) == 4
    # nnU-Net's batch is 9 for the 260 cases of the whole set, 5 % of whose voxels it may hold.
    in_8_gb = plan(cases, structures=structures, batch=None, memory_gb=8)
    assert (in_8_gb.view.patch, in_8_gb.batch) == ((40, 56, 40), 7)


@pytest.mark.real_data
def test_cardiac_keeps_the_plan_of_its_experiment():
    from segshift.cohort import read_manifest

    rules = {"right_ventricle": 1, "myocardium": 2, "cavity": 3}
    manifest = REAL_DATA / "cardiac" / "manifest.csv"
    cohort = read_manifest(manifest, structures=rules, sites=["dijon"])
    made = plan(
        cohort.cases, structures=tuple(rules), dimensions=2, batch=None, patch_voxels=409600
    )
    assert (made.view.patch, made.batch) == ((160, 160), 16)
    assert made.normalisation == (Normalisation("zscore"),)
