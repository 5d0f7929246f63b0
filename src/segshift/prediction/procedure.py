"""Predict what is asked for, case by case: a broken one is told and skipped, a done one left alone.

Options of the command and names of files are checked before torch is imported, those of the
windows with the run that they change.
"""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from segshift import __version__, build, environment
from segshift.cohort import Case
from segshift.errors import InputError
from segshift.postprocessing import Rules, common_rules, postprocessed, read_rules
from segshift.prediction.inputs import (
    cases_of,
    check_apart,
    input_key,
    read_case_image,
    share_of,
)
from segshift.progress import tracked

if TYPE_CHECKING:
    import torch

    from segshift.prediction.members import Ensemble
    from segshift.prediction.outputs import Output

SOFTWARE = f"segshift {__version__}"
NOT_RESAMPLED = "no physical size: voxels were taken for those of the plan, not resampled"
PRECISIONS = ("auto", "32-true", "bf16-mixed", "16-mixed")


def predict(config: DictConfig) -> None:
    """Predict every case of `input` that is not yet in `output`.

    Raises InputError for wrong options, and at the end if a case failed, with a list.
    """
    config = build.resolved(config)
    _check(config)
    checkpoints = [build.checkpoint_file(path) for path in _listed(config.checkpoint)]
    cases, failed = cases_of(Path(config.input), without=Path(config.output))
    check_apart(cases, Path(config.output))
    cases = share_of(cases, config.shard)
    environment.check_devices(config.accelerator, 1)

    import torch

    from segshift.prediction.members import load_ensemble
    from segshift.prediction.outputs import DONE, FAILED

    precision = environment.precision(config.precision, config.accelerator)
    environment.keep_freed_memory()
    device = _device(config.accelerator)
    options = {name: config[name] for name in ("overlap", "budget_gb", "mirror", "window_batch")}
    ensemble = load_ensemble(checkpoints, options=options, precision=precision, device=device)
    rules = common_rules([*map(read_rules, checkpoints)]) if config.postprocess == "auto" else {}
    output = _output(config, ensemble)
    model = _model(ensemble, checkpoints, rules, precision)
    output.check_free(cases)
    with output.locked():
        done = output.start(model, overwrite=config.overwrite)
        left = [
            case
            for case in cases
            if config.overwrite or not output.is_done(case, done.get(case.id))
        ]
        output.begin({case.id for case in left})
    print(
        f"input:     {config.input}, {len(cases)} case(s), {len(cases) - len(left)} done before\n"
        f"model:     {len(checkpoints)} network(s), {len(ensemble)} member(s) with mirrors; "
        f"structures {', '.join(output.structures)}"
    )
    if ensemble.unlearned:
        print(
            f"note:      mirrored along {list(ensemble.unlearned)}, but no image was in training "
            "(augment.mirror_axes); masks are likely worse than without mirror"
        )
    others = [c for c in left if c.id in done and _is_another(done[c.id].get("input"), c)]
    if others:
        print(f"again:     {len(others)} case(s), whose images are not those that were predicted")
        for case in others:
            output.forget(done[case.id])
    unexpected: Exception | None = None
    unsized = 0
    with torch.inference_mode():
        for case in tracked(left, "predicting", total=len(left)):
            start, key = time.monotonic(), input_key(case)
            try:
                values = _predict_case(case, ensemble, output, rules, precision)
            except Exception as error:
                if not isinstance(error, InputError | OSError) and not _is_out_of_memory(error):
                    unexpected = unexpected or error
                failed[case.id] = _told(case, error)
                if case.id in done:
                    output.forget(done[case.id])
                output.forget_failed(case)
                output.add({"case": case.id, "status": FAILED, "message": failed[case.id]})
                print(f"failed:    {failed[case.id]}")
                continue
            seconds = f"{time.monotonic() - start:.2f}"
            files = {"masks": output.mask_names(case), "input": key}
            output.add({"case": case.id, "status": DONE, "seconds": seconds, **files, **values})
            unsized += values.get("message") == NOT_RESAMPLED
    if unsized:
        print(f"note:      {unsized} case(s) have {NOT_RESAMPLED}")
    print(f"output:    {output.folder}, {output.table}")
    if unexpected:
        raise unexpected  # a fault of the program: the other cases are there all the same
    if failed:
        told = "\n".join(f"  {name}: {message}" for name, message in failed.items())
        raise InputError(f"{len(failed)} case(s) were not predicted:\n{told}")


def _is_another(predicted: str | None, case: Case) -> bool:
    """Whether a case's images are known not to be those that a line's key tells of."""
    key = input_key(case)
    return bool(predicted and key) and predicted != key


