"""Shared pieces: a tiny phantom, composed configs, and where the real data are."""

import json
import os
import resource
import signal
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import settings
from omegaconf import DictConfig

from segshift import build
from segshift.cohort import Annotation, Case, write_manifest

pytest_plugins = ["study_stub"]  # the fixtures of the tests of studies

# An example is slow where an import comes with it or the machine has other work to do.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).parents[1]
REAL_DATA = Path(os.environ.get("SEGSHIFT_DATA", ROOT.parent / "shared" / "data"))

# A run in a second: small volumes, a thin network, one step.
TINY_PHANTOM = (
    "data.cohort.shape=[16,32,32]",
    "data.cohort.spacing_mm=[12,10,12]",
    "data.cohort.sites.alpha.patients=6",
    "data.cohort.sites.beta.patients=3",
    "data.cohort.sites.gamma.patients=3",
    "data.cohort.sites.delta.patients=3",
)
TINY_TRAINING = (
    "model.filters=[4,8,8,8,8,8]",
    "trainer.epochs=1",
    "trainer.steps_per_epoch=1",
    "logger=none",
)
# What it takes beside TINY_TRAINING; a U-Net needs nothing.
TINY_MODELS = {
    "mednext": ("model.filters=4", "model.blocks=[1,1,1,1,1]"),
    "segresnet": ("model.filters=4", "model.blocks=[1,1,1]"),
    "swin_unetr": ("model.filters=12", "model.blocks=[1,1,1,1]", "model.window=2"),
}
# What only the user can give.
REQUIRED = {"sum": ("loss.terms=[dice,boundary]",)}
SPLIT_FILE = "split.json"  # in `boxes`' folder and in `workplace`
# The same for a split of the phantom, and of the boxes; {} is where SPLIT_FILE is.
SPLIT_REQUIRED = {
    "phantom": {
        "single_source": ("split.source=alpha",),
        "by_column": ("split.column=vendor", "split.values=southmr"),
        "prevalence": ("split.structure=liver", "split.prevalence=1.0"),
        "concept": ("split.labels=truth",),
        "from_file": (f"split.path={{}}/{SPLIT_FILE}",),
    },
    "boxes": {
        "leave_site_out": ("split.held_out=north",),
        "single_source": ("split.source=north",),
        "by_column": ("split.column=site", "split.values=north"),
        "prevalence": ("split.structure=box", "split.prevalence=1.0"),
        "concept": ("split.labels=again",),
        "from_file": (f"split.path={{}}/{SPLIT_FILE}",),
    },
}


def split_options(split: str, cohort: str, folder: Path) -> tuple[str, ...]:
    """Overrides for a split of `phantom` or `boxes`, whose SPLIT_FILE lies in the folder."""
    required = SPLIT_REQUIRED[cohort].get(split, ())
    return (f"split={split}", *(option.format(folder) for option in required))


def write_split(folder: Path, **sides: list[str]) -> None:
    (folder / SPLIT_FILE).write_text(json.dumps(sides))


def composed(*overrides: str, job: str = "train") -> DictConfig:
    with initialize_config_dir(str(build.conf_folder()), version_base="1.3"):
        return compose(job, overrides=list(overrides))


def cpu_seconds_of_children() -> float:
    """What all processes that ended so far have taken; it does not grow while they wait."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def pytest_configure() -> None:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("real_data") and not REAL_DATA.is_dir():
        pytest.skip(f"no real data at {REAL_DATA}; set SEGSHIFT_DATA")
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder shared by one worker's tests, for what is slow to make twice."""
    return tmp_path_factory.mktemp("workplace")


@pytest.fixture(scope="session")
def phantom(workplace: Path) -> tuple[str, ...]:
    """Overrides for a tiny phantom that is simulated once per worker."""
    alpha, beta = ([f"{site}-00{n}" for n in range(1, 7)] for site in ("alpha", "beta"))
    write_split(workplace, train=alpha[:4], val=alpha[4:5], in_domain=alpha[5:], far=beta[:3])
    return (
        *TINY_PHANTOM,
        f"data.cohort.folder={workplace / 'phantom'}",
        f"store={workplace / 'store'}",
    )


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """For runs whose page is not looked at: to draw it is more than half of a tiny run."""
    monkeypatch.setattr("segshift.folder.write_report", lambda *_, **__: None)


def save_nifti(
    path: Path, array: np.ndarray, affine: np.ndarray | None = None, **header: object
) -> Path:
    """Write a (z, y, x) array as NIfTI, whose axes are x, y, z."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array.T, np.eye(4) if affine is None else affine), path)
    return path


def make_case(folder: Path, name: str, *, site: str = "here", shape=(8, 16, 16), seed=0) -> Case:
    """A case with one bright box: structures `box` = 5 and `core` = 9 in the label file."""
    random = np.random.default_rng([seed, *name.encode()])
    image = random.normal(100, 10, shape).astype(np.float32)
    label = np.zeros(shape, np.uint8)
    z, y, x = (n // 4 for n in shape)
    label[z : 3 * z, y : 3 * y, x : 3 * x] = 5
    label[z + 1 : 2 * z + 1, y + 1 : 2 * y, x + 1 : 2 * x] = 9
    image[label > 0] += 100
    return Case(
        id=name,
        patient=name,
        site=site,
        images=(save_nifti(folder / "images" / f"{name}.nii.gz", image),),
        annotation=Annotation(save_nifti(folder / "labels" / f"{name}.nii.gz", label), (5, 9)),
    )


def reannotated(case: Case, **changes: object) -> Case:
    """The case with other fields of its annotation."""
    return replace(case, annotation=replace(case.annotation, **changes))


@pytest.fixture(scope="session")
def boxes(workplace: Path) -> Path:
    """A manifest of twelve box cases at two sites."""
    folder = workplace / "boxes"
    cases = [
        replace(
            make_case(folder, f"{site}-{i}", site=site),
            tags={"again": f"labels/{site}-{i}.nii.gz"},
        )
        for site in ("north", "south")
        for i in range(6)
    ]
    names = [case.id for case in cases]
    write_split(folder, train=names[:4], val=names[4:5], in_domain=names[5:6], far=names[6:])
    write_manifest(folder / "m.csv", cases, channels=["image"], structures=["box", "core"])
    return folder / "m.csv"
