"""What tests of the latent explorer's page do with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


class Written(Protocol):
    """An explorer on the disk."""

    @property
    def path(self) -> Path:
        """The file."""


def opened(page: Page, case: Written, size: dict[str, int] | None = None) -> Page:
    """The page once it can be used; a request to anywhere but the file itself fails the test."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    if size:
        page.set_viewport_size(size)
    page.goto(case.path.as_uri(), timeout=300_000)  # a busy machine parses the page for long
    page.evaluate("explorer.ready")
    settle(page)
    assert asked == [case.path.as_uri()]
    return page


def settle(page: Page) -> None:
    """Waits until what was asked for is drawn."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 100)))")


def until(page: Page, condition: str) -> None:
    """Waits for a condition in JavaScript, half a minute at most (the page forbids Playwright's own way)."""
    for _ in range(600):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {condition}")


def state(page: Page) -> dict[str, Any]:
    return page.evaluate("explorer.state")


def place(page: Page, latent: list[float]) -> tuple[float, float]:
    """Where a latent is on the page, in pixels."""
    at = page.evaluate("(latent) => explorer.project(latent)", latent)
    return at["x"], at["y"]


def pixels(canvas: Locator) -> np.ndarray:
    """(H, W) grey levels of a canvas, as integers."""
    values, width = canvas.evaluate(
        """(canvas) => {
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return [Array.from(data).filter((_, index) => index % 4 === 0), canvas.width];
        }"""
    )
    return np.array(values).reshape(-1, width)
