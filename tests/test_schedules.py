"""The one-cycle schedule is torch's, but for any length of run."""

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from segshift.errors import InputError
from segshift.schedules import one_cycle


def rates(make, steps: int) -> list[float]:
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = make(optimizer)
    got = []
    for _ in range(steps):
        got.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return got


@pytest.mark.parametrize("pct_start", [0.1, 0.2, 0.25, 0.5])
@pytest.mark.parametrize("steps", range(1, 13))
def test_any_length(steps, pct_start):
    options = {"max_lr": 2e-3, "epochs": 1, "steps_per_epoch": steps, "pct_start": pct_start}
    got = rates(lambda optimizer: one_cycle(optimizer, **options), steps)
    assert all(0 < rate <= 2e-3 * (1 + 1e-6) for rate in got)
    assert got[-1] == min(got) or steps <= 2


def test_it_is_torchs_where_torchs_works():
    got = rates(
        lambda o: one_cycle(o, max_lr=2e-3, epochs=5, steps_per_epoch=50, pct_start=0.2), 250
    )
    torchs = rates(lambda o: OneCycleLR(o, 2e-3, epochs=5, steps_per_epoch=50, pct_start=0.2), 250)
    assert got == torchs
    assert max(got) == pytest.approx(2e-3)


def test_torch_falls_over_a_warm_up_of_one_step():
    """The reason for the function; when this fails, torch has mended it."""
    with pytest.raises(ZeroDivisionError):
        rates(lambda o: OneCycleLR(o, 2e-3, total_steps=5, pct_start=0.2), 5)


@pytest.mark.parametrize("pct_start", [0.0, 1.0, -1.0])
def test_wrong_shares(pct_start):
    with pytest.raises(InputError, match="between 0 and 1"):
        rates(lambda o: one_cycle(o, max_lr=1, epochs=1, steps_per_epoch=5, pct_start=pct_start), 5)
