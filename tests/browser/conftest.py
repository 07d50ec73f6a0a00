"""A headless browser, TensorBoard's server and a tiny run to look at."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from common.paths import repository_root
from common.rng import make_rng

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Error, Page

CONFIG = repository_root() / "bundles" / "pix2pix_covid" / "configs" / "train.yaml"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",  # the sandbox does not start as root or in most containers; only local pages are opened
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PATIENTS, SIDE = 8, 32
TINY = {
    "image_interval": 1,
    "image_size": SIDE,
    "batch_size": 2,
    "max_epochs": 2,
    "network_def#levels": 5,
    "network_def#ngf": 4,
    "discriminator_def#channels": 4,
    "discriminator_def#num_layers_d": 1,
}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The machine's Chromium or Chrome; the test is skipped where there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium or Chrome on the PATH (Debian: apt-get install chromium)")
    playwright_module = pytest.importorskip("playwright.sync_api")
    with playwright_module.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=FLAGS, timeout=60_000)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page; an error in its console or scripts, or a failed request, fails the test that used it."""
    opened = browser.new_page(viewport={"width": 1600, "height": 2400})
    wrong: list[str] = []
    opened.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(error_text(error)))
    opened.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
    yield opened
    opened.close()
    assert wrong == []


def error_text(error: Error) -> str:
    """Message and stack of an error in the page's scripts."""
    return error.stack or error.message


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of two epochs of the bundle's training on made pairs."""
    folder = tmp_path_factory.mktemp("run")
    make_pairs(folder / "pairs")
    settings = {**TINY, "dataset_dir": folder / "pairs", "output_dir": folder / "out"}
    overrides = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(CONFIG)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *overrides], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def make_pairs(folder: Path) -> None:
    """``images/`` and ``masks/`` with one 8-bit slice per patient: noise, brighter in a square lesion."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for patient in range(PATIENTS):
        random = make_rng(0, "browser", patient)
        row, column = random.integers(4, SIDE - 12, 2)
        image = random.integers(0, 100, (SIDE, SIDE)).astype(np.uint8)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[row : row + 8, column : column + 6] = 255
        image[mask > 0] += 120
        Image.fromarray(image).save(folder / "images" / f"patient{patient}.png")
        Image.fromarray(mask).save(folder / "masks" / f"patient{patient}.png")


@pytest.fixture
def tensorboard(tmp_path: Path) -> Iterator[Callable[[Path], str]]:
    """A function that serves a log folder on a free local port and returns the address."""
    servers: list[subprocess.Popen[bytes]] = []
    output = tmp_path / "tensorboard.txt"

    def serve(logs: Path) -> str:
        command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs)]
        command += ["--host", "127.0.0.1", "--port", "0"]
        with output.open("wb") as file:
            servers.append(subprocess.Popen(command, stdout=file, stderr=file))
        found = address(servers[-1], output)
        wait_for_tags(found)
        return found

    yield serve
    for server in servers:
        server.terminate()
        server.wait(timeout=30)


def wait_for_tags(address: str) -> None:
    """Returns once TensorBoard has read the logs: a page that is opened before stays empty."""
    for _ in range(600):
        with urllib.request.urlopen(f"{address}data/plugin/timeseries/tags", timeout=30) as answer:
            tags = json.load(answer)
        if tags["scalars"]["runTagInfo"] and tags["images"]["tagRunSampledInfo"]:
            return
        time.sleep(0.1)
    raise AssertionError(f"{address}: no tags after a minute")


def address(server: subprocess.Popen[bytes], output: Path) -> str:
    """The address that TensorBoard prints once it listens."""
    for _ in range(300):
        found = re.search(r"http://127\.0\.0\.1:\d+/", output.read_text())
        if found:
            return found.group()
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise AssertionError(output.read_text())
