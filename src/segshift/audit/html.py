"""The findings on one page that needs no other file, with pictures of the cases that have some."""

from pathlib import Path

import jinja2

from segshift.audit.console import summary
from segshift.audit.finding import Audit
from segshift.audit.thumbnail import thumbnail
from segshift.progress import tracked

PICTURES = 60  # cases; a page of thousands opens nowhere


def write_page(audit: Audit, path: Path) -> Path:
    """Write the page: counts, sites, and each case with its findings and a slice of it."""
    by_case: dict[str, list[int]] = {}
    for number, finding in enumerate(audit.findings):
        by_case.setdefault(finding.case, []).append(number)
    cases = {case.id: case for case in audit.listed}
    drawn = [name for name in by_case if name in cases][:PICTURES]
    pictures = {
        name: thumbnail(cases[name]) for name in tracked(drawn, "drawing cases", total=len(drawn))
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.jinja").render(
        audit=audit,
        summary=summary(audit),
        groups=[
            (name, [audit.findings[number] for number in numbers], pictures.get(name))
            for name, numbers in by_case.items()
        ],
        left_out=max(0, len([name for name in by_case if name in cases]) - PICTURES),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path
