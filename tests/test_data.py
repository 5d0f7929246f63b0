"""Store, patches and loaders: what goes in comes out, and every sample is its own."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_case
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import RandGaussianNoise
from torch.utils.data import DataLoader

from segshift.cohort.checks import load_case
from segshift.data import CohortDataModule
from segshift.data.datamodule import StepSampler
from segshift.data.patches import PatchDataset, cut
from segshift.data.store import normalised, resampled, resampled_label, store_cases
from segshift.errors import InputError
from segshift.inference import slabs
from segshift.plan import View, make_plan
from segshift.shifts import Identity


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    return [make_case(folder, f"c{i}", shape=(8, 16, 16 + i)) for i in range(5)]


def plan_for(cases, **options):
    defaults = {"dimensions": 3, "context": 0, "batch": 2, "patch_voxels": 10**6}
    return make_plan(cases, structures=("box", "core"), **defaults | options)


def stored(cases, folder, **options):
    return store_cases(cases, plan_for(cases, **options), Identity(), folder=folder, quiet=True)


class TestStore:
    def test_content(self, cases, tmp_path):
        case, entry = cases[0], stored(cases, tmp_path)[0]
        volume = load_case(case)
        np.testing.assert_allclose(entry.image().mean(), 0, atol=1e-5)
        np.testing.assert_allclose(entry.image().std(), 1, rtol=1e-5)
        np.testing.assert_allclose(
            np.corrcoef(entry.image().ravel(), volume.image.ravel())[0, 1], 1
        )
        np.testing.assert_array_equal(entry.label(), volume.label)
        np.testing.assert_array_equal(entry.reference(), volume.label)
        assert entry.spacing_mm() == (1, 1, 1)
        assert isinstance(entry.image(), np.memmap)

    def test_landmarks_lie_in_their_structure(self, cases, tmp_path):
        for entry in stored(cases, tmp_path):
            structure, *place = entry.landmarks().T
            np.testing.assert_array_equal(entry.label()[tuple(place)], structure)
            assert set(structure) == {1, 2}

    def test_an_entry_is_made_once_and_a_change_makes_another(self, cases, tmp_path):
        first = stored(cases[:1], tmp_path / "store")[0].folder
        made = first.stat().st_mtime_ns
        assert stored(cases[:1], tmp_path / "store")[0].folder == first
        assert first.stat().st_mtime_ns == made
        assert stored(cases[:1], tmp_path / "store", spacing_mm=(2, 1, 1))[0].folder != first
        other = make_case(tmp_path / "other", cases[0].id, seed=1)  # same id, other pixels
        assert stored([other], tmp_path / "store")[0].folder != first
        swapped = replace(cases[0], label_values=(9, 5))
        assert stored([swapped], tmp_path / "store")[0].folder != first

    def test_a_half_written_entry_is_not_read(self, cases, tmp_path, monkeypatch):
        monkeypatch.setattr(np, "save", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stored(cases[:1], tmp_path)
        monkeypatch.undo()
        assert stored(cases[:1], tmp_path)[0].image().shape == (1, 8, 16, 16)

    def test_resampling_keeps_places_and_ids(self):
        label = np.zeros((4, 6, 6), np.uint8)
        label[:, 1:5, 1:5], label[:, 2:4, 2:4] = 3, 200
        finer = resampled_label(label, (8, 12, 12))
        assert set(np.unique(finer)) == {0, 3, 200}  # never an id in between
        np.testing.assert_array_equal(finer[::2, ::2, ::2], label)
        ramp = np.arange(8, dtype=np.float32)[None, None, None].repeat(4, 2)
        np.testing.assert_allclose(resampled(ramp, (1, 4, 4))[0, 0, 0], [0.5, 2.5, 4.5, 6.5])

    def test_channels_are_normalised_apart_and_constants_survive(self):
        image = np.stack(
            [np.random.default_rng(0).normal(5, 3, (4, 4, 4)), np.full((4, 4, 4), 7.0)]
        )
        result = normalised(image.astype(np.float32))
        assert abs(result[0].std() - 1) < 1e-5
        np.testing.assert_array_equal(result[1], 0)

    def test_a_shift_gets_raw_intensities_and_its_own_entry(self, cases, tmp_path):
        seen = []

        class Doubled(Identity):
            def __call__(self, image, *, spacing_mm, random):
                seen.append((image.mean(), random.random()))
                return image**2

        plan = plan_for(cases)
        plain = stored(cases[:1], tmp_path)[0]
        for folder in (tmp_path, tmp_path / "again"):
            shifted = store_cases(cases[:1], plan, Doubled("square", 2), folder=folder, quiet=True)[
                0
            ]
        assert seen[0][0] == pytest.approx(load_case(cases[0]).image.mean())
        assert seen[0] == seen[1]  # the same case is corrupted alike
        assert shifted.folder != plain.folder
        np.testing.assert_array_equal(shifted.reference(), plain.reference())
        assert not np.allclose(shifted.image(), plain.image())

    def test_a_broken_case_is_named(self, cases, tmp_path):
        broken = make_case(tmp_path, "broken")
        plan = plan_for([*cases, broken])
        broken.images[0].write_bytes(broken.images[0].read_bytes()[:500])
        with pytest.raises(InputError, match="case 'broken'"):
            store_cases([*cases, broken], plan, Identity(), folder=tmp_path / "s", quiet=True)


class TestPatches:
    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_a_window_is_what_slicing_a_padded_array_gives(self, data):
        shape = data.draw(st.tuples(*[st.integers(1, 6)] * 3))
        window = data.draw(st.tuples(*[st.integers(1, 8)] * 3))
        start = [data.draw(st.integers(-w + 1, n - 1)) for w, n in zip(window, shape, strict=True)]
        array = np.random.default_rng(0).normal(size=(2, *shape))
        padded = np.pad(array, [(0, 0)] + [(8, 8)] * 3)
        where = tuple(slice(s + 8, s + 8 + w) for s, w in zip(start, window, strict=True))
        np.testing.assert_array_equal(
            cut(array, start, window, context=0), padded[(slice(None), *where)]
        )

    @pytest.mark.parametrize("z", range(5))
    def test_a_training_slab_is_an_inference_slab(self, z):
        """2.5D: the same channels in the same order, at the volume's ends too."""
        image = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
        patch = cut(image, (z, 0, 0), (1, 6, 7), context=2).reshape(-1, 6, 7)
        slab = slabs(torch.from_numpy(image), 2)[z].numpy()
        np.testing.assert_array_equal(patch, slab)
        assert slab.shape == (10, 6, 7)
        np.testing.assert_array_equal(slab[2], image[0, z])  # the centre of the first channel

    @pytest.mark.parametrize(
        ("view", "image", "label"),
        [
            (View((8, 12)), (1, 8, 12), (1, 8, 12)),
            (View((8, 12), 2), (5, 8, 12), (1, 8, 12)),
            (View((4, 8, 12)), (1, 4, 8, 12), (1, 4, 8, 12)),
            (View((16, 32, 32)), (1, 16, 32, 32), (1, 16, 32, 32)),  # larger than the case
        ],
    )
    def test_shapes(self, cases, tmp_path, view, image, label):
        for sample in range(8):
            item = PatchDataset(stored(cases, tmp_path), view, 0.5, 0)[sample]
            assert item["image"].shape == image
            assert item["image"].dtype == torch.float32
            assert item["label"].shape == label
            assert item["label"].dtype == torch.int64

    def test_image_and_label_stay_together(self, cases, tmp_path):
        """The phantom boxes are bright, so image and label must correlate in every patch."""
        dataset = PatchDataset(stored(cases, tmp_path), View((4, 8, 8)), 1.0, 0)
        for sample in range(20):
            item = dataset[sample]
            inside = item["label"][0] > 0
            if inside.any() and not inside.all():
                assert item["image"][0][inside].mean() > item["image"][0][~inside].mean() + 0.5

    def test_foreground_share(self, cases, tmp_path):
        entries = stored(cases, tmp_path)
        always = PatchDataset(entries, View((1, 1, 1)), 1.0, 0)
        assert all(always[s]["label"].item() > 0 for s in range(60))
        both = {always[s]["label"].item() for s in range(60)}
        assert both == {1, 2}  # structures are drawn, not voxels: the small one is seen as often
        never = PatchDataset(entries, View((1, 1, 1)), 0.0, 0)
        background = np.mean([never[s]["label"].item() == 0 for s in range(300)])
        expected = np.mean([(e.label() == 0).mean() for e in entries])
        assert abs(background - expected) < 0.1

    def test_every_pass_sees_every_case_once(self, cases, tmp_path):
        dataset = PatchDataset(stored(cases, tmp_path), View((4, 8, 8)), 0.3, 0)
        orders = [[dataset[p * 5 + i]["case"] for i in range(5)] for p in range(4)]
        assert all(sorted(o) == [c.id for c in cases] for o in orders)
        assert len(set(map(tuple, orders))) > 1


