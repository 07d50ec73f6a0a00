from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from common.metrics.panel import CAPTION, GAP, HEADER, save_panel


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_columns_hold_mask_generated_real_and_scaled_difference(tmp_path: Path) -> None:
    masks = torch.zeros(2, 1, 40, 80)
    masks[1, 0, :20] = 1
    generated, real = torch.full((2, 1, 40, 80), -1.0), torch.zeros(2, 1, 40, 80)
    real[1] = -0.5
    save_panel(tmp_path / "eval" / "panel.png", masks, generated, real, ["one", "two"])
    sheet = read(tmp_path / "eval" / "panel.png")
    height, width = 80, 160  # enlarged twice
    assert sheet.shape == (HEADER + 2 * (height + CAPTION) + GAP, 4 * (width + GAP) + GAP)
    rows = [HEADER + row * (height + CAPTION) for row in (0, 1)]
    columns = [GAP + column * (width + GAP) for column in range(4)]
    top = [[int(sheet[row + 5, column + 5]) for column in columns] for row in rows]
    # differences of 0.5 and 0.25 of the window: the larger is white, the other half as bright
    assert top == [[0, 0, 128, 255], [255, 0, 64, 128]]
    assert sheet[rows[1] + 75, columns[0] + 5] == 0
    assert (sheet[:HEADER] < 128).any() and (sheet[rows[0] + height : rows[1]] < 128).any()


def test_long_names_and_equal_images_do_no_harm(tmp_path: Path) -> None:
    images = torch.zeros(1, 1, 16, 16)
    save_panel(tmp_path / "panel.png", images, images, images, ["x" * 500])
    assert read(tmp_path / "panel.png").shape[1] == 4 * (160 + GAP) + GAP
