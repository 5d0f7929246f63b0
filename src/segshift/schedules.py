"""Learning-rate schedules where torch's own has an edge that a short run falls over."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from segshift.errors import InputError


def one_cycle(
    optimizer: Optimizer, *, max_lr: float, epochs: int, steps_per_epoch: int, pct_start: float
) -> OneCycleLR:
    """One cycle (Smith and Topin 2018) over the whole run; `pct_start` of it warms up.

    Raises InputError unless `pct_start` lies between 0 and 1.
    """
    if not 0 < pct_start < 1:
        raise InputError(f"optim.schedule.pct_start={pct_start}: a number between 0 and 1")
    steps = epochs * steps_per_epoch
    if pct_start * steps == 1:  # OneCycleLR divides by the length of the warm-up less one step
        pct_start *= 1.01
    return OneCycleLR(optimizer, max_lr, total_steps=steps, pct_start=pct_start)
