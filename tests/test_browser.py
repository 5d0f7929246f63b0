"""The page in a real browser: wide and narrow, light and dark; it is silent and names its cases."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from report_inputs import (
    DICE,
    MEASURES,
    STRUCTURES,
    add_postprocessing,
    add_raters,
    fill,
    write_table,
)
from study_inputs import add_raters as add_raters_to_study
from study_inputs import fill_study

from segshift.metrics import Measure
from segshift.report import write_report
from segshift.report.study import write_study_report
from segshift.results import read_rows, write_measures

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
LONG = "a-case-with-an-identifier-that-" + "goes-on-" * 12

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium; apt-get install chromium")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all sections, many metrics, a case and a set whose names are too long for a phone."""
    folder = fill(tmp_path_factory.mktemp("run"))
    add_raters(folder)
    add_postprocessing(folder)
    table = read_rows(folder / "rows.csv")
    table = table.replace({"case": {"dijon-1": LONG}, "set": {"site-toronto": "site-" + LONG[:60]}})
    others = [Measure(f"other_{number}", "", "higher") for number in range(12)]
    write_measures(folder, [*MEASURES.values(), *others])
    more = [table[table["metric"] == "dice"].assign(metric=other.name) for other in others]
    write_table(folder, pd.concat([table, *more]))
    (folder / "cases.csv").unlink()
    (folder / "plan.json").write_text(json.dumps({"spacing_mm": list(range(200))}))
    return write_report(folder, structures=STRUCTURES, measure=DICE)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants, six sites of which one has a long name, curves, pictures, a failed job."""
    sites = ("bern", "b", "c", "d", "e", LONG[:60])
    folder = fill_study(
        tmp_path_factory.mktemp("study"), sites=sites, trained=sites[-2:], seeds=("0",),
        variants=("model=unet2d", "model=" + LONG[:80]), patients=2,
    )  # fmt: skip
    add_raters_to_study(folder)
    jobs = folder / "jobs.csv"
    jobs.write_text(jobs.read_text().replace("done", "failed", 1))
    return write_study_report(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # The sandbox needs rights that a container seldom gives; the page is our own.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def opened(browser: Browser, report: Path, *, width: int, scheme: str) -> tuple[Page, list[str]]:
    """The page, and what went wrong so far, to which later events are added."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on(
        "request",
        lambda one: None if one.url.startswith(("file:", "data:")) else wrong.append(one.url),
    )
    page.goto(report.as_uri())
    return page, wrong


@pytest.mark.parametrize("which", ["report", "study"])
@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_the_page_is_silent_loads_nothing_and_fits(
    browser: Browser, request: pytest.FixtureRequest, width: int, scheme: str, which: str
) -> None:
    path = request.getfixturevalue(which)
    page, wrong = opened(browser, path, width=width, scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    page.locator(".dot").first.hover()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert wrong == []
    broken = "[...document.images].filter(one => !one.naturalWidth).length"
    assert page.evaluate(broken) == 0
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_on_its_background(browser: Browser, report: Path, scheme: str) -> None:
    page, _ = opened(browser, report, width=1280, scheme=scheme)
    colours = page.evaluate(
        """() => ["body", ".soft", ".worst td", "figure svg text"].map(name =>
        [getComputedStyle(document.querySelector(name)).color,
         getComputedStyle(document.querySelector(name)).fill,
         getComputedStyle(document.body).backgroundColor])"""
    )
    for number, (colour, fill_, ground) in enumerate(colours):
        ink = fill_ if number == 3 else colour
        assert contrast(ink, ground) >= 4.5, (number, ink, ground)  # WCAG 2.2, level AA
    page.close()


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two CSS colours rgb(r, g, b) by WCAG 2.2."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour[4:-1].split(",")]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("width", [1280, 390])
def test_pointing_at_a_dot_names_its_case_within_the_window(
    browser: Browser, report: Path, width: int
) -> None:
    page, _ = opened(browser, report, width=width, scheme="light")
    assert page.locator("#tip").is_hidden()
    for name in ("dijon-0: 0.900", f"{LONG}: 0.860", "<script>alert(1)</script>: 0.000"):
        dot = page.locator(".dot", has=page.locator("title", has_text=name)).first
        dot.scroll_into_view_if_needed()
        at = dot.bounding_box()  # before its title is taken, by which it is found
        assert at is not None
        dot.hover()
        assert page.locator("#tip").inner_text() == name
        box = page.locator("#tip").bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= at["y"]
        if name == "dijon-0: 0.900" and width == 1280:  # where there is room, right above the dot
            assert abs(box["x"] + box["width"] / 2 - at["x"] - at["width"] / 2) <= 1
    page.mouse.move(1, 1)
    assert page.locator("#tip").is_hidden()
    page.close()


def test_arrow_keys_go_through_the_cases_of_a_lane(browser: Browser, report: Path) -> None:
    page, _ = opened(browser, report, width=1280, scheme="light")
    page.locator(".lane").first.focus()
    names = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
        names.append(page.locator("#tip").inner_text())
    assert names == ["dijon-6: 0.660", "dijon-5: 0.700", "dijon-6: 0.660"]
    page.close()
