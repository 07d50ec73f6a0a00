from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.inference.strips import FRAME_MS, HELD_MS, grey_levels, save_animation, save_strip
from common.metrics.sheet import CAPTION, GAP, HEADER, PAPER
from common.provenance import Provenance


def ramps(count: int, side: int = 16) -> torch.Tensor:
    """Images that differ: (count, 1, side, side) in [-1, 1]."""
    levels = torch.linspace(-1, 1, side * side).reshape(1, 1, side, side)
    return torch.cat([levels * (number + 1) / count for number in range(count)])


def test_an_animation_holds_every_frame_in_all_its_grey_levels(tmp_path: Path) -> None:
    images = ramps(5)
    save_animation(tmp_path / "a.gif", images)
    with Image.open(tmp_path / "a.gif") as file:
        assert file.n_frames == 5 and file.info["loop"] == 0
        times, frames = [], []
        for number in range(5):
            file.seek(number)
            times.append(file.info["duration"])
            frames.append(np.asarray(file.convert("L")))
    np.testing.assert_array_equal(np.stack(frames), grey_levels(images))
    assert times == [HELD_MS, FRAME_MS, FRAME_MS, FRAME_MS, HELD_MS]
    assert len(np.unique(frames[4])) == 256


def test_a_strip_shows_the_images_in_order_in_even_rows(tmp_path: Path) -> None:
    images = torch.linspace(-1, 1, 6).reshape(6, 1, 1, 1).expand(6, 1, 160, 160)
    save_strip(tmp_path / "s.png", images, [str(number) for number in range(6)], columns=4)
    with Image.open(tmp_path / "s.png") as file:
        pixels = np.asarray(file)
    height = HEADER + 160 + CAPTION + GAP
    assert pixels.shape == (2 * height, 3 * (160 + GAP) + GAP)  # 3 + 3, not 4 + 2
    middles = pixels[HEADER + 80 :: height, GAP + 80 :: 160 + GAP]
    assert middles.tolist() == [[0, 51, 102], [153, 204, 255]]
    assert (pixels[:HEADER] != PAPER).any(), "captions"


def test_strips_and_animations_say_that_they_are_synthetic(tmp_path: Path) -> None:
    made_by = Provenance("painter", seed=2)
    save_strip(tmp_path / "s.png", ramps(2), ["a", "b"], provenance=made_by)
    save_animation(tmp_path / "a.gif", ramps(2), made_by)
    with Image.open(tmp_path / "s.png") as strip, Image.open(tmp_path / "a.gif") as animation:
        assert strip.info["Description"] == "synthetic, painter"
        assert animation.info["comment"] == b"synthetic, painter"


def test_grey_levels_are_clipped_and_rounded() -> None:
    values = torch.tensor([-3.0, -1.0, 0.0, 1.0, 9.0, 1 / 255]).reshape(1, 1, 2, 3)
    assert grey_levels(values).tolist() == [[[0, 0, 128], [255, 255, 128]]]
