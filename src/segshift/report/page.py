"""What the pages share: the template's rules, overlays as data URLs, figures as PNG and SVG."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib.figure import Figure

from segshift.report.figures import overlay
from segshift.report.measures import heading, written
from segshift.report.slices import read_slice
from segshift.report.svg import inline_svg


@dataclass(frozen=True, slots=True)
class Picture:
    """A case on the page: its overlay as a data URL, and what is said below."""

    base64: str
    head: str
    where: str


def rendered(template: str, content: Mapping[str, Any]) -> str:
    """The page; every name in `content` is escaped, and one that is absent is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"written": written, "heading": heading}
    return environment.get_template(template).render(content)


def picture(
    slice_path: Path,
    png: Path,
    *,
    head: str,
    where: str,
    structures: Sequence[str],
    most_wrong: bool = False,
) -> Picture:
    """Draws the overlay of a stored slice to `png`; or of that in which most is wrong."""
    png.parent.mkdir(parents=True, exist_ok=True)
    one = read_slice(slice_path, most_wrong=most_wrong)
    overlay(one, structures=structures).savefig(png)
    return Picture(base64.b64encode(png.read_bytes()).decode(), head, where)


def drawn(figure: Figure, folder: Path, *, name: str) -> str:
    """A PNG for people in the folder, the SVG for the page."""
    figure.savefig(folder / "figures" / f"{name}.png")
    return inline_svg(figure, name=name)