class TestStreams:
    def module(self, cases, folder, workers):
        entries = stored(cases, folder)
        return CohortDataModule(
            train=entries, val=entries[:2], tests={"in_domain": entries[2:]}, view=View((4, 8, 8)),
            batch=2, steps_per_epoch=6, foreground_share=0.3, workers=workers, seed=0,
        )  # fmt: skip

    def test_workers_and_epochs_differ_and_the_number_of_workers_does_not_matter(
        self, cases, tmp_path
    ):
        runs = []
        for workers in (0, 2):
            loader = self.module(cases, tmp_path, workers).train_dataloader()
            epochs = []
            for epoch in range(2):
                loader.sampler.set_epoch(epoch)
                epochs.append(torch.cat([batch["image"] for batch in loader]))
            runs.append(torch.cat(epochs))
        torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=0)
        patches = runs[0].flatten(1)
        assert len(torch.unique(patches, dim=0)) == len(patches) == 24

    def test_monai_transforms_under_torchs_loader_repeat_themselves(self):
        """Hard fact 1, the reason why no worker of ours has a stream."""

        class Noisy(torch.utils.data.Dataset):
            transform = RandGaussianNoise(prob=1.0)

            def __len__(self):
                return 4

            def __getitem__(self, index):
                return self.transform(torch.zeros(8))

        Noisy.transform.set_random_state(0)
        loader = DataLoader(Noisy(), batch_size=1, num_workers=2)
        first = torch.cat(list(loader))
        torch.testing.assert_close(first, torch.cat(list(loader)))  # every epoch the same
        torch.testing.assert_close(first[0], first[1])  # every worker the same

    def test_ranks_share_an_epoch_without_overlap(self):
        samplers = [StepSampler(samples_per_epoch=12, rank=r, ranks=3) for r in range(3)]
        for epoch in (0, 5):
            for sampler in samplers:
                sampler.set_epoch(epoch)
            seen = sorted(itertools.chain(*samplers))
            assert seen == list(range(12 * epoch, 12 * epoch + 12))
        assert [len(s) for s in samplers] == [4, 4, 4]

    def test_whole_cases(self, cases, tmp_path):
        module = self.module(cases, tmp_path, 0)
        items = list(module.test_dataloader()[0])
        assert [item["case"] for item in items] == ["c2", "c3", "c4"]
        assert items[1]["image"].shape == (1, 8, 16, 19)
        assert items[1]["label"].shape == (1, 8, 16, 19)
        assert items[1]["spacing"] == [1.0, 1.0, 1.0]
