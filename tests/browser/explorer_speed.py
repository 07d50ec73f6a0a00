"""How many images a latent explorer decodes in a second while its cursor is dragged.

    python -m tests.browser.explorer_speed explorer.html

Headless Chromium, 1280 x 800. Prints the frames that the page itself has counted and the time that one takes.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import BROWSERS, FLAGS

SECONDS = 5
# Pointer events from within the page: the driver's own would set the pace.
DRAG = """async (seconds) => {
  const { frames } = explorer;
  const { x, y } = explorer.project(explorer.state.cursor);
  const surface = document.getElementById("surface");
  surface.setPointerCapture = () => {};
  const send = (kind, clientX, clientY) =>
    surface.dispatchEvent(new PointerEvent(kind, { pointerId: 1, pointerType: "mouse", clientX, clientY }));
  send("pointerdown", x, y);
  const [start, before, times] = [performance.now(), frames.count, []];
  for (let step = 0; performance.now() - start < 1000 * seconds; step++) {
    await new Promise(requestAnimationFrame);
    send("pointermove", x + 80 * Math.cos(step / 12) - 80, y + 80 * Math.sin(step / 12));
    times.push(frames.milliseconds);
  }
  const passed = (performance.now() - start) / 1000;
  send("pointerup", x, y);
  times.sort((a, b) => a - b);
  return [(frames.count - before) / passed, times[Math.floor(times.length / 2)]];
}"""


def measured(path: Path) -> tuple[float, float]:
    """Decoded frames in a second of dragging, and the median milliseconds of a decoding."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.resolve().as_uri(), timeout=120_000)
        page.evaluate("explorer.ready")
        page.evaluate(DRAG, 1)  # the browser compiles what it runs often
        rate, milliseconds = page.evaluate(DRAG, SECONDS)
        browser.close()
    return rate, milliseconds


if __name__ == "__main__":
    for name in sys.argv[1:]:
        rate, milliseconds = measured(Path(name))
        print(f"{name}: {rate:.1f} decoded frames/s, {milliseconds:.1f} ms a frame")
