"""The latent explorer's page, driven as a reader would: by mouse, keys and touch."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from common.explorer.explorer import Atlas, Explorer, dense_layers, write_explorer
from common.rng import make_rng
from tests.browser.explorer_page import DESKTOP, PHONE, opened, pixels, place, settle, state, until
from tests.common.explorer.made import decode, quantized_layers

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = pytest.importorskip("playwright.sync_api").expect
expect.set_options(timeout=30_000)
pytestmark = pytest.mark.browser
SIDE, THUMBNAIL, POINTS = 32, 16, 40
COLOURS = {0: (0, 114, 178), 1: (213, 94, 0)}


@dataclass(frozen=True)
class Case:
    """An explorer's file, what was put into it, and the network that it decodes with."""

    path: Path
    explorer: Explorer
    network: nn.Module

    def decoded(self, latent: list[float]) -> np.ndarray:
        """What the page should show: (S, S) grey levels by the weights that travel, as integers."""
        layers = quantized_layers(self.explorer.decoder)
        return decode(layers, np.array([latent]), self.explorer.value_range)[0].astype(int)

    def by_torch(self, latent: list[float]) -> np.ndarray:
        """(S, S) grey levels by the network itself, as integers."""
        with torch.inference_mode():
            values = self.network(torch.tensor([latent]))[0].numpy()
        return np.rint((values + 1) / 2 * 255).reshape(SIDE, SIDE).astype(int)


def made_case(folder: Path, dimensions: int) -> Case:
    """Points of two classes; each thumbnail is of one grey, which names its point."""
    torch.manual_seed(dimensions)
    network = nn.Sequential(
        nn.Linear(dimensions, 32), nn.LeakyReLU(0.2), nn.Linear(32, 128), nn.ReLU(), nn.Linear(128, SIDE**2)
    ).append(nn.Tanh())
    points = make_rng(dimensions, "points").normal(size=(POINTS, dimensions)).astype(np.float32)
    greys = (5 * np.arange(POINTS, dtype=np.uint8) + 20)[:, None, None]
    explorer = Explorer(
        points=points,
        classes=np.arange(POINTS) % 2,
        class_names=["real", "generated"],
        names=[f"slice {row}" for row in range(POINTS)],
        thumbnails=np.broadcast_to(greys, (POINTS, THUMBNAIL, THUMBNAIL)),
        decoder=dense_layers(network),
        image_size=SIDE,
        value_range=(-1, 1),
        atlas=Atlas(made_atlas(), ["top left", "top right", "bottom left", "bottom right"]),
        title=f"Latent of {dimensions}",
    )
    return Case(write_explorer(folder / f"{dimensions}.html", explorer), explorer, network)


def made_atlas() -> np.ndarray:
    """(24, 30, 8, 8): brighter downwards and, slower, to the right."""
    rows, columns = np.arange(24)[:, None], np.arange(30)[None]
    grey = (8 * rows + 2 * columns).astype(np.uint8)
    return np.broadcast_to(grey[..., None, None], (24, 30, 8, 8))


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Case]:
    folder = tmp_path_factory.mktemp("explorer")
    return {dimensions: made_case(folder, dimensions) for dimensions in (2, 3)}


@pytest.fixture
def touched(browser: Browser) -> Iterator[Page]:
    """A page on a phone: narrow, and touched instead of pointed at."""
    context = browser.new_context(viewport=PHONE, has_touch=True, device_scale_factor=2)
    wrong: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: wrong.append(error.message))
    yield page
    context.close()
    assert wrong == []


def alone(page: Page, case: Case, apart: float = 30) -> list[int]:
    """Points that are far from all others and from the cursor on the screen, the loneliest first."""
    places = np.array([place(page, point.tolist()) for point in case.explorer.points])
    others = np.vstack([places, place(page, state(page)["cursor"])])
    distances = np.linalg.norm(places[:, None] - others[None], axis=2)
    distances[np.arange(POINTS), np.arange(POINTS)] = np.inf
    nearest = distances.min(axis=1)
    return [int(row) for row in np.argsort(-nearest) if nearest[row] > apart]


def colour_at(page: Page, x: float, y: float) -> tuple[int, ...]:
    picture = page.screenshot(clip={"x": round(x) - 1, "y": round(y) - 1, "width": 3, "height": 3})
    return Image.open(io.BytesIO(picture)).convert("RGB").getpixel((1, 1))


