"""The trust report in a browser: it renders, asks nothing of a network, and fits screen, phone and paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from common.metrics.bootstrap import Value
from common.trust.report import (
    HIGHER,
    LOWER,
    Figure,
    Line,
    Plot,
    Report,
    Section,
    examples_picture,
    set_facts,
    write_report,
)
from tests.browser.explorer_page import DESKTOP, PHONE
from tests.common.trust.made import made

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.browser
PAPER = {"width": 690, "height": 980}  # A4 between its margins, in CSS pixels


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with two sections, long names and words."""
    sets = [(name, made(name, 8, seed)) for seed, name in enumerate(("real", "held-out", "synthetic"))]
    one, two = Value(0.5, 0.4, 0.6, 40), Value(0.9, 0.8, 0.95, 20)
    names = ("condition_faithfulness", "false_structures_whole_heart", "pair_ms_ssim")
    figures = [
        Figure(name, one, better, {"heldout_real": two, "shuffled_conditions": one}, "unet", 0, "a note " * 9)
        for name, better in zip(names, (HIGHER, LOWER, HIGHER), strict=True)
    ]
    curve = Plot("Curve", "share", "dice", [Line("real", [10, 100], [0.5, 0.7], [0.4, 0.6], [0.6, 0.8])])
    bars = Plot("Bars", "dice", "share", [Line("a", [0, 1, 2], [0.2, 0.8])], kind="steps")
    sections = [
        Section("fidelity", "Fidelity", "Near. " * 20, figures, [curve, bars], warnings=["few images"]),
        Section(
            "privacy", "Privacy", "No copies.", figures, facts={"flagged": [f"i{k}.png" for k in range(30)]}
        ),
    ]
    facts = {name: set_facts(images, "a/long/folder/" * 6) for name, images in sets}
    whole = Report(
        "pix2pix_covid",
        {"seed": "0"},
        facts,
        sections,
        {"verdict": "closed", "reason": "2 copies"},
        examples_picture(sets),
    )
    return write_report(tmp_path_factory.mktemp("report") / "report.html", whole)


def opened(page: Page, report: Path, size: dict[str, int]) -> None:
    """The report; a request to anywhere but the file itself fails the test."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size(size)
    page.goto(report.as_uri(), timeout=120_000)
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]


def test_the_verdict_comes_first_and_leads_to_its_section(page: Page, report: Path) -> None:
    opened(page, report, DESKTOP)
    gate = page.locator(".gate")
    expect(gate).to_contain_text("Release gate closed")
    expect(gate).to_be_in_viewport()
    page.get_by_role("link", name="Privacy").click()
    expect(page.locator("#privacy h2")).to_be_in_viewport()


def test_pictures_and_diagrams_are_drawn(page: Page, report: Path) -> None:
    opened(page, report, DESKTOP)
    assert page.evaluate("[...document.images].every((image) => image.naturalWidth > 100)")
    boxes = [box for box in (svg.bounding_box() for svg in page.locator("svg").all()) if box]
    assert len(boxes) == 2 and all(box["width"] > 300 and box["height"] > 150 for box in boxes)
    expect(page.locator("svg text", has_text="real")).to_be_visible()
    assert page.locator("table").first.locator("tbody tr").count() == 3


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_the_page_is_no_wider_than_the_screen(page: Page, report: Path, size: dict[str, int]) -> None:
    opened(page, report, size)
    assert page.evaluate("document.documentElement.scrollWidth") == size["width"]


def test_on_paper_no_table_is_cut(page: Page, report: Path) -> None:
    opened(page, report, PAPER)
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") == PAPER["width"]
    for table in page.locator("table").all():
        box = table.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= PAPER["width"]
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_text_stands_out_from_its_ground(page: Page, report: Path) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 : 1 for text."""
    opened(page, report, DESKTOP)
    for place in (
        ".gate b",
        ".gate span",
        ".warnings li",
        ".interval",
        ".note",
        ".lines a",
        "td.text",
        "footer p",
    ):
        assert page.evaluate(CONTRAST, place) >= 4.5, place


CONTRAST = """(place) => {
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = numbers(colour).map((v) => v / 255)
      .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const element = document.querySelector(place);
  let ground = element;
  const clear = (node) => numbers(getComputedStyle(node).backgroundColor)[3] === 0;
  while (ground.parentElement && clear(ground)) ground = ground.parentElement;
  const pair = [light(getComputedStyle(element).color), light(getComputedStyle(ground).backgroundColor)];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""
