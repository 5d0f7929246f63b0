"""Prediction of whole cases against MONAI's sliding_window_inference with the same network.

`python bench/inference.py [model=unet3d] [checkpoint=RUN] [cases=4] [tile=1] [rounds=3]
[overlap=...] [monai_batch=4]` predicts test cases of a run, each side in a process of its own and
at its defaults: MONAI with overlap 0.25, constant weights and float32, and `monai_batch` windows
at once (it has no default); segshift with its options and precision=auto. Without a checkpoint, a
network of that `model` is trained first for 100 steps on the phantom. `tile=2` repeats each case
twice along every axis. Prints Markdown: seconds a case, and those of them that a core worked (the
best of the rounds, which are taken in turn), mean Dice of the masks on the plan's grid, and the
peak memory of the process.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
SIDES = ("monai", "segshift")
DEFAULTS = {
    "model": "unet3d",
    "checkpoint": "",
    "cases": "4",
    "tile": "1",
    "rounds": "3",
    "overlap": "",
    "monai_batch": "4",
}


def main(options: dict[str, str]) -> None:
    """Measure both sides, in turn, and print them."""
    with tempfile.TemporaryDirectory() as folder:
        if not options["checkpoint"]:
            options["checkpoint"] = _trained(options["model"], Path(folder) / "run")
        given = [f"{key}={value}" for key, value in options.items()]
        measured: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(int(options["rounds"])):
            for side in SIDES:
                done = subprocess.run(
                    [sys.executable, __file__, side, *given],
                    stdout=subprocess.PIPE, check=True, encoding="utf-8",
                )  # fmt: skip
                measured[side].append(json.loads(done.stdout.splitlines()[-1]))
    print("| side | s a case | CPU s a case | Dice | peak MB |\n|---|---|---|---|---|")
    best: dict[str, dict[str, float]] = {}
    for side, runs in measured.items():
        best[side] = {key: min(run[key] for run in runs) for key in ("seconds", "cpu_seconds")}
        best[side]["peak_mb"] = max(run["peak_mb"] for run in runs)
        wall, cpu, peak = best[side].values()
        print(f"| {side} | {wall:.3f} | {cpu:.3f} | {runs[0]['dice']:.4f} | {peak:.0f} |")
    wall, cpu, peak = (best["monai"][key] / best["segshift"][key] for key in best["monai"])
    print(f"\n{wall:.2f} times as fast, {cpu:.2f} in CPU time; {1 / peak:.2f} of the memory")


def measure(side: str, options: dict[str, str]) -> dict[str, float]:
    """Predict the cases after one to warm up."""
    import torch

    from segshift import build, environment
    from segshift.data.store import store_cases

    torch.set_grad_enabled(False)
    environment.keep_freed_memory()
    ours = side == "segshift"
    precision = environment.precision("auto", "cpu") if ours else "32-true"
    run = build.load(options["checkpoint"], precision=precision)
    module = run.module.eval()
    if options["overlap"]:
        module.prediction = replace(module.prediction, overlap=float(options["overlap"]))
    predict = module.predict if ours else _monai(module, at_once=int(options["monai_batch"]))
    split = build.instantiate(run.config.split)(build.cohort_of(run.config))
    cases = [case for cases in split.tests.values() for case in cases]
    some = cases[:: max(len(cases) // int(options["cases"]), 1)][: int(options["cases"])]
    seconds, cpu_seconds, dices = [], [], []
    entries = store_cases(some, run.plan, folder=Path(run.config.store), quiet=True)
    for turn, stored in enumerate([entries[0], *entries]):
        times = int(options["tile"])
        image = torch.from_numpy(stored.image().copy()).tile((1, times, times, times))
        label = torch.from_numpy(stored.label().copy()).tile((times,) * 3).numpy()
        shape = tuple(image.shape[1:])
        item = {"image": image, "shape": shape, "box": tuple((0, edge) for edge in shape)}
        start, cpu_start = time.perf_counter(), time.process_time()
        said = predict(item)
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
        labels = said.labels if ours else said
        scores = module.task.scores(
            labels, label, run.plan.spacing_mm, annotated=[True] * len(run.plan.structures)
        )
        if turn:
            dices += [score.value for score in scores if score.metric == "dice"]
    peak_kb = next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        if line.startswith("VmHWM")
    )
    mean = statistics.mean(value for value in dices if value == value)
    return {
        "seconds": statistics.mean(seconds[1:]),
        "cpu_seconds": statistics.mean(cpu_seconds[1:]),
        "dice": mean,
        "peak_mb": peak_kb / 1000,
    }


def _monai(module, *, at_once):
    """Labels (D, H, W) of an item, as one writes it with MONAI."""
    from monai.inferers import sliding_window_inference

    from segshift.inference import slabs

    def predict(item):
        image, view = item["image"], module.view
        windows = image[None] if view.dimensions == 3 else slabs(image, view.context)
        logits = sliding_window_inference(windows, view.patch, at_once, module.network)
        logits = logits[0] if view.dimensions == 3 else logits.transpose(0, 1)
        return module.task.decode(module.task.activation(logits[None])[0])

    return predict


def _trained(model: str, folder: Path) -> str:
    options = [f"model={model}", "logger=none", "trainer.epochs=1", "trainer.steps_per_epoch=100"]
    subprocess.run(
        [sys.executable, ROOT / "train.py", *options, f"hydra.run.dir={folder}"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return str(folder)


if __name__ == "__main__":
    chosen = DEFAULTS | dict(a.split("=", 1) for a in sys.argv[1:] if "=" in a)
    if sys.argv[1:] and sys.argv[1] in SIDES:
        print(json.dumps(measure(sys.argv[1], chosen)))
    else:
        main(chosen)