def map_picture(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.locator("#plot").screenshot())).convert("RGB")).astype(int)


def drag(page: Page, start: tuple[float, float], dx: float, dy: float, steps: int = 8) -> None:
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + dx, start[1] + dy, steps=steps)
    page.mouse.up()
    settle(page)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_points_are_drawn_where_the_page_takes_them_to_be(
    page: Page, cases: dict[int, Case], dimensions: int
) -> None:
    case = cases[dimensions]
    opened(page, case, DESKTOP)
    page.locator("#surface").focus()
    for key in ("0", "Shift+ArrowRight", "Shift+ArrowUp", "+"):  # as it opens, turned and magnified
        page.keyboard.press(key)
        settle(page)
        lonely = alone(page, case)
        assert len(lonely) >= 3
        for row in lonely[:3]:
            colour = colour_at(page, *place(page, case.explorer.points[row].tolist()))
            assert np.abs(np.subtract(colour, COLOURS[row % 2])).max() < 25, (key, row)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_hover_shows_thumbnail_and_caption(page: Page, cases: dict[int, Case], dimensions: int) -> None:
    case = cases[dimensions]
    opened(page, case, DESKTOP)
    tooltip = page.locator("#tooltip")
    expect(tooltip).to_be_hidden()
    row = alone(page, case)[0]
    page.mouse.move(*place(page, case.explorer.points[row].tolist()))
    expect(tooltip).to_be_visible()
    expect(tooltip).to_contain_text(f"slice {row}")
    expect(tooltip).to_contain_text(["real", "generated"][row % 2])
    shown = pixels(page.locator("#tooltip-image"))
    assert shown.shape == (THUMBNAIL, THUMBNAIL)
    assert np.abs(shown - (5 * row + 20)).max() <= 2
    page.mouse.move(2, 2)
    expect(tooltip).to_be_hidden()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_click_decodes_as_torch_does(page: Page, cases: dict[int, Case], dimensions: int) -> None:
    case = cases[dimensions]
    opened(page, case, DESKTOP)
    row = alone(page, case)[0]
    latent = case.explorer.points[row].tolist()
    page.mouse.click(*place(page, latent))
    settle(page)
    assert state(page)["cursor"] == latent
    shown = pixels(page.locator("#decoded"))
    assert shown.std() > 10
    assert np.abs(shown - case.decoded(latent)).max() <= 1
    assert np.abs(shown - case.by_torch(latent)).max() <= 3  # the weights were rounded to 8 bits
    assert page.evaluate("(latent) => Array.from(explorer.decode(latent))", latent) == shown.ravel().tolist()
    expect(page.locator("#nearest-name")).to_have_text(f"slice {row}")


@pytest.mark.parametrize("dimensions", [2, 3])
def test_any_place_can_be_clicked_and_the_cursor_dragged(
    page: Page, cases: dict[int, Case], dimensions: int
) -> None:
    case = cases[dimensions]
    opened(page, case, DESKTOP)
    box = page.locator("#surface").bounding_box()
    assert box is not None
    spot = (box["x"] + 0.42 * box["width"], box["y"] + 0.63 * box["height"])
    page.mouse.click(*spot)
    settle(page)
    cursor = state(page)["cursor"]
    assert np.abs(pixels(page.locator("#decoded")) - case.decoded(cursor)).max() <= 1
    if page.evaluate("explorer.state.hovered") is None:
        np.testing.assert_allclose(place(page, cursor), spot, atol=15)
    frames, view = page.evaluate("explorer.frames.count"), state(page)["view"]
    start = place(page, cursor)
    drag(page, start, 90, -60)
    np.testing.assert_allclose(place(page, state(page)["cursor"]), (start[0] + 90, start[1] - 60), atol=1)
    assert page.evaluate("explorer.frames.count") > frames + 2
    assert state(page)["view"] == view
    assert np.abs(pixels(page.locator("#decoded")) - case.decoded(state(page)["cursor"])).max() <= 1


