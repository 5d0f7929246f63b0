"""Resampling, patches and loaders: every sample is its own, whoever reads it."""

import itertools
import os
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import make_case, save_nifti
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import RandGaussianNoise
from store_inputs import plan_for, stored
from torch.utils.data import DataLoader

from segshift.cohort.checks import load_case
from segshift.data import CohortDataModule, prefetch
from segshift.data.datamodule import StepSampler
from segshift.data.patches import PatchDataset, cut
from segshift.data.resample import resampled_image, splined
from segshift.data.sampling import case_order
from segshift.data.store import store_cases
from segshift.errors import InputError
from segshift.inference import slabs
from segshift.plan import View


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cases")
    return [make_case(folder, f"c{i}", shape=(8, 16, 16 + i)) for i in range(5)]


# What `generator(0, "order", turn).permutation(10)` gave when the results were recorded.
RECORDED_ORDER = [5, 4, 8, 3, 7, 0, 1, 6, 2, 9, 0, 3]


class TestSpline:
    def test_a_smooth_field_is_followed_better_than_by_lines(self):
        def field(shape):
            z, y, x = (np.pi * (np.arange(n) + 0.5) / n for n in shape)
            wave = np.cos(2 * z)[:, None, None] * np.cos(3 * y)[:, None] * np.cos(2 * x)
            return wave[None].astype(np.float32)

        coarse, fine = field((16, 16, 16)), field((32, 40, 24))
        error = [
            np.abs(resampled_image(
                coarse, (32, 40, 24), interpolation=kind, spacing_mm=(2, 2, 2), target_mm=(1, 1, 1)
            ) - fine).mean()
            for kind in ("linear", "spline")
        ]  # fmt: skip
        assert error[1] < error[0] / 5

    @pytest.mark.parametrize("axis", range(3))
    def test_a_coarse_axis_takes_the_nearest_slice(self, axis):
        image = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
        shape = [5, 6, 7]
        shape[axis] *= 2
        spacing = [1.0, 1.0, 1.0]
        spacing[axis] = 4.0
        target = [1.0, 1.0, 1.0]
        target[axis] = 2.0
        result = resampled_image(
            image, shape, interpolation="spline", spacing_mm=spacing, target_mm=target
        )
        np.testing.assert_allclose(result, image.repeat(2, axis + 1), atol=1e-5)
        shape = [10, 12, 14]  # in-plane it is a spline of each slice alone
        result = resampled_image(
            image, shape, interpolation="spline", spacing_mm=spacing, target_mm=target
        )
        one = np.moveaxis(image, axis + 1, 0)[2]
        flat = [n for a, n in enumerate(shape) if a != axis]
        alone = splined(one[:, None], (1, *flat), coarse_axis=None)[:, 0]
        np.testing.assert_allclose(np.moveaxis(result, axis + 1, 0)[4], alone, atol=1e-5)

    def test_it_is_an_entry_of_its_own_and_must_be_known(self, cases, tmp_path):
        plan = plan_for(cases, spacing_mm=(1, 0.5, 0.5))
        entries = [
            store_cases(
                cases[:1],
                replace(plan, interpolation=kind),
                folder=tmp_path,
                quiet=True,
            )[0]
            for kind in ("linear", "spline")
        ]
        assert entries[0].folder != entries[1].folder
        assert entries[0].image().shape == entries[1].image().shape == (1, 8, 32, 32)
        np.testing.assert_array_equal(entries[0].label(), entries[1].label())
        with pytest.raises(InputError, match="'cubic': known are linear, spline"):
            store_cases(
                cases[:1],
                replace(plan, interpolation="cubic"),
                folder=tmp_path,
                quiet=True,
            )


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

    def test_only_a_patchs_rows_are_asked_of_a_cold_file(self, tmp_path, monkeypatch):
        array = np.random.default_rng(0).normal(size=(2, 16, 32, 8)).astype(np.float32)
        np.save(tmp_path / "a.npy", array)
        mapped, asked = np.load(tmp_path / "a.npy", mmap_mode="r"), []
        monkeypatch.setattr(os, "posix_fadvise", lambda _, *where: asked.append(where[:2]))
        args = {"start": (3, 5, 2), "window": (4, 6, 4), "context": 0}
        np.testing.assert_array_equal(cut(mapped, **args), array[:, 3:7, 5:11, 2:6])
        assert not asked  # just written, so in memory
        monkeypatch.setattr(prefetch, "_in_memory", lambda *_: False)
        np.testing.assert_array_equal(cut(mapped, **args), array[:, 3:7, 5:11, 2:6])
        content = (tmp_path / "a.npy").read_bytes()
        rows = [np.frombuffer(content[begin : begin + size], np.float32) for begin, size in asked]
        np.testing.assert_array_equal(np.stack(rows), array[:, 3:7, 5:11].reshape(8, -1))

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