def _is_out_of_memory(error: Exception) -> bool:
    """Also what torch raises on a CPU, which has no type of its own."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _told(case: Case, error: Exception) -> str:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    if _is_out_of_memory(error):
        return f"case {case.id!r}: out of memory; lower budget_gb, or free some ({reason})"
    if isinstance(error, InputError):
        return str(error)
    return f"case {case.id!r}: {type(error).__name__}: {reason}"


def _predict_case(
    case: Case,
    ensemble: "Ensemble",
    output: "Output",
    rules: Rules,
    precision: str,
) -> dict[str, str]:
    """Read, predict and write one case; its columns of the table."""
    from segshift.prediction.case import predicted_case
    from segshift.prediction.drafts import drafts
    from segshift.prediction.members import streams_of
    from segshift.prediction.outputs import measured

    image, spacing_mm = read_case_image(case, ensemble.plan)
    task = ensemble.task
    shape = image.shape[1:]
    with drafts(output.folder, shape, output.kinds) as maps:
        streams = streams_of(
            ensemble,
            image,
            spacing_mm,
            doubts="disagreement" in output.kinds,
            autocast=_autocast(precision),
        )
        del image  # what is prepared of it goes with the streams
        scales = [stream.scaled for stream in streams]
        found = predicted_case(streams, task, drafts=maps)
        del streams
        labels = postprocessed(
            found.labels,
            rules,
            spacing_mm,
            structures=output.structures,
            exclusive=output.exclusive,
        )
        output.save(case, labels, task=task, drafts=maps, software=SOFTWARE)
    unsized = spacing_mm is None and any(group.plan.spacing_known for group in ensemble.groups)
    values = measured(
        labels,
        task,
        spacing_mm=spacing_mm,
        entropy=found.entropy,
        predicted_dice=found.predicted_dice,
    )
    # No columns where pixels count as they are.
    for columns, scaled in zip(output.scale_columns(), scales, strict=False):
        values |= dict(zip(columns, scaled.written(), strict=True))
    return {**values, "message": NOT_RESAMPLED} if unsized else values


def _check(config: DictConfig) -> None:
    for name in ("input", "output"):
        if OmegaConf.is_missing(config, name) or not isinstance(config[name], str):
            raise InputError(f"{name} is required, a path: add {name}=... to the command")
    for name in ("probabilities", "uncertainty", "overwrite"):
        if type(config[name]) is not bool:
            raise InputError(f"{name}={config[name]}: true or false")
    if Path(config.output).exists() and not Path(config.output).is_dir():
        raise InputError(f"output={config.output} is a file; name a folder")
    if config.postprocess not in ("auto", "none"):
        raise InputError(f"postprocess={config.postprocess}: auto or none")
    if config.precision not in PRECISIONS:
        raise InputError(f"precision={config.precision}: known are {', '.join(PRECISIONS)}")
    environment.check_accelerator(config.accelerator)


def _listed(checkpoint: Any) -> list[str]:  # noqa: ANN401
    listed = list(checkpoint) if isinstance(checkpoint, ListConfig) else [checkpoint]
    if not listed or not all(isinstance(path, str) for path in listed):
        raise InputError(f"checkpoint={checkpoint}: a run's folder or .ckpt file, or [A,B,...]")
    return [str(path) for path in listed]


def _output(config: DictConfig, ensemble: "Ensemble") -> "Output":
    from segshift.prediction.case import is_exclusive
    from segshift.prediction.outputs import Output

    structures = tuple(ensemble.task.structures)
    kinds = {"probability": len(structures)} if config.probabilities else {}
    if config.uncertainty:
        kinds |= {"entropy": 1} | ({"disagreement": 1} if len(ensemble) > 1 else {})
    name = f"-{str(config.shard).replace('/', '-of-')}" if config.shard else ""
    return Output(
        Path(config.output),
        structures,
        is_exclusive(ensemble.task),
        kinds,
        table=f"predictions{name}.csv",
        scales=len(ensemble.groups) if any(group.plan.scale for group in ensemble.groups) else 0,
    )


def _model(
    ensemble: "Ensemble", checkpoints: Sequence[Path], rules: Rules, precision: str
) -> dict[str, Any]:
    """What decides the labels, beside the input; plain values."""
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in checkpoints]
    written: Mapping[str, Any] = {
        name: [asdict(rule) for rule in each] for name, each in rules.items() if each
    }
    return {
        "software": SOFTWARE,
        "checkpoints": [str(path) for path in checkpoints],
        "checkpoints_sha256": hashes,
        "mirror": list(ensemble.options.mirror),
        "overlap": ensemble.options.overlap,
        "precision": precision,
        "postprocessing": written,
    }


def _device(accelerator: str) -> "torch.device":
    import torch

    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if accelerator == "mps" else "cpu")


def _autocast(precision: str) -> "torch.dtype | None":
    """The type that the networks compute in; None for float32."""
    import torch

    return {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
