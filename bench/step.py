"""One training step of the framework against the bare loop of the same network.

`python bench/step.py [steps] [override ...]` trains with everything a run has (memory-mapped
patches, augmentation, Lightning, logging, clipping) and, between any two of its steps, takes one
bare step (forward, loss, backward, optimiser) of a copy of the network on one batch that stays in
memory. Pairs are taken in turn, so a machine that drifts drifts for both. Prints the medians and
their ratio.
"""

import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path

import lightning as L
import torch
from hydra import compose, initialize_config_dir

from segshift import build, environment
from segshift.data import CohortDataModule
from segshift.data.store import store_cases
from segshift.module import SegmentationModule

WARM_UP = 3
AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# nnU-Net's plan and network for the hippocampus.
DEFAULTS = ["plan.batch=7", "plan.patch=[40,56,40]", "model.filters=[32,64,128,256]"]


class BareStep(L.Callback):
    """After every step of the framework, one bare step; both are timed."""

    def __init__(self, module: SegmentationModule, *, autocast: torch.dtype | None) -> None:
        self.network = copy.deepcopy(module.network).to(memory_format=module.memory_format)
        self.loss, self.module, self.autocast = module.loss, module, autocast
        self.framework: list[float] = []
        self.bare: list[float] = []
        self.batch: tuple[torch.Tensor, torch.Tensor] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.network.to(pl_module.device)
        self.optimizer = self.module.optimizer(self.network.parameters())
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        _wait(pl_module.device)
        self.framework.append(time.perf_counter() - self.start)
        if self.batch is None:
            image = batch["image"].contiguous(memory_format=self.module.memory_format)
            self.batch = image, batch["label"]
        start = time.perf_counter()
        self._step(pl_module.device)
        _wait(pl_module.device)
        self.bare.append(time.perf_counter() - start)
        self.start = time.perf_counter()

    def _step(self, device: torch.device) -> None:
        image, label = self.batch
        self.optimizer.zero_grad()
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            output = self.network(image)
            loss = self.module.task.loss(self.loss, output, {"label": label})
        loss.backward()
        self.optimizer.step()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(steps: int, overrides: list[str]) -> None:
    """Train for `steps` steps and print the two medians."""
    with initialize_config_dir(str(build.conf_folder()), version_base="1.3"):
        parts = build.experiment(compose("train", overrides=[*DEFAULTS, *overrides]))
    environment.keep_freed_memory()  # helps the bare loop as much
    config, plan = parts.config, parts.plan
    config.trainer.epochs, config.trainer.steps_per_epoch = 1, steps
    precision = environment.precision(config.trainer.precision, config.trainer.accelerator)
    module = build.module_of(config, plan, precision=precision)
    cases = store_cases(parts.split.train, plan, folder=Path(config.store), training=True)
    data = CohortDataModule(
        train=cases, val=[], tests={}, view=plan.view, batch=plan.batch, steps_per_epoch=steps,
        foreground_share=config.foreground_share, workers=config.trainer.workers, seed=config.seed,
    )  # fmt: skip
    bare = BareStep(module, autocast=AUTOCAST.get(precision))
    with tempfile.TemporaryDirectory() as folder:
        L.Trainer(
            accelerator=config.trainer.accelerator,
            devices=1,
            precision=precision,
            max_epochs=1,
            limit_val_batches=0,
            gradient_clip_val=config.trainer.gradient_clip,
            callbacks=[bare],
            logger=L.pytorch.loggers.CSVLogger(folder),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            log_every_n_steps=5,
        ).fit(module, datamodule=data)
    framework, floor = (statistics.median(t[WARM_UP:]) for t in (bare.framework, bare.bare))
    edges = "x".join(map(str, plan.view.patch))
    print(f"batch {plan.batch} of {edges}, {precision}, {steps - WARM_UP} pairs, medians:")
    print(f"framework {framework:.3f} s   bare {floor:.3f} s   ratio {framework / floor:.3f}")


if __name__ == "__main__":
    numbers = [int(a) for a in sys.argv[1:] if a.isdigit()]
    main(numbers[0] if numbers else 23, [a for a in sys.argv[1:] if "=" in a])
