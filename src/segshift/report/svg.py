"""A matplotlib Figure as SVG inside a page, in the page's own colours: light, dark, offline."""

import io
import re

from matplotlib import rc_context
from matplotlib.figure import Figure

from segshift.report.figures import FAINT, GREY, INK

# The page's CSS variables, which follow the reader's light or dark scheme.
VARIABLES = {INK: "var(--ink)", GREY: "var(--soft)", FAINT: "var(--line)"}


def inline_svg(figure: Figure, *, name: str) -> str:
    """`<svg>` of the figure, transparent, with text as text; `name` is unique on the page.

    The ink, grey and faint of `figures` become CSS variables; colours of structures stay.
    """
    file = io.StringIO()
    # The salt keeps ids of two figures apart, and those of one figure the same in every run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[\w.]+_\d+"', "", text)  # nothing refers to them, all figures share
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
