"""A bundle's latent explorer from phantoms to the page, by the commands that a user types."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from bundles.dcgan_covid.autoencoder import DenseAutoencoder
from common.data.phantoms.writing import ensure_phantoms
from common.inference.checkpoint import load_weights, network_for
from common.paths import repository_root
from tests.browser.explorer_page import DESKTOP, opened, pixels, place, settle, state

if TYPE_CHECKING:
    from playwright.sync_api import Page

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [pytest.mark.browser, pytest.mark.timeout(1800)]  # two trainings come first
ROOT = repository_root()
BUNDLE = ROOT / "bundles" / "dcgan_covid"
SIDE, GENERATED = 32, 30
GAN = {
    "image_size": SIDE,
    "max_epochs": 12,
    "learning_rate": 0.001,
    "ema_half_life": 0,
    "network_def#width": 8,
}
GAN |= {"discriminator_def#width": 8, "val_interval": 12, "image_interval": 0, "monitor_interval": 0}
"""It learns enough that its images differ: an untrained one draws the same gray for any noise."""
AUTOENCODER = {"image_size": SIDE, "max_epochs": 20}


@dataclass(frozen=True)
class Built:
    """The page, what building it printed, and the autoencoder that it decodes with."""

    path: Path
    printed: str
    network: DenseAutoencoder

    def by_torch(self, latent: list[float]) -> np.ndarray:
        """(S, S) grey levels of PyTorch's decoding, as integers."""
        with torch.inference_mode():
            values = self.network.decode(torch.tensor([latent]))[0, 0].numpy()
        return np.rint((values + 1) / 2 * 255).astype(int)


def ran(*words: object) -> str:
    """Runs ``python WORDS`` and returns what it printed."""
    line = [sys.executable, *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    return done.stdout


def trained(config: str, data: Path, folder: Path, settings: Mapping[str, float]) -> None:
    given = {**settings, "dataset_dir": data, "output_dir": folder}
    words = [part for key, value in given.items() for part in (f"--{key}", value)]
    ran("-m", "monai.bundle", "run", "training", "--config_file", BUNDLE / "configs" / config, *words)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("bundle")
    data = ensure_phantoms(folder / "phantoms", patients=6, shape=(48, 48, 24))
    trained("train.yaml", data, folder / "run", GAN)
    trained("train_autoencoder.yaml", data, folder / "run", AUTOENCODER)
    page, model = folder / "explorer.html", folder / "run" / "models" / "autoencoder.pt"
    script = ["scripts/latent_explorer.py", "--bundle", BUNDLE, "--output", page, "--dataset_dir", data]
    printed = ran(*script, "--output_dir", folder / "run", "--num_samples", GENERATED)
    network = load_weights(network_for(model, torch.nn.Identity()), model, "")
    assert isinstance(network, DenseAutoencoder)
    return Built(page, printed, network)


def test_the_page_opens_and_shows_every_class(page: Page, built: Built) -> None:
    """`opened` fails on any request but the file itself, the fixture `page` on any error in the console."""
    opened(page, built, DESKTOP)
    names = page.locator("#legend button").all_inner_texts()
    assert "".join(names[-1].split()) == f"generated{GENERATED}"
    assert [name.split()[0] for name in names[:-1]] == ["real"] * (len(names) - 1) and len(names) >= 4
    assert built.path.stat().st_size < 25_000_000
    assert str(built.path) in built.printed and "real images are in it as thumbnails" in built.printed


def test_a_click_decodes_as_torch_does(page: Page, built: Built) -> None:
    opened(page, built, DESKTOP)
    box = page.locator("#surface").bounding_box()
    assert box is not None
    for across, down in ((0.45, 0.6), (0.6, 0.35)):
        page.mouse.click(box["x"] + across * box["width"], box["y"] + down * box["height"])
        settle(page)
        latent = state(page)["cursor"]
        shown = pixels(page.locator("#decoded"))
        assert shown.shape == (SIDE, SIDE) and shown.std() > 10
        difference = np.abs(shown - built.by_torch(latent))
        assert difference.max() <= 8 and difference.mean() <= 2  # the weights were rounded to 8 bits


def test_hovering_names_a_slice_or_a_sample(page: Page, built: Built) -> None:
    opened(page, built, DESKTOP)
    points = page.evaluate("explorer.data.points")
    page.mouse.move(*place(page, points[0]))
    expect(page.locator("#tooltip")).to_be_visible()
    expect(page.locator("#tooltip")).to_contain_text("phantom_")
    assert pixels(page.locator("#tooltip-image")).shape == (48, 48)


def test_the_generators_plane_is_there(page: Page, built: Built) -> None:
    opened(page, built, DESKTOP)
    page.click("#tab-atlas")
    assert page.evaluate("[explorer.data.atlas.rows, explorer.data.atlas.columns]") == [24, 24]
    expect(page.locator("#atlas .corner").first).to_have_text("seed 1")
    page.locator("#atlas-surface").focus()
    before = pixels(page.locator("#atlas-image"))
    page.keyboard.press("Shift+ArrowRight")
    settle(page)
    after = pixels(page.locator("#atlas-image"))
    assert before.shape == after.shape == (64, 64) and (before != after).any()
