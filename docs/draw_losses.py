"""Draw docs/images/losses.png: how hard each loss pulls at the voxels of one region.

`python docs/draw_losses.py` takes the losses from conf/loss as they stand. In a patch with one
structure (a large and a small disc) all voxels are right with probability 0.95, except those of one
region: their probability of the truth goes from 0.01 to 0.99. Drawn is -d loss / d margin, the mean
over the region times the number of the patch's voxels: 1 is what a cross-entropy does at p = 0.
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from segshift import build
from segshift.report.figures import FAINT, GREY, INK, OKABE_ITO

SIZE, SURE, COLUMNS = 64, 0.95, 5
P = np.linspace(0.01, 0.99, 100)
ONE_VS_REST = ("bce", "weighted_bce", "sigmoid_focal")  # a sigmoid for each channel
REGIONS = {  # centre, radius, colour, line width, line style; the first two are the structure
    "large part missed": ((24, 22), 9.5, OKABE_ITO[5], 4.0, "-"),
    "small part missed": ((50, 14), 2.5, OKABE_ITO[1], 2.2, "-"),
    "false positive nearby": ((24, 37), 2.5, OKABE_ITO[0], 2.2, "-"),
    "false positive far away": ((52, 56), 2.5, INK, 1.1, (0, (3, 2))),
}
FAMILIES = {
    "voxels": ("cross_entropy", "label_smoothing", "nacl", "bce", "weighted_bce"),
    "hard voxels": ("topk", "focal", "sigmoid_focal", "dice_focal", "unified_focal"),
    "overlap": ("dice", "dice_ce", "generalised_dice", "tversky", "focal_tversky"),
    "distance": ("boundary", "generalised_surface", "hausdorff_dt"),
    "parts and tubes": ("blob", "cl_dice", "skeleton_recall"),
}


def main() -> None:
    """Write the picture."""
    masks = {name: _disc(centre, radius) for name, (centre, radius, *_) in REGIONS.items()}
    label = (masks["large part missed"] | masks["small part missed"]).long()[None, None]
    figure = Figure(figsize=(10, 9.6), dpi=110, layout="constrained")
    grid = figure.add_gridspec(len(FAMILIES), COLUMNS)
    for row, (family, names) in enumerate(FAMILIES.items()):
        for column, name in enumerate(names):
            axes = figure.add_subplot(grid[row, column])
            loss, title = loss_of(name, label)
            for region, (_, _, colour, width, style) in REGIONS.items():
                pull = [pull_at(loss, name, label, masks[region], p) for p in P]
                axes.plot(P, pull, color=colour, lw=width, ls=style, solid_capstyle="butt")
            _style(axes, title=title, family=family if column == 0 else "")
    figure.align_ylabels([axes for axes in figure.axes if axes.get_ylabel()])
    _patch(figure.add_subplot(grid[-2:, -2:]), masks)
    words = {"fontsize": 9.5, "color": GREY}
    figure.supxlabel("p, probability of the truth in the region", **words)
    figure.supylabel("pull towards the truth at its voxels", **words)
    figure.savefig(Path(__file__).parent / "images" / "losses.png")


def loss_of(name: str, label: Tensor) -> tuple[nn.Module, str]:
    """The loss of a YAML, what it leaves open is that of the patch; of a sum its term `name`."""
    share = float(label.double().mean())
    facts = {"spacing_mm": [1.0, 1.0, 1.0], "structure_frequency": [1 - share, share]}
    config = OmegaConf.load(build.conf_folder() / "loss" / f"{name}.yaml")
    assert isinstance(config, DictConfig)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, facts[key.split(".")[-1]])
    term = config.get("terms", {}).get(name)
    return build.instantiate(term or config), f"{name} term" if term else name


def pull_at(loss: nn.Module, name: str, label: Tensor, region: Tensor, p: float) -> float:
    """Voxels of the patch times the mean of -d loss / d margin over the region (H, W) at p."""
    chance = torch.where(region, p, SURE).double()
    margin = torch.logit(chance).requires_grad_()
    towards = margin * (2 * label[0, 0] - 1)
    # Both channels of a sigmoid are right with p; a softmax sees their difference.
    channel = towards if name in ONE_VS_REST else towards / 2
    loss(torch.stack([-channel, channel])[None], label).backward()
    return float(-margin.grad[region].mean() * region.numel())


def _disc(centre: tuple[int, int], radius: float) -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


def _style(axes: Axes, *, title: str, family: str) -> None:
    axes.set_title(title, fontsize=9.5, color=INK, loc="left")
    axes.set_ylabel(family, fontsize=9.5, color=INK, fontweight="bold")
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=0)
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    axes.locator_params(axis="y", nbins=4)
    axes.tick_params(labelsize=7.5, colors=GREY, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)


def _patch(axes: Axes, masks: dict[str, Tensor]) -> None:
    """The patch with its regions, which is the legend too."""
    colours = [colour for _, _, colour, *_ in REGIONS.values()]
    drawn = sum(number * mask.int() for number, mask in enumerate(masks.values(), start=1))
    axes.imshow(drawn, cmap=ListedColormap(["#f2f2f2", *colours]), interpolation="nearest")
    axes.set_axis_off()
    keys = [Line2D([], [], color=c, lw=w, ls=s, label=n) for n, (_, _, c, w, s) in REGIONS.items()]
    axes.legend(
        handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.01), ncols=2, frameon=False,
        fontsize=8.5, handlelength=2.4, columnspacing=1.2,
    )  # fmt: skip


if __name__ == "__main__":
    main()
