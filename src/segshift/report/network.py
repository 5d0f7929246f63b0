"""What a network is and costs: `network.json`, a table in the terminal, a section of the page."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from segshift.plan import Plan

if TYPE_CHECKING:
    from segshift.module import SegmentationModule

COLUMNS = ("stage", "voxels", "voxel in {length}", "channels", "convolutions", "kernels")
PREFIXES = ("", "k", "M", "G", "T", "P")


def network_numbers(module: "SegmentationModule", plan: Plan, *, precision: str) -> dict[str, Any]:
    """A `NetworkSummary` as plain values, of the module's network under the plan."""
    from segshift.networks.summary import summarise_network

    summary = summarise_network(
        module.network,
        plan,
        precision=precision,
        memory_format=module.memory_format,
    )
    return asdict(summary)


def write_network(
    folder: Path, module: "SegmentationModule", plan: Plan, *, precision: str
) -> None:
    """Write `folder/network.json`, if the network can be described without its weights."""
    try:
        numbers = network_numbers(module, plan, precision=precision)
    except Exception as error:  # a network of anyone's own may look at its values; it still trains
        print(f"network:   without a description, because it does not run on fake tensors: {error}")
        return
    (folder / "network.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


def print_network(numbers: Mapping[str, Any], *, console: Console | None = None) -> None:
    """Print what `network.json` holds: a line per fact, a table of the stages."""
    console = console or Console()
    tables = network_tables(numbers)
    for name, value in tables["facts"].items():
        console.print(f"{name + ':':<17} {value}", highlight=False, markup=False)
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in tables["columns"]:
        table.add_column(column, overflow="fold")
    for line in tables["stages"]:
        table.add_row(*line)
    console.print(table)


def network_tables(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """`facts` by name, `columns` and the cells of `stages`, from what `network.json` holds."""
    batch, forward = numbers["batch"], numbers["forward_flops"]
    memory = _prefixed(numbers["saved_bytes"], "B")
    facts = {
        "patch": f"batch {batch} of {_edges(numbers['patch'])}, {numbers['precision']}",
        "parameters": _prefixed(numbers["parameters"]),
        "receptive field": _receptive_field(numbers),
        "forward": f"{_prefixed(forward, 'FLOP')} for a patch, 2 for each multiply-add",
        # A backward pass costs about as much as two forward passes.
        "training step": f"about {_prefixed(3 * batch * forward, 'FLOP')} for the batch",
        "activations": f"{memory} kept for the backward pass of the batch",
    }
    stages = [
        (
            str(index),
            _edges(stage["size"]),
            _edges(stage["voxel_mm"]),
            str(stage["channels"]),
            str(stage["convolutions"]),
            ", ".join(_edges(kernel) for kernel in stage["kernels"]),
        )
        for index, stage in enumerate(numbers["stages"])
    ]
    columns = [column.format(length=numbers["length"]) for column in COLUMNS]
    return {"facts": facts, "columns": columns, "stages": stages}


def _receptive_field(numbers: Mapping[str, Any]) -> str:
    field, patch = numbers["receptive_field"], numbers["patch"]
    if field is None:
        return "up to the whole patch: it has operations that look further than a kernel"
    extent = [n * edge for n, edge in zip(field, numbers["spacing_mm"], strict=True)]
    text = f"{_edges(field)} voxels, {_edges(extent)} {numbers['length']}"
    if numbers["context"]:
        text += f", in {2 * numbers['context'] + 1} slices"
    larger = any(n > edge for n, edge in zip(field, patch, strict=True))
    return f"{text}; larger than the patch" if larger else text


def _edges(values: Sequence[float]) -> str:
    return "x".join(f"{value:.4g}" for value in values)


def _prefixed(value: float, unit: str = "") -> str:
    """Three digits with a decimal prefix: 5.59 M, 153 MB."""
    power = min(int(math.log10(value) // 3), len(PREFIXES) - 1) if value else 0
    return f"{value / 1000**power:.3g} {PREFIXES[power]}{unit}".strip()
