"""The per-site table in a terminal."""

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.results import MEAN, site_table


def print_site_table(rows: pd.DataFrame, *, console: Console | None = None) -> None:
    """Print one line per set and site: Dice per structure, its mean, mean HD95 if measured, n.

    The site with the lowest mean Dice is marked if there is more than one.
    """
    (console or Console()).print(_table(site_table(rows)))


def _table(sites: pd.DataFrame) -> Table:
    dice = sites.pivot(index=["set", "site"], columns="structure", values="dice")
    means = sites[sites["structure"] == MEAN].set_index(["set", "site"])
    names = list(dice.columns.drop(MEAN))
    structures = [*names, MEAN] if len(names) > 1 else names
    worst = means["dice"].idxmin() if means["dice"].notna().sum() > 1 else None
    table = Table(title="Dice per site", title_justify="left", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    for name in ("set", "site"):
        table.add_column(name, overflow="fold")  # two cut names could look the same
    for name in structures:
        table.add_column(Text(name), justify="right")
    distance = "hd95_mm" in means
    for name in [*(["hd95_mm"] if distance else []), "n"]:
        table.add_column(name, justify="right")
    table.add_column("")
    for key in means.index:
        cells = [_number(dice.loc[key, name], digits=3) for name in structures]
        if distance:
            cells.append(_number(means.loc[key, "hd95_mm"], digits=1))
        marked = key == worst
        table.add_row(
            *map(Text, key),
            *cells,
            str(means.loc[key, "dice_n"]),
            "worst" if marked else "",
            style="bold red" if marked else "",
        )
    return table


def _number(value: float, *, digits: int) -> str:
    return "-" if pd.isna(value) else f"{value:.{digits}f}"
