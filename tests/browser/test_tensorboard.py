"""What TensorBoard shows of a run, in a browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = pytest.mark.browser
SECONDS = 1000  # milliseconds, the browser's unit
LOSSES = ["D_adversarial", "D_loss", "G_adversarial", "G_l1", "G_loss", "loss"]
ACCURACIES = [f"D_accuracy_{kind}{suffix}" for kind in ("real", "fake") for suffix in ("", "_ema")]
METRICS = ["fid_gridvgg", "lesion_faithfulness"]


def expect_cards(page: Page, address: str, pattern: str, tags: list[str]) -> None:
    """The page, its tags filtered by ``pattern``, shows one card for each of ``tags``."""
    page.goto(f"{address}?tagFilter={pattern}#timeseries")
    titles = page.locator(":is(scalar-card, image-card) tb-truncated-path")
    expect(titles).to_have_count(len(tags), timeout=30 * SECONDS)
    assert sorted(title.get_attribute("title") or "" for title in titles.all()) == sorted(tags)


def test_every_loss_accuracy_and_metric_has_a_curve(
    page: Page, run_folder: Path, tensorboard: Callable[[Path], str]
) -> None:
    address = tensorboard(run_folder / "logs")
    expect_cards(page, address, "loss|adversarial|l1", [f"train/{name}" for name in LOSSES])
    curve = page.locator("scalar-card", has=page.locator("[title='train/G_l1']"))
    expect(curve.locator("line-chart")).to_be_visible(timeout=30 * SECONDS)
    last_step = curve.locator("tb-data-table-content-cell").get_by_text("4", exact=True)
    expect(last_step).to_be_visible()  # two epochs of five patients in pairs
    expect_cards(page, address, "accuracy", [f"train/{name}" for name in ACCURACIES])
    expect_cards(page, address, "^val/", [f"val/{name}" for name in METRICS])


def test_image_grids_are_shown(page: Page, run_folder: Path, tensorboard: Callable[[Path], str]) -> None:
    expect_cards(page, tensorboard(run_folder / "logs"), "samples", ["samples"])
    picture = page.locator("image-card img")
    expect(picture).to_be_visible(timeout=30 * SECONDS)
    size = picture.evaluate("image => image.decode().then(() => [image.naturalWidth, image.naturalHeight])")
    assert size == [3 * 32 + 2 * 2, 3 * 32 + 2 * 2]  # three patients; mask, generated and real; gaps of two