def test_dragging_rotates_in_three_dimensions(page: Page, cases: dict[int, Case]) -> None:
    opened(page, cases[3], DESKTOP)
    before, picture = state(page), map_picture(page)
    drag(page, (100, 600), 160, 0)
    after = state(page)
    assert np.linalg.norm(np.subtract(after["view"]["eye"], before["view"]["eye"])) > 0.3
    assert np.linalg.norm(after["view"]["eye"]) == pytest.approx(
        np.linalg.norm(before["view"]["eye"]), rel=0.05
    )
    assert after["cursor"] == before["cursor"]
    assert (np.abs(map_picture(page) - picture).max(axis=2) > 60).mean() > 0.005
    for _ in range(6):
        drag(page, (100, 300), 0, 350)  # over the pole and on: a trackball has none
    up = np.array(state(page)["view"]["up"])
    assert np.linalg.norm(up) == pytest.approx(1, abs=1e-3)
    assert abs(up[2]) < 0.99


def test_dragging_and_the_wheel_move_and_magnify_in_two_dimensions(
    page: Page, cases: dict[int, Case]
) -> None:
    opened(page, cases[2], DESKTOP)
    latent = cases[2].explorer.points[3].tolist()
    before = place(page, latent)
    drag(page, (100, 640), 70, -40)
    np.testing.assert_allclose(place(page, latent), (before[0] + 70, before[1] - 40), atol=1)
    target = place(page, latent)
    page.mouse.move(*target)
    page.mouse.wheel(0, -300)
    settle(page)
    assert state(page)["view"]["magnification"] > 1.3
    np.testing.assert_allclose(place(page, latent), target, atol=1)  # what is under the pointer stays


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_path_is_chosen_and_plays(page: Page, cases: dict[int, Case], dimensions: int) -> None:
    case = cases[dimensions]
    opened(page, case, DESKTOP)
    first, last = (case.explorer.points[row].tolist() for row in alone(page, case)[:2])
    page.click("#choose-a")
    page.mouse.click(*place(page, first))
    assert state(page)["armed"] == "b"
    page.mouse.click(*place(page, last))
    assert (state(page)["a"], state(page)["b"]) == (first, last)
    expect(page.locator("#play")).to_have_text("Pause")
    expect(page.locator("#overlay .path-line")).to_be_visible()
    until(page, "explorer.state.position > 0.05")
    page.click("#play")
    halted = state(page)
    assert not halted["playing"]
    share = halted["position"]
    np.testing.assert_allclose(
        halted["cursor"], np.array(first) * (1 - share) + np.array(last) * share, atol=1e-6
    )
    page.select_option("#speed", "4")
    page.click("#play")
    until(page, "!explorer.state.playing")
    assert state(page)["cursor"] == pytest.approx(last)
    strip = pixels(page.locator("#strip"))
    assert np.abs(strip[:, :SIDE] - case.decoded(first)).max() <= 1
    assert np.abs(strip[:, -SIDE:] - case.decoded(last)).max() <= 1
    page.click("#path-clear")
    expect(page.locator("#play")).to_be_disabled()


def test_less_motion_is_respected(page: Page, cases: dict[int, Case]) -> None:
    page.emulate_media(reduced_motion="reduce")
    opened(page, cases[2], DESKTOP)
    page.locator("#surface").focus()
    page.keyboard.press("a")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("b")
    assert state(page)["b"] is not None
    assert not state(page)["playing"]
    expect(page.locator("#play")).to_have_text("Play")
    expect(page.locator("#play")).to_be_enabled()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_keys_move_zoom_and_play(page: Page, cases: dict[int, Case], dimensions: int) -> None:
    case = cases[dimensions]
    opened(page, case, DESKTOP)
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "surface":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    x, y = place(page, state(page)["cursor"])
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    np.testing.assert_allclose(place(page, state(page)["cursor"]), (x + 12, y - 12), atol=0.5)
    settle(page)
    assert np.abs(pixels(page.locator("#decoded")) - case.decoded(state(page)["cursor"])).max() <= 1
    view = state(page)["view"]
    page.keyboard.press("+")
    assert state(page)["view"] != view
    page.keyboard.press("0")
    page.keyboard.press("a")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("b")
    assert state(page)["playing"]
    page.keyboard.press("Space")
    assert not state(page)["playing"]
    page.keyboard.press("Enter")
    assert state(page)["cursor"] in case.explorer.points.tolist()


