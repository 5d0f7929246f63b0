"""Cropped to what is not zero when it is stored, and put back when it is predicted."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from conftest import make_case, reannotated, save_nifti
from store_inputs import aged, plan_for, stored
from torch.utils.data import DataLoader

from segshift.callbacks import write_slice
from segshift.cohort.checks import load_case
from segshift.data import boxes
from segshift.data.cleaning import clean
from segshift.data.datamodule import CaseDataset
from segshift.data.resample import resampled_label
from segshift.data.store import store_cases, store_sets
from segshift.inference import PredictionOptions
from segshift.losses import IGNORE
from segshift.metrics import Dice
from segshift.module import SegmentationModule
from segshift.plan import Normalisation, View
from segshift.shifts import Identity
from segshift.splits import EvaluationSet
from segshift.tasks import Regions, Semantic

SHAPE = (20, 28, 32)
BODY = ((4, 16), (6, 18), (3, 27))
INSIDE = tuple(slice(low, high) for low, high in BODY)


class Noisy(Identity):
    """Adds noise everywhere."""

    def __call__(self, image, *, acquisition, random):
        return image + random.normal(size=image.shape).astype(np.float32)


@pytest.fixture
def case(tmp_path):
    """Zeros around a body with a hole in it and two bright structures."""
    random = np.random.default_rng(0)
    image, label = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    image[INSIDE] = random.normal(100, 10, image[INSIDE].shape)
    image[9, 16, 20] = 0
    label[6:12, 8:14, 8:16] = 5
    label[7:9, 9:11, 9:12] = 9
    image[label > 0] += 100
    drawn = save_nifti(tmp_path / "label.nii.gz", label)
    return replace(
        reannotated(make_case(tmp_path / "unused", "c"), label=drawn),
        images=(save_nifti(tmp_path / "image.nii.gz", image),),
    )


def redrawn(case, place, value):
    """Another value in the file of the label."""
    label = np.array([0, 5, 9], np.uint8)[load_case(case).label]
    label[place] = value
    save_nifti(case.annotation.label, label)


class TestStore:
    def test_an_entry_is_the_body_alone_and_its_reference_is_whole(self, case, tmp_path):
        (entry,) = stored([case], tmp_path / "s")
        volume = load_case(case)
        assert entry.box() == BODY
        np.testing.assert_array_equal(entry.label(), volume.label[INSIDE])
        np.testing.assert_array_equal(entry.reference(), volume.label)
        body = volume.image[0][INSIDE].astype(np.float64)  # the hole is filled: it counts
        expected = (body - body.mean()) / body.std()
        np.testing.assert_allclose(entry.image()[0], expected, atol=1e-5)
        structure, *place = entry.landmarks().T
        np.testing.assert_array_equal(entry.label()[tuple(place)], structure)
        (whole,) = stored([case], tmp_path / "s", crop="none")
        assert whole.box() == tuple((0, edge) for edge in SHAPE)
        assert whole.image().shape == (1, *SHAPE)

    def test_without_air_every_byte_is_as_without_cropping(self, tmp_path):
        case = make_case(tmp_path, "full")
        for interpolation in ("linear", "spline"):
            options = {"spacing_mm": (2, 0.7, 1), "interpolation": interpolation}
            (one,) = stored([case], tmp_path, **options)
            (other,) = stored([case], tmp_path, crop="none", **options)
            assert one.folder != other.folder
            for name in ("image.npy", "label.npy", "reference.npy", "landmarks.npy", "meta.json"):
                assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes()

    def test_on_another_grid_the_body_is_where_it_was(self, case, tmp_path):
        (entry,) = stored([case], tmp_path / "s", spacing_mm=(2, 0.5, 1))
        assert entry.image().shape == (1, 6, 24, 24)
        label = load_case(case).label[INSIDE]
        np.testing.assert_array_equal(entry.label(), resampled_label(label, (6, 24, 24)))

    def test_what_is_drawn_outside_the_body_is_not_trained_on_but_scored(self, case, tmp_path):
        redrawn(case, (0, 0, 0), 9)
        (entry,) = stored([case], tmp_path / "s")
        assert entry.box() == BODY
        assert entry.reference()[0, 0, 0] == 2
        assert (entry.label() == 2).sum() == (entry.reference() == 2).sum() - 1

    def test_the_air_between_two_bodies_stays_zero(self, case, tmp_path):
        image = load_case(case).image[0]
        image[:, 15:17] = 0
        save_nifti(case.images[0], image)
        (entry,) = stored([case], tmp_path / "s")
        inside = image[INSIDE] != 0
        assert not entry.image()[0][~inside].any()
        values = entry.image()[0][inside]
        np.testing.assert_allclose((values.mean(), values.std()), (0, 1), atol=1e-5)

    def test_an_image_of_zeros_is_stored_whole(self, case, tmp_path):
        save_nifti(case.images[0], np.zeros(SHAPE, np.float32))
        plan = replace(plan_for([case]), normalisation=(Normalisation("zscore", nonzero=True),))
        (entry,) = store_cases([case], plan, folder=tmp_path / "s", quiet=True)
        assert entry.image().shape == (1, *SHAPE)
        assert not entry.image().any()

    def test_noise_around_the_body_does_not_change_the_box(self, case, tmp_path):
        sets = [EvaluationSet("x", (case,), Noisy("noise", 1))]
        for plan in (plan_for([case]), replace(plan_for([case]), normalisation=())):
            entries = store_sets(sets, plan, folder=tmp_path / "s", quiet=True)
            assert entries[sets[0].key][0].shown().box == BODY
        whole = plan_for([case], crop="none")
        ((entry,),) = store_sets(sets, whole, folder=tmp_path / "s", quiet=True).values()
        assert np.unique(entry.shown().image).size > 0.9 * np.prod(SHAPE)  # in the air too

    def test_a_box_is_found_once(self, case, tmp_path, monkeypatch):
        aged(case)
        store, reads = tmp_path / "s", []
        monkeypatch.setattr(boxes, "read_box", lambda case: reads.append(case.id) or BODY)
        boxes.stored_box(case, store=store)
        assert not store.exists()
        reads.clear()
        store.mkdir()
        for _ in range(2):
            assert boxes.stored_box(case, store=store) == BODY
            plan_for([case], box_of=partial(boxes.stored_box, store=store))
        assert len(reads) == 1
        (record,) = (path for path in (store / "hashes").iterdir() if b"box" in path.read_bytes())
        for damage in ("", "{", "[]", '{"box": 1}', '{"box": [[0, 1]]}'):
            record.write_text(damage)
            assert boxes.stored_box(case, store=store) == BODY
        assert len(reads) == 6
        save_nifti(case.images[0], np.ones(SHAPE, np.float32))
        boxes.stored_box(case, store=store)
        assert len(reads) == 7
        clean(store)
        assert not list((store / "hashes").iterdir())


class Bright(torch.nn.Module):
    """Sees a structure where the image is more than a deviation above its mean."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def forward(self, image):
        bright = 10 * (image[:, image.shape[1] // 2, None] - 1)
        return bright if self.channels == 1 else torch.cat([-bright, bright], 1)


def module_for(task, view):
    return SegmentationModule(
        network=Bright(task.channels), task=task, loss=None, augment=None, optimizer=None,
        schedule=None, schedule_interval="step", view=view, prediction=PredictionOptions(),
        precision="32-true",
    )  # fmt: skip


SEMANTIC = Semantic(structures=["bright"], metrics=[Dice()])
REGIONS = Regions(structures=["bright"], regions={"all": ["bright"]}, metrics=[Dice()])


class TestPrediction:
    def item(self, case, folder, **options):
        """As a loader hands it out, which makes lists of tuples."""
        (entry,) = stored([case], folder, **options)
        return next(iter(DataLoader(CaseDataset([entry], counted=True), batch_size=None)))

    @pytest.mark.parametrize("view", [View((16, 16)), View((16, 16), 1), View((8, 16, 16))])
    @pytest.mark.parametrize("task", [SEMANTIC, REGIONS])
    def test_it_lies_where_the_structures_do(self, case, tmp_path, task, view):
        for one in (case, make_case(tmp_path, "full")):
            item = self.item(one, tmp_path / "s")
            prediction = module_for(task, view).predict(item).labels
            np.testing.assert_array_equal(prediction > 0, load_case(one).label > 0)

    def test_from_another_grid_too(self, case, tmp_path):
        item = self.item(case, tmp_path / "s", spacing_mm=(0.5, 0.5, 1))
        module = module_for(SEMANTIC, View((8, 16, 16)))
        label = load_case(case).label > 0
        assert Dice()(module.predict(item).labels > 0, label, (1, 1, 1)) > 0.95

    def test_what_was_cropped_off_is_background_and_a_miss_counts(self, case, tmp_path):
        redrawn(case, (slice(0, 4), slice(0, 6), slice(0, 20)), 9)  # as large as what is found
        item = self.item(case, tmp_path / "s")
        module = module_for(SEMANTIC, View((8, 16, 16)))
        prediction = module.predict(item).labels
        assert not prediction[:4].any()
        item["label"] = (item["label"] > 0).long()
        scores = module.task.scores(
            prediction, item["label"][0].numpy(), (1, 1, 1), annotated=[True]
        )
        (dice,) = (score.value for score in scores if score.metric == Dice.name)
        found = 6 * 6 * 8
        assert dice == pytest.approx(2 * found / (2 * found + 4 * 6 * 20))

    def test_its_picture_shows_the_image_in_its_place(self, case, tmp_path):
        item = self.item(case, tmp_path / "s") | {"annotated": [True]}
        prediction = module_for(SEMANTIC, View((8, 16, 16))).predict(item).labels
        write_slice(tmp_path / "c.npz", item, prediction, task=SEMANTIC)
        with np.load(tmp_path / "c.npz") as content:
            image, reference = content["image"], content["reference"]
            assert image.shape == reference.shape[1:] == SHAPE[1:]
            np.testing.assert_array_equal(content["prediction"], reference)
        body = np.zeros(SHAPE[1:], bool)
        body[INSIDE[1:]] = True
        body = body[::-1]
        assert image[~body].max() <= image[body].min() + 1e-5
        raw = load_case(case).image[0, 6]  # the first of the fullest slices
        assert np.corrcoef(image[body], raw[::-1][body])[0, 1] > 0.999
        assert image[reference[0]].min() > image[body & ~reference[0]].max()

    @pytest.mark.parametrize("where", ["elsewhere", "ignored", "unknown", "nowhere", "same"])
    def test_the_slice_in_which_most_is_wrong_is_kept_beside_it(self, where, case, tmp_path):
        item = self.item(case, tmp_path / "s") | {"annotated": [where != "unknown"]}
        label = item["label"][0].clamp(max=1)
        item["label"] = label[None]
        prediction = label.numpy().astype(np.uint8)
        fullest = int(label.sum((1, 2)).argmax())
        z = {"nowhere": None, "same": fullest}.get(where, 1)
        if z is not None:
            prediction[z] = 1 - prediction[z]
        if where == "ignored":
            label[1] = IGNORE
        write_slice(tmp_path / "c.npz", item, prediction, task=SEMANTIC)
        with np.load(tmp_path / "c.npz") as content:
            assert ("wrong_image" in content) == (where == "elsewhere")
            np.testing.assert_array_equal(content["reference"][0], label.numpy()[fullest, ::-1] > 0)
            if where == "elsewhere":
                found = content["wrong_prediction"][0]
                np.testing.assert_array_equal(found, prediction[1, ::-1] > 0)
                assert content["wrong_image"].shape == SHAPE[1:]

    def test_a_picture_of_what_was_cropped_off_is_dark(self, case, tmp_path):
        redrawn(case, (0, slice(None), slice(None)), 5)
        item = self.item(case, tmp_path / "s") | {"annotated": [True]}
        write_slice(tmp_path / "c.npz", item, np.zeros(SHAPE, np.uint8), task=SEMANTIC)
        with np.load(tmp_path / "c.npz") as content:
            assert content["reference"].all()
            assert len(np.unique(content["image"])) == 1
