"""What a user of an exported model must know, as plain values that go through JSON.

The plan itself, and in sentences what is done with it, so that it can be done without segshift.
"""

from dataclasses import asdict
from typing import Any

from segshift import __version__
from segshift.build import LoadedRun
from segshift.data.resample import ANISOTROPY
from segshift.plan import FIELD_OF_VIEW, Normalisation, Plan, Scale
from segshift.plan.scale import (
    CORNER,
    LEAST_CORNERS,
    LEAST_EDGE,
    LEAST_FILLED,
    LEAST_PIXELS,
    LEAST_SHARE,
    MOST,
    RING,
    WIDE,
)
from segshift.tasks import Regions, Semantic, Task

INPUT, OUTPUT = "image", "probability"  # names of the exported graph's tensors
AXES = "z, y, x of RAS: the index grows towards superior, anterior and right"


def description(run: LoadedRun) -> dict[str, Any]:
    """The model's input and output, its structures and values, and the way to and from it."""
    plan, task = run.plan, run.module.task
    return {
        "segshift": __version__,
        "input": {
            "name": INPUT,
            "shape": ["batch", plan.in_channels, *plan.view.patch],
            "dtype": "float32",
            "axes": AXES if plan.view.dimensions == 3 else f"y, x of {AXES}",
        },
        "output": {
            "name": OUTPUT,
            "shape": ["batch", task.channels, *plan.view.patch],
            "dtype": "float32",
        },
        **decoding(task),
        "windows": {
            "patch": list(plan.view.patch),
            "context": plan.view.context,
            "overlap": run.module.prediction.overlap,
            "mirror_axes": list(run.module.prediction.mirror),
            "weights": "gaussian, its sigma 1/8 of the patch's edge",
        },
        "steps": steps(plan),
        "plan": asdict(plan),
    }


def decoding(task: Task) -> dict[str, Any]:
    """Names of the output's channels, the rule from probabilities to labels, and their values."""
    names = list(task.structures)
    if isinstance(task, Semantic):
        return {
            "task": "semantic",
            "channels": ["background", *names],
            "decoding": "the channel with the highest probability",
            "values": {name: value for value, name in enumerate(names, start=1)},
        }
    if isinstance(task, Regions):
        return {
            "task": "regions",
            "channels": names,
            "decoding": "every channel over 0.5; the values of those found are added",
            "values": {name: 1 << bit for bit, name in enumerate(names)},
        }
    return {"task": type(task).__qualname__, "channels": names}


def steps(plan: Plan) -> list[str]:
    """From a file to the labels on its own grid, one sentence each."""
    thick = f"an axis over {ANISOTROPY:g} times as coarse as the finest takes the nearest slice"
    interpolations = {
        "linear": "linear interpolation",
        "spline": f"cubic splines, but {thick}",
    }
    to_grid = interpolations.get(plan.interpolation, plan.interpolation)
    sides, view = plan.view.context, plan.view
    return [
        f"Read the image as (channel, z, y, x), {AXES}.",
        *(
            ["Crop to the box of the voxels that are not zero in any channel."]
            if plan.crop == "nonzero"
            else []
        ),
        *(_scaling(plan.scale) if plan.scale else []),
        f"Resample {_target(plan)} with {to_grid}; the shape is "
        "rounded, and voxel centres are spread evenly over the same extent (align_corners=False).",
        *_normalising(plan),
        *(
            [
                "Each slice along z is predicted alone. Its channels are the "
                f"{2 * sides + 1} slices from {sides} below to {sides} above, of the first image "
                "channel, then of the next; beyond the ends the last slice is repeated."
            ]
            if sides
            else []
        ),
        f"Predict windows of {_joined(view.patch)} voxels and average their probabilities with "
        "Gaussian weights.",
        "Resample the probabilities linearly to the grid of the box, decode them, and put the "
        "labels back where the box was; outside it is background.",
    ]


def _scaling(scale: Scale) -> list[str]:
    """In the place where voxel sizes are taken; borders are looked for before cropping."""
    counts = "A pixel counts as 1 mm along y and x, times a factor; slices are 1 mm apart."
    if scale.by == FIELD_OF_VIEW:
        return [
            counts,
            f"The factor is {scale.typical_px:g} divided by the longer edge, in pixels, of the "
            "field of view of the uncropped image. Each pixel's distance is the largest difference "
            "of a channel (or slice) from its median in the four corners (patches of "
            f"{CORNER:.0%} of each edge). Otsu's threshold parts the distances; the border's level "
            "is the median of the lower ones, and inside is what is over the middle between level "
            "and threshold. The field of view is the box of the largest piece of the inside (by "
            f"faces, holes filled), if {LEAST_CORNERS} corners are outside with {LEAST_SHARE:.0%} "
            f"of their pixels, the piece has {LEAST_SHARE:.0%} of the inside, fills "
            f"{LEAST_FILLED:.0%} of its box, which is at least {LEAST_EDGE:.0%} of both edges of "
            "the image, and the median distance rises by at least that middle less the level from "
            f"the pixels within {RING:.1%} of the longer edge (at least 2) outside the piece to "
            "those inside. Otherwise it is the whole image.",
        ]
    return [
        counts,
        "The factor is 1 for a first prediction, by all the steps below. In every slice of it with "
        f"at least {LEAST_PIXELS} pixels of a structure and one of none, take all structures "
        "together, and of their pixels' Euclidean distances to the nearest pixel outside the "
        f"{WIDE:g}th percentile, twice that less 1. The factor is {scale.typical_px:g} divided by "
        f"the largest of the slices; it stays 1 without such a slice and for a factor over "
        f"{MOST:g} or under {1 / MOST:g}. Predict the case again with it.",
    ]


def _normalising(plan: Plan) -> list[str]:
    rules = plan.normalisation or (Normalisation("zscore"),) * plan.channels
    return [f"Channel {channel}: {_rule_told(rule)}." for channel, rule in enumerate(rules)]


def _rule_told(rule: Normalisation) -> str:
    if rule.scheme == "rgb":
        return "divide by 255"
    if rule.scheme == "clip_global":
        return f"clip to {rule.low} to {rule.high}, subtract {rule.mean}, divide by {rule.sd}"
    scope = "of the resampled box"
    if rule.nonzero:
        scope = (
            "of the body, which is what is not zero in any channel before resampling, holes "
            "filled; outside it is 0"
        )
    return f"subtract the mean and divide by the standard deviation {scope}"


def _target(plan: Plan) -> str:
    """To which voxels."""
    if plan.spacing_known:
        return f"to voxels of {_joined(plan.spacing_mm)} mm"
    return f"to one voxel for {_joined(plan.spacing_mm)} of the image, whatever its header says,"


def _joined(values: tuple[float, ...]) -> str:
    return " x ".join(f"{value:g}" for value in values)