def test_depth_and_sliders_reach_every_place(page: Page, cases: dict[int, Case]) -> None:
    opened(page, cases[3], DESKTOP)
    at = page.evaluate("explorer.project(explorer.state.cursor)")
    page.locator("#surface").focus()
    page.keyboard.press("PageUp")
    moved = page.evaluate("explorer.project(explorer.state.cursor)")
    assert moved["depth"] > at["depth"]
    assert (moved["x"], moved["y"]) == pytest.approx((at["x"], at["y"]), abs=0.5)
    before = state(page)["cursor"]
    page.locator("#z1").focus()
    page.keyboard.press("ArrowRight")
    after = state(page)["cursor"]
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1] > before[1]


def test_the_legend_hides_a_class(page: Page, cases: dict[int, Case]) -> None:
    case = cases[2]
    opened(page, case, DESKTOP)
    row = next(row for row in alone(page, case) if row % 2 == 1)
    spot = place(page, case.explorer.points[row].tolist())
    button = page.locator("#legend button").nth(1)
    expect(button).to_contain_text(f"generated{POINTS // 2}")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    settle(page)
    assert min(colour_at(page, *spot)) > 200
    page.mouse.move(*spot)
    assert state(page)["hovered"] is None


def test_the_atlas_blends_its_samples(page: Page, cases: dict[int, Case]) -> None:
    opened(page, cases[2], DESKTOP)
    page.click("#tab-atlas")
    expect(page.locator("#view-map")).to_be_hidden()
    box = page.locator("#atlas-sheet").bounding_box()
    assert box is not None
    column, row = 12.5, 6.0  # half way between two samples of one row
    x, y = box["x"] + (column + 0.5) / 30 * box["width"], box["y"] + (row + 0.5) / 24 * box["height"]
    page.mouse.move(x, y)
    settle(page)
    shown = pixels(page.locator("#atlas-image"))
    assert shown.shape == (8, 8)
    assert np.abs(shown - (8 * row + 2 * column)).max() <= 4
    page.locator("#atlas-surface").focus()
    page.keyboard.press("Shift+ArrowDown")
    settle(page)
    assert np.abs(pixels(page.locator("#atlas-image")) - (8 * (row + 2) + 2 * column)).max() <= 4
    expect(page.locator("#atlas .corner").nth(3)).to_have_text("bottom right")
    page.locator("#tab-atlas").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#view-map")).to_be_visible()


@pytest.mark.parametrize("dimensions", [2, 3])
def test_touch_decodes_drags_and_pinches(touched: Page, cases: dict[int, Case], dimensions: int) -> None:
    case = cases[dimensions]
    opened(touched, case)
    row = alone(touched, case)[0]
    touched.touchscreen.tap(*place(touched, case.explorer.points[row].tolist()))
    settle(touched)
    assert state(touched)["cursor"] == case.explorer.points[row].tolist()
    expect(touched.locator("#tooltip")).to_contain_text(f"slice {row}")
    before = state(touched)["view"]
    pinch(touched, "#surface")
    after = state(touched)["view"]
    if dimensions == 2:
        assert after["magnification"] > 1.5 * before["magnification"]
    else:
        arm = [np.linalg.norm(np.subtract(view["eye"], view["center"])) for view in (before, after)]
        assert arm[1] < arm[0] / 1.5


def pinch(page: Page, surface: str) -> None:
    """Two fingers that part until they are twice as far from each other."""
    box = page.locator(surface).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + 30
    session = page.context.new_cdp_session(page)
    for kind, half in (("touchStart", 40), ("touchMove", 60), ("touchMove", 80)):
        fingers = [{"x": x - half, "y": y, "id": 0}, {"x": x + half, "y": y, "id": 1}]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
    session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    settle(page)


def test_the_page_fits_desktop_and_phone(page: Page, cases: dict[int, Case]) -> None:
    for size in (DESKTOP, PHONE):
        opened(page, cases[3], size)
        width, height = page.evaluate(
            "[document.documentElement.scrollWidth, document.documentElement.scrollHeight]"
        )
        assert width == size["width"]
        assert height == size["height"] or size is PHONE  # a phone scrolls down, a desktop shows all
        boxes = [page.locator(name).bounding_box() for name in ("#legend", "#map", "#decoded", "#choose-a")]
        assert all(box and box["x"] >= 0 and box["x"] + box["width"] <= size["width"] for box in boxes)
        assert boxes[2] and boxes[2]["y"] < size["height"] - 100  # the decoded image is in view with the map
