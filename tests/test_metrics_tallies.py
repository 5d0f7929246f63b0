"""Tallies of probabilities: against torchmetrics and scikit-learn, additive, and by hand."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from segshift.errors import InputError
from segshift.metrics import ErrorDetection, Reliability


def drawn(voxels: int = 5000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of an overconfident model, float32, most near 0, and the truth."""
    random = np.random.default_rng(seed)
    logits = random.normal(-2, 3, voxels)
    truth = random.random(voxels) < 1 / (1 + np.exp(-0.5 * logits))
    return (1 / (1 + np.exp(-logits))).astype(np.float32), truth


def tally(*parts: tuple[np.ndarray, np.ndarray], bins: int = 15) -> Reliability:
    out = Reliability(bins)
    for part in parts:
        out.add(*part)
    return out


def detection(*parts: tuple[np.ndarray, np.ndarray]) -> ErrorDetection:
    out = ErrorDetection()
    for part in parts:
        out.add(*part)
    return out


@pytest.mark.parametrize("bins", [10, 15])
def test_calibration_agrees_with_torchmetrics_and_scikit_learn(bins: int) -> None:
    p, truth = drawn()
    ours = tally((p, truth), bins=bins)
    tensors = torch.from_numpy(p), torch.from_numpy(truth).int()
    theirs = binary_calibration_error(*tensors, n_bins=bins).item()
    assert ours.ece == pytest.approx(theirs, abs=1e-6)
    assert ours.brier == pytest.approx(brier_score_loss(truth, p), abs=1e-6)
    assert ours.nll == pytest.approx(log_loss(truth, p.astype(float)), abs=1e-6)
    assert ours.voxels == len(p)


def test_a_probability_of_one_is_in_the_last_bin_and_torchmetrics_gives_it_one_of_its_own() -> None:
    p, truth = np.array([1.0, 0.95, 0.95]), np.array([False, True, True])
    theirs = binary_calibration_error(torch.tensor(p), torch.tensor(truth).int(), n_bins=10)
    assert theirs.item() == pytest.approx((1.0 + 2 * 0.05) / 3)
    assert tally((p, truth), bins=10).ece == pytest.approx(abs(2.9 / 3 - 2 / 3))


def test_the_table_by_hand() -> None:
    table = tally((np.array([0.1, 0.3, 0.6, 0.8]), np.array([0, 1, 1, 1], bool)), bins=2).table()
    assert [tuple(line) for line in table] == [
        pytest.approx((0, 0.5, 2, 0.2, 0.5)),
        pytest.approx((0.5, 1, 2, 0.7, 1)),
    ]
    empty = tally(bins=3).table()[1]
    assert empty.voxels == 0
    assert math.isnan(empty.confidence)
    assert math.isnan(empty.accuracy)


def test_certainty_that_is_wrong_costs_much_and_not_everything() -> None:
    wrong = tally((np.array([0.0, 1.0]), np.array([True, False])))
    assert wrong.nll == pytest.approx(-math.log(1e-7))
    assert wrong.brier == wrong.ece == 1


def test_tallies_of_parts_add_up_and_stay_as_they_were() -> None:
    p, truth = drawn()
    parts = [(p[:700], truth[:700]), (p[700:].reshape(2, -1), truth[700:].reshape(2, -1))]
    one, other = tally(parts[0]), tally(parts[1])
    before = one.ece
    whole = tally((p, truth))
    for sum_ in (one.merged(other), tally(*parts)):
        for name in ("ece", "brier", "nll", "voxels"):
            assert getattr(sum_, name) == pytest.approx(getattr(whole, name))
    assert one.ece == before
    halves = detection(parts[0]).merged(detection(parts[1]))
    assert halves.auroc == detection((p, truth)).auroc
    assert halves.voxels == len(p)


def test_nothing_added_is_nan() -> None:
    nothing = tally((np.zeros((0, 3)), np.zeros((0, 3), bool)))
    assert all(math.isnan(getattr(nothing, name)) for name in ("ece", "brier", "nll"))
    assert math.isnan(detection((np.ones(4), np.ones(4, bool))).auroc)


def test_the_auroc_agrees_with_scikit_learn_up_to_a_step_whatever_the_magnitude() -> None:
    random = np.random.default_rng(1)
    wrong = random.random(20000) < 0.1
    uncertainty = np.exp(random.normal(-8, 4, wrong.size) + 2 * wrong)  # 1e-10 to 1e3
    ours = detection((uncertainty, wrong)).auroc
    assert ours == pytest.approx(roc_auc_score(wrong, uncertainty), abs=1e-4)
    stepped = np.round(random.random(5000) * 8) / 8  # ties, which are exact
    few = random.random(5000) < stepped
    tensors = torch.from_numpy(stepped), torch.from_numpy(few).int()
    assert detection((stepped, few)).auroc == pytest.approx(binary_auroc(*tensors).item(), abs=1e-6)


def test_uncertainty_that_knows_is_one_and_that_says_nothing_a_half() -> None:
    wrong = np.array([True, False, False, False])
    assert detection((np.array([0.9, 0.1, 0.0, -0.0]), wrong)).auroc == 1
    assert detection((np.full(4, 0.3), wrong)).auroc == 0.5


def test_what_is_no_probability_or_uncertainty_is_refused() -> None:
    yes = np.ones(2, bool)
    for value in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="0 to 1"):
            tally((np.array([0.5, value]), yes))
    for value in (-0.1, math.inf, math.nan):
        with pytest.raises(InputError, match="finite"):
            detection((np.array([0.5, value]), yes))
    for add in (Reliability().add, ErrorDetection().add):
        with pytest.raises(InputError, match=r"\(3,\)"):
            add(np.zeros(3), yes)
    with pytest.raises(InputError, match="15 and 10"):
        Reliability(15).merged(Reliability(10))
