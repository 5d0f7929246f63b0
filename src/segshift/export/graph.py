"""The exported graph: the network in evaluation mode and the task's activation, in float32.

It takes windows (batch, channels, *patch), any batch, and gives probabilities (batch, K, *patch).
Edges are the patch's: the network was trained and chosen on no others. A graph is read back from
its file and held against the network.
"""

import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from segshift import seeds
from segshift.build import LoadedRun
from segshift.export.description import INPUT, OUTPUT

ANY_BATCH = {INPUT: {0: Dim("batch")}}
DESCRIPTION = "preprocessing.json"
TOLERANCE = 1e-3  # of a probability: kernels differ in rounding by less, wrong graphs by more


class Probabilities(nn.Module):
    """Windows (B, C, *S) to probabilities (B, K, *S)."""

    def __init__(self, run: LoadedRun) -> None:
        super().__init__()
        self.network = run.module.network
        self.activation = run.module.task.activation

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """In float32, as windows are averaged."""
        return self.activation(self.network(image).float())


def write_torch_export(run: LoadedRun, about: dict[str, Any], folder: Path) -> float:
    """`model.pt2` for `torch.export.load`, with the description inside and beside it.

    Returns the largest difference of a probability on a random window.
    """
    path, text = folder / "model.pt2", _described(about, folder)
    graph, window = Probabilities(run).eval(), _window(run)
    program = torch.export.export(graph, (window,), dynamic_shapes=ANY_BATCH)
    torch.export.save(program, path, extra_files={DESCRIPTION: text})
    return _difference(graph, torch.export.load(path).module(), window)


def write_onnx(run: LoadedRun, about: dict[str, Any], folder: Path) -> float:
    """`model.onnx` with the description as its metadata and beside it.

    Returns the largest difference of a probability on a random window.
    """
    import onnxruntime

    path, text = folder / "model.onnx", _described(about, folder)
    graph, window = Probabilities(run).eval(), _window(run)
    # It warns of torchvision's operators, which no network here has.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations within torch's exporter
        program = torch.onnx.export(
            graph,
            (window,),
            dynamic_shapes=ANY_BATCH,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props[DESCRIPTION] = text
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def exported(image: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])

    return _difference(graph, exported, window)


def _described(about: dict[str, Any], folder: Path) -> str:
    text = json.dumps(about, indent=1, allow_nan=False) + "\n"
    (folder / DESCRIPTION).write_text(text, encoding="utf-8")
    return text


def _window(run: LoadedRun) -> torch.Tensor:
    """Two windows of noise; a batch of one would be taken for the only batch there is."""
    random = seeds.generator(0, "export")
    shape = (2, run.plan.in_channels, *run.plan.view.patch)
    return torch.from_numpy(random.standard_normal(shape, "float32"))


def _difference(
    graph: nn.Module, exported: Callable[[torch.Tensor], torch.Tensor], window: torch.Tensor
) -> float:
    with torch.inference_mode():
        found = float((graph(window) - exported(window)).abs().max())
    if not found <= TOLERANCE:
        raise RuntimeError(f"the exported graph differs from the network by {found:g}")
    return found
