"""What a study will take: steps, and time from its own finished jobs or from a few real steps."""

import contextlib
import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from segshift.results import DONE
from segshift.study.folder import State
from segshift.study.jobs import Job

MEASURED_STEPS = 2  # after one that warms up
START_S = 10.0  # a process with torch, MONAI and Lightning: 8 to 13 s on two cores
# Options that do not change what a step of training takes, or not much.
NOT_THE_NETWORK = ("split", "data", "store", "logger", "name", "shift", "train_patients")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the jobs that are still to do; `passes` are tests of a set as it is or through a shift.

    `source` says where the seconds are from, or why there are none.
    """

    jobs: int
    steps: int
    passes: int
    seconds: float | None
    source: str


def known_cost(
    left: Sequence[Job], jobs: Sequence[Job], states: Mapping[str, State], *, at_once: int
) -> Cost | None:
    """Of the jobs `left`, from those of `jobs` that are done; None if none is.

    A job takes, per step, what finished ones of its network took with all that they do, or else
    what all finished ones took. Jobs that run side by side slow each other down alike.
    """
    spent: dict[str, tuple[float, int]] = {}
    for job in jobs:
        if states[job.name].status == DONE:
            for key in (_network(job), ""):
                seconds, steps = spent.get(key, (0.0, 0))
                spent[key] = seconds + (states[job.name].seconds or 0), steps + job.steps
    if not spent:
        return None
    steps_s = {key: seconds / max(steps, 1) for key, (seconds, steps) in spent.items()}
    seconds = sum(job.steps * steps_s.get(_network(job), steps_s[""]) for job in left)
    side_by_side = max(min(at_once, len(left)), 1)
    return _cost(left, seconds / side_by_side, "as the finished jobs took")


def measured_cost(left: Sequence[Job]) -> Cost:
    """From real steps, on this machine, of each network among the jobs, and the jobs' starts.

    Imports torch. One after the other: jobs side by side share the machine that was measured.
    """
    step_s: dict[str, float] = {}
    for job in left:
        if _network(job) not in step_s:
            step_s[_network(job)] = measured_step_s(job.config)
    seconds = sum(START_S + job.steps * step_s[_network(job)] for job in left)
    return _cost(
        left,
        seconds,
        f"steps measured here, {START_S:g} s a job to start; preparing data, validation, tests, "
        "pages and attribution come on top",
    )


def unmeasured_cost(left: Sequence[Job]) -> Cost:
    """Of jobs that will run on machines that cannot be asked."""
    return _cost(left, None, "how long is known once a job has finished")


def _cost(left: Sequence[Job], seconds: float | None, source: str) -> Cost:
    steps, passes = sum(job.steps for job in left), sum(job.passes for job in left)
    return Cost(len(left), steps, passes, seconds, source)


def measured_step_s(config: Mapping[str, Any]) -> float:
    """Seconds of one step of training on a random batch: augmentation to optimiser."""
    import torch

    from segshift import build, environment
    from segshift.losses import Scheduled

    with contextlib.redirect_stdout(io.StringIO()):
        parts = build.experiment(OmegaConf.create(dict(config)))
        trainer = parts.config.trainer
        environment.check_devices(trainer.accelerator, trainer.devices)
        precision = environment.precision(trainer.precision, trainer.accelerator)
    cuda = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    module, plan = build.module_of(parts.config, parts.plan, precision=precision), parts.plan
    module.to(device)
    optimizer = module.optimizer(module.network.parameters())
    loss = module.loss.at(0.0) if isinstance(module.loss, Scheduled) else module.loss
    image = torch.randn(plan.batch, plan.in_channels, *plan.view.patch, device=device)
    label = torch.randint(
        len(plan.structures) + 1, (plan.batch, 1, *plan.view.patch), device=device
    )
    sample = torch.arange(plan.batch)

    def step() -> None:
        augmented, target = module.augment(image, label, sample)
        with torch.autocast(device.type, module.autocast, enabled=module.autocast is not None):
            output = module.network(augmented.contiguous(memory_format=module.memory_format))
            value = module.task.loss(loss, output, {"label": target})
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if cuda:
            torch.cuda.synchronize()

    step()
    start = time.perf_counter()
    for _ in range(MEASURED_STEPS):
        step()
    return (time.perf_counter() - start) / MEASURED_STEPS


def _network(job: Job) -> str:
    """A text that is the same for jobs whose steps take the same time."""
    kept = {key: value for key, value in job.config.items() if key not in NOT_THE_NETWORK}
    return json.dumps(_without_seeds(kept), sort_keys=True)


def _without_seeds(node: Any) -> Any:  # noqa: ANN401
    """Parts of a config have the run's seed as an option of their own."""
    if isinstance(node, Mapping):
        return {key: _without_seeds(value) for key, value in node.items() if key != "seed"}
    return node
