"""A cohort's fingerprint in a terminal: everything and every site side by side."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segshift.cohort.fingerprint import (
    CaseFacts,
    Fingerprint,
    Intensities,
    Spread,
    StructureFacts,
    fingerprint,
)
from segshift.units import NO_PHYSICAL_SIZE, mixed_told

ALL = "all"
AXES = ("z", "y", "x")


def by_site(facts: Sequence[CaseFacts]) -> dict[str, list[CaseFacts]]:
    """The cases of each site, sites sorted by name."""
    return {
        site: [one for one in facts if one.site == site]
        for site in sorted({one.site for one in facts})
    }


def print_fingerprint(
    facts: Sequence[CaseFacts],
    *,
    name: str,
    channels: Sequence[str],
    structures: Sequence[str],
    console: Console | None = None,
) -> None:
    """Print one table: a column for the cohort `name` and one per site, medians with extremes."""
    sites = by_site(facts)
    columns = {ALL: fingerprint(facts)} | {site: fingerprint(own) for site, own in sites.items()}
    if len(sites) == 1:
        del columns[ALL]
    table = Table(title=f"{name}: fingerprint", title_justify="left", box=SIMPLE_HEAD)
    table.padding = (0, 1, 0, 0)
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(Text(column), justify="right", overflow="fold")
    for title, cells in _rows(columns, channels=channels, structures=structures):
        table.add_row(Text(title), *cells)
    console = console or Console()
    console.print(table)
    known = {site: [one.grid.units.known for one in own] for site, own in sites.items()}
    told = mixed_told(known)
    if len(sites) > 1 and not any(one for own in known.values() for one in own):
        told = f"between sites {NO_PHYSICAL_SIZE}; a pixel of one may show more than one of another"
    if told:
        console.print(Text(f"sizes: {told}"))


def _rows(
    columns: Mapping[str, Fingerprint], *, channels: Sequence[str], structures: Sequence[str]
) -> list[tuple[str, list[str]]]:
    prints = list(columns.values())
    rows = [
        ("cases", [str(p.cases) for p in prints]),
        ("patients", [str(p.patients) for p in prints]),
    ]
    rows += _spacings(prints)
    for axis, letter in enumerate(AXES):
        rows.append((f"size {letter}, voxels", [_spread(p.shape[axis]) for p in prints]))
    count = len(prints[0].whole)
    names = list(channels) if len(channels) == count else [str(c) for c in range(count)]
    for channel, name in enumerate(names):
        whole = [p.whole[channel] for p in prints]
        inside = [p.foreground[channel] for p in prints]
        for where, found in (("everywhere", whole), ("in structures", inside)):
            rows.append((f"{name}, {where}", [_median(one) for one in found]))
            rows.append(("  mean +- sd", [_moments(one) for one in found]))
    for place, name in enumerate(structures):
        here = [p.structures[place] for p in prints]
        for unit in dict.fromkeys(unit for one in here for unit in one.sizes):
            rows.append((f"{name}, {unit}", [_spread(one.sizes.get(unit)) for one in here]))
        if not any(one.sizes for one in here):
            rows.append((name, ["-" for _ in here]))
        rows.append(("  present in cases", [_present(one) for one in here]))
        rows.append(("  share of voxels", [_share(one) for one in here]))
    return rows


def _spacings(prints: Sequence[Fingerprint]) -> list[tuple[str, list[str]]]:
    """Of the cases whose spacing is known, and how many those are that state no physical size."""
    rows = []
    if any(p.spacing_mm for p in prints):
        for axis, letter in enumerate(AXES):
            if all(p.shape[axis].maximum == 1 for p in prints):
                continue  # what a picture is thick is told by nobody
            spreads = [p.spacing_mm[axis] if p.spacing_mm else None for p in prints]
            rows.append((f"spacing {letter}, mm", [_spread(spread) for spread in spreads]))
    if any(p.unsized for p in prints):
        rows.append(("no physical size", [f"{p.unsized} of {p.cases}" for p in prints]))
    return rows


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    middle = f"{spread.median:.4g}"
    if spread.minimum == spread.maximum:
        return middle
    return f"{middle} ({spread.minimum:.4g} to {spread.maximum:.4g})"


def _median(found: Intensities | None) -> str:
    if found is None:
        return "-"
    return f"{found.median:.4g} ({found.p0_5:.4g} to {found.p99_5:.4g})"


def _moments(found: Intensities | None) -> str:
    return "-" if found is None else f"{found.mean:.4g} +- {found.sd:.4g}"


def _present(structure: StructureFacts) -> str:
    if not structure.annotated:
        return "not annotated"
    return f"{structure.present} of {structure.annotated}"


def _share(structure: StructureFacts) -> str:
    return f"{100 * structure.voxel_share:.2g} %" if structure.annotated else "-"
