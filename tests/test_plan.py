"""The plan follows nnU-Net's published rules and reads training cases only."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from conftest import REAL_DATA, make_case, save_nifti

from segshift.cohort.importers import import_msd
from segshift.errors import InputError
from segshift.plan import make_plan, plan_from_dict, resampled_shape, topology


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


def test_a_tiny_patch_still_has_the_three_stages_that_dynunet_needs():
    strides, kernels = topology((4, 8, 8), (1, 1, 1))
    assert len(strides) == len(kernels) == 3


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


def test_a_held_out_case_changes_no_byte_of_the_plan(tmp_path):
    """The plan reads what it is given; `build.experiment` gives it the training cases alone."""
    from conftest import composed

    from segshift import build
    from segshift.cohort import write_manifest

    cases = [make_case(tmp_path, f"{s}-{i}", site=s) for s in ("a", "b") for i in range(6)]
    write_manifest(tmp_path / "m.csv", cases, channels=["image"], structures=["box", "core"])
    config = composed(
        "data=manifest", f"data.manifest={tmp_path / 'm.csv'}", "split=leave_site_out",
        "split.held_out=b",
    )  # fmt: skip
    before = json.dumps(asdict(build.experiment(config).plan))
    for case in cases:
        if case.site == "b":  # another size, spacing, intensity and label
            affine = np.diag([3.0, 2, 5, 1])
            save_nifti(case.images[0], np.full((20, 30, 40), 7.0, np.float32), affine)
            save_nifti(case.label, np.full((20, 30, 40), 9, np.uint8), affine)
    assert json.dumps(asdict(build.experiment(config).plan)) == before


def test_anisotropic_spacing_takes_the_tenth_percentile(tmp_path):
    cases = []
    for i, thick in enumerate((10, 10, 10, 4)):
        case = make_case(tmp_path, f"c{i}", shape=(5, 40, 40))
        image = np.zeros((5, 40, 40), np.float32)
        affine = np.diag([1.0, 1, thick, 1])
        save_nifti(case.images[0], image, affine)
        save_nifti(case.label, image.astype(np.uint8), affine)
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
    from segshift import plan as room

    trials = []
    sound = room.topology
    monkeypatch.setattr(room, "topology", lambda *a: trials.append(a) or sound(*a))
    patch = room._fitting(np.array(shape), np.ones(len(shape)), 131072)
    padded = room._padded(patch, np.ones(len(shape)))
    assert padded.prod() <= 131072
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


def test_through_json_and_back(tmp_path):
    made = plan([make_case(tmp_path, "c", shape=(8, 16, 16))], dimensions=2, context=2)
    assert plan_from_dict(json.loads(json.dumps(asdict(made)))) == made


def test_resampled_shape():
    assert resampled_shape((10, 20, 30), (2, 1, 0.5), (1, 1, 1)) == (20, 20, 15)
    assert resampled_shape((1, 4, 4), (1, 1, 1), (10, 1, 1)) == (1, 4, 4)


@pytest.mark.real_data
def test_hippocampus_gets_nnunets_plan():
    cases, _, structures = import_msd(REAL_DATA / "hippocampus")
    made = plan(cases, structures=structures)
    assert made.view.patch == (40, 56, 40)
    assert len(made.strides) == 4