class TestBalance:
    @pytest.fixture
    def entries(self, tmp_path):
        """Eight cases at north, two at south; only one has a core, one has nothing."""
        cases = [
            make_case(tmp_path, f"b{i}", site="south" if i in (3, 7) else "north")
            for i in range(10)
        ]
        for i, case in enumerate(cases):
            label = np.asarray(load_case(case).label) * (i > 0)
            values = np.choose(label, [0, 5, 9 if i == 5 else 5]).astype(np.uint8)
            save_nifti(case.annotation.label, values)
        return stored(cases, tmp_path / "store")

    def drawn(self, entries, balance, samples):
        dataset = PatchDataset(entries, View((4, 8, 8)), 0.3, 7, balance)
        return [dataset[sample]["case"] for sample in samples]

    def test_sites_have_the_same_share_and_so_have_their_cases(self, entries):
        names = self.drawn(entries, "site", range(160))
        sites = {entry.case.id: entry.case.site for entry in entries}
        assert Counter(sites[name] for name in names) == {"north": 80, "south": 80}
        counts = Counter(names)
        assert {counts[n] for n in sites if sites[n] == "north"} == {10}
        assert {counts[n] for n in sites if sites[n] == "south"} == {40}
        for turn in range(0, 160, 2):
            assert {sites[n] for n in names[turn : turn + 2]} == {"north", "south"}

    def test_a_rare_structure_comes_as_often_as_a_frequent_one(self, entries):
        names = self.drawn(entries, "structure", range(270))
        counts = Counter(names)  # thirds: all ten cases, the nine with a box, the one with a core
        assert counts["b0"] == 9  # without any structure: its share of the first third
        assert counts["b5"] == 9 + 10 + 90
        assert {counts[f"b{i}"] for i in (1, 2, 3, 4, 6, 7, 8, 9)} == {9 + 10}

    @pytest.mark.parametrize("balance", ["none", "site", "structure"])
    def test_a_sample_is_the_same_whoever_asks(self, entries, balance):
        whole = self.drawn(entries, balance, range(24))
        shares = [self.drawn(entries, balance, range(rank, 24, 3)) for rank in range(3)]
        assert [shares[i % 3][i // 3] for i in range(24)] == whole
        assert whole != self.drawn(entries, balance, range(24, 48))
        runs = []
        for workers in (0, 2):
            module = CohortDataModule(
                train=entries, val=[], tests={}, view=View((4, 8, 8)), batch=2, steps_per_epoch=6,
                foreground_share=0.3, workers=workers, seed=7, balance=balance,
            )  # fmt: skip
            runs.append([name for batch in module.train_dataloader() for name in batch["case"]])
        assert runs[0] == runs[1] == whole[:12]

    def test_without_balance_the_order_is_that_of_recorded_runs(self, entries):
        order = case_order(entries, balance="none", seed=0)
        assert [order(sample) for sample in range(12)] == RECORDED_ORDER

    def test_an_unknown_balance_is_refused(self, entries):
        with pytest.raises(InputError, match="known are none, site, structure"):
            self.drawn(entries, "sites", [0])


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
