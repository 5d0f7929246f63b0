"""No held-out case influences a run: with others in their place every tensor stays the same.

The others differ in every voxel of image and label, in shape and in spacing.
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY_TRAINING, composed, save_nifti

from segshift import build, run
from segshift.cohort import Annotation, Case, Cohort, read_manifest, write_manifest
from segshift.splits import Split, leave_site_out, selected

SITES = {"near": 7, "next": 7, "far": 4, "beyond": 4}
OUT = ["far", "beyond"]
OPTIONS = {"seed": 0, "held_out": OUT, "val_fraction": 0.15, "test_fraction": 0.25}
AWAY = (f"split.held_out=[{','.join(OUT)}]",)  # the split of most runs here
# What the rules take that have no default; concept reads the same labels again.
REQUIRED = {
    "single_source": ("split.source=near",),
    "by_column": ("split.column=site", f"split.values=[{','.join(OUT)}]"),
    "prevalence": (
        "split.structure=box", "split.prevalence=1.0",
        "split.volume_ml=0.16", "split.tolerance=0.9",
        *AWAY,
    ),
    "concept": ("split.labels=again",),
    "leave_site_out": AWAY,
}  # fmt: skip
RULES = sorted(path.stem for path in (ROOT / "conf" / "split").glob("*.yaml"))
LEARNED = ("/state_dict", "/optimizer_states")  # beside these there are the scores of choosing
NAMES = [f"{site}-{n}" for site, size in SITES.items() for n in range(size)]


def write_cohort(folder: Path, *, other: Collection[str] = ()) -> Path:
    """A manifest of boxes in noise, with other voxels, shape and spacing for the cases named."""
    cases = []
    for name in NAMES:
        random = np.random.default_rng([name in other, *name.encode()])
        shape = (7, 24, 20) if name in other else (6, 16, 16)
        image = random.normal(300 if name in other else 100, 10, shape).astype(np.float32)
        label = np.zeros(shape, np.uint8)
        z, y, x = random.integers(1, 3), *random.integers(2, 6, 2)
        label[z : z + 3, y : y + 8, x : x + 7] = 5
        label[z : z + 2, y + 2 : y + 5, x + 1 : x + 4] = 9
        if name in other:
            label = np.where(label == 5, 9, np.where(label == 9, 5, 0)).astype(np.uint8)
        image += 100.0 * (label > 0)
        if name not in other:  # unlabelled and as bright: what post-processing is there to remove
            image[:2, :3, :3] += 100
        affine = np.diag([*((0.7, 0.7, 3.1) if name in other else (1.0, 1.0, 2.0)), 1.0])
        files = [
            save_nifti(folder / f"{kind}-{name}.nii.gz", array, affine)
            for kind, array in (("image", image), ("label", label))
        ]
        site = name.split("-")[0]
        again = {"again": files[1].name}
        cases.append(Case(name, name, site, (files[0],), Annotation(files[1], (5, 9)), again))
    write_manifest(folder / "m.csv", cases, channels=["image"], structures=["box", "core"])
    return folder / "m.csv"


def trained(
    folder: Path,
    selection: str,
    *options: str,
    other: Collection[str] = (),
    report: bool = False,
) -> Path:
    manifest = write_cohort(folder / "cohort", other=other)
    config = composed(
        *TINY_TRAINING, "data=manifest", f"data.manifest={manifest}", f"store={folder / 'store'}",
        f"selection={selection}", "model=unet2d",
        "trainer.epochs=3", "trainer.steps_per_epoch=15", "plan.batch=2",
        "plan.normalisation=clip_global", "optim.optimizer.lr=0.01",
        "task.metrics=[{_target_: segshift.metrics.Dice}]", *(options or AWAY),
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # So few patients choose none, and then no case could have influenced the choice.
        patch.setattr("segshift.postprocessing.choosing.LEAST_PATIENTS", 2)
        if not report:
            patch.setattr("segshift.folder.write_report", lambda *_, **__: None)
        run.train(config, folder / "run", command="test", choices={})
    return folder / "run"


def tensors(content: Any, folder: Path, key: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor in a checkpoint of `folder`: weights, the optimiser's moments, scores."""
    if isinstance(content, torch.Tensor):
        yield key, content
    pairs = content.items() if isinstance(content, dict) else ()
    pairs = enumerate(content) if isinstance(content, list | tuple) else pairs
    for name, part in pairs:
        yield from tensors(part, folder, f"{key}/{str(name).removeprefix(str(folder))}")


def differing(one: Path, other: Path, checkpoint: str) -> list[str]:
    """The tensors that are not bit-identical."""
    first, second = (
        dict(tensors(torch.load(folder / "checkpoints" / checkpoint, weights_only=True), folder))
        for folder in (one, other)
    )
    assert first.keys() == second.keys()
    assert any("optimizer_states" in key for key in first)
    return [key for key in first if not torch.equal(first[key], second[key])]


@pytest.fixture(scope="module")
def split(tmp_path_factory) -> Split:
    cohort = read_manifest(write_cohort(tmp_path_factory.mktemp("cohort")))
    return leave_site_out(cohort, **OPTIONS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """The run that the others are held against."""
    return trained(tmp_path_factory.mktemp("plain"), "source_val", report=True)


def drawn(rule: str, folder: Path, *, other: Collection[str] = ()) -> tuple[Cohort, Split]:
    """The split of a rule from its YAML, and the cohort that it is made of."""
    options = REQUIRED.get(rule, ())
    if rule == "from_file":
        near, rest = NAMES[:7], NAMES[7:]
        folder.mkdir(parents=True)
        (folder / "split.json").write_text(
            json.dumps({"train": near[:5], "val": near[5:6], "in_domain": near[6:], "far": rest})
        )
        options = (f"split.path={folder / 'split.json'}",)
    manifest = write_cohort(folder / "cohort", other=other)
    config = composed("data=manifest", f"data.manifest={manifest}", f"split={rule}", *options)
    cohort = build.cohort_of(config)
    return cohort, build.split_of(build.resolved(config), cohort)


def judged(split: Split) -> set[str]:
    return {case.id for cases in split.tests.values() for case in cases}


@pytest.mark.parametrize("rule", RULES)
def test_other_held_out_cases_change_no_split(rule, tmp_path):
    """Of whom is learned and on whom is chosen; prevalence alone looks at labels, of in_domain."""
    cohort, one = drawn(rule, tmp_path / "one")
    out = judged(one)
    changed, other = drawn(rule, tmp_path / "other", other=out)
    assert [case.id for case in other.train] == [case.id for case in one.train]
    assert [case.id for case in other.val] == [case.id for case in one.val]
    files = [
        {case.id: case.annotation.label.read_bytes() for case in each.cases}
        for each in (cohort, changed)
    ]
    assert {name for name in files[0] if files[0][name] != files[1][name]} == out


def test_a_single_source_learns_nothing_of_its_fold_or_of_other_sites(tmp_path):
    options = (
        "split=single_source", "split.source=near", "split.folds=3",
        "trainer.epochs=1", "trainer.steps_per_epoch=4",
    )  # fmt: skip
    one = trained(tmp_path / "one", "source_val", *options)
    sides = json.loads((one / "split.json").read_text())
    known = {*sides["train"], *sides["val"]}
    assert len(known) == 4
    assert all(name.startswith("near-") for name in known)
    out = set(NAMES) - known
    assert {name for n, side in sides.items() if n not in ("train", "val") for name in side} == out
    other = trained(tmp_path / "other", "source_val", *options, other=out)
    for name in ("plan.json", "postprocessing.json", "split.json"):
        assert (one / name).read_text() == (other / name).read_text()
    for checkpoint in ("best.ckpt", "last.ckpt"):
        assert not differing(one, other, checkpoint)
    assert (one / "rows.csv").read_text() != (other / "rows.csv").read_text()


@pytest.mark.parametrize("selection", ["source_val", "leave_one_site_out"])
def test_other_held_out_cases_change_no_bit(selection, split, plain, tmp_path):
    out = judged(split)
    assert {case.site for case in split.tests["in_domain"]} == {"near", "next"}
    assert sum(name.startswith(tuple(OUT)) for name in out) == 8
    one = plain if selection == "source_val" else trained(tmp_path / "one", selection)
    other = trained(tmp_path / "other", selection, other=out)
    for name in ("plan.json", "postprocessing.json", "split.json"):
        assert (one / name).read_text() == (other / name).read_text()
    for checkpoint in ("best.ckpt", "last.ckpt"):
        assert not differing(one, other, checkpoint)
    assert '"rule"' in (plain / "postprocessing.json").read_text()  # there was one to choose
    # They did change: everything that is said of them is another.
    assert (one / "rows.csv").read_text() != (other / "rows.csv").read_text()


def test_an_oracle_may_choose_otherwise_but_learns_the_same(split, plain, tmp_path):
    out = {case.id for site in OUT for case in split.tests[f"site-{site}"]}
    one = trained(tmp_path / "one", "oracle")
    other = trained(tmp_path / "other", "oracle", other=out)
    for same in (other, plain):
        assert not [key for key in differing(one, same, "last.ckpt") if key.startswith(LEARNED)]
    assert (one / "plan.json").read_text() == (plain / "plan.json").read_text()
    chosen_on = {case.id for case in selected(split, rule="oracle", seed=0).val}
    assert chosen_on <= out
    content = torch.load(one / "checkpoints" / "best.ckpt", weights_only=True)
    assert set(content["segshift"]["patients"]["val"]) == chosen_on
    rows = (one / "rows.csv").read_text()
    assert not any(f",{name}," in rows for name in chosen_on)


def test_one_other_training_case_changes_the_weights_and_one_to_choose_on_the_choice(
    split, plain, tmp_path
):
    """So the tests above can fail."""
    learned = trained(tmp_path / "learned", "source_val", other={split.train[0].id})
    assert (learned / "plan.json").read_text() != (plain / "plan.json").read_text()
    assert differing(learned, plain, "last.ckpt")
    chosen = trained(tmp_path / "chosen", "source_val", other={case.id for case in split.val})
    assert differing(chosen, plain, "best.ckpt")
    assert not [key for key in differing(chosen, plain, "last.ckpt") if key.startswith(LEARNED)]


def test_the_rule_is_recorded(plain):
    assert json.loads((plain / "summary.json").read_text())["selection"] == "source_val"
    assert "source_val" in (plain / "report.html").read_text().split("config.yaml")[0]
    assert build.load(plain).config.selection == "source_val"
