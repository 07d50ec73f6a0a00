from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.metrics.colours import DIMMED, colour
from common.metrics.panel import save_panel, save_structure_panel
from common.metrics.sheet import CAPTION, GAP, HEADER, LEGEND


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


def test_class_maps_have_their_colours_and_a_legend(tmp_path: Path) -> None:
    labels = torch.zeros(1, 1, 160, 160)
    labels[0, 0, :80], labels[0, 0, 80:, :80] = 1, 3
    save_panel(tmp_path / "panel.png", labels, labels * 0, labels * 0, ["heart"], ["LV", "RV", "LA"])
    sheet = read(tmp_path / "panel.png")
    assert sheet.shape == (HEADER + 160 + CAPTION + GAP + LEGEND, 4 * (160 + GAP) + GAP, 3)
    places = [(5, 5), (85, 5), (85, 85)]
    found = [tuple(int(v) for v in sheet[HEADER + row, GAP + column]) for row, column in places]
    assert found == [colour(1), colour(3), (0, 0, 0)]
    bottom = {tuple(int(v) for v in pixel) for pixel in sheet[-LEGEND:].reshape(-1, 3)}
    assert {colour(1), colour(2), colour(3)} <= bottom


def test_condition_images_are_shown_as_they_are(tmp_path: Path) -> None:
    image = torch.full((1, 1, 160, 160), -0.5)
    save_panel(tmp_path / "panel.png", image, image, image, ["native"], ["LV", "RV"])
    sheet = read(tmp_path / "panel.png")
    assert sheet.ndim == 2 and sheet[HEADER + 5, GAP + 5] == 64


def test_a_row_a_structure_with_the_others_dimmed(tmp_path: Path) -> None:
    labels = torch.zeros(3, 1, 160, 160)
    labels[1, 0, :80], labels[1, 0, 80:] = 1, 2
    generated, real = torch.full_like(labels, -1.0), torch.zeros_like(labels)
    real[1] = 1
    names = ["a", "b", "c"]
    save_structure_panel(tmp_path / "panel.png", labels, generated, real, names, ["LV", "Ao", "PA"])
    sheet = read(tmp_path / "panel.png")
    tops = [HEADER + row * (160 + CAPTION) for row in range(3)]  # LV, Ao, all; no slice has a PA
    assert sheet.shape[0] == tops[2] + 160 + CAPTION + GAP + LEGEND
    upper = [sheet[top + 5, GAP + 5].tolist() for top in tops]
    lower = [sheet[top + 155, GAP + 5].tolist() for top in tops]
    assert upper[0] == upper[2] == list(colour(1)) and lower[1] == lower[2] == list(colour(2))
    assert upper[1] == pytest.approx([DIMMED * level for level in colour(1)], abs=1)
    assert sheet[tops[0] + 5, GAP + 2 * (160 + GAP) + 5].tolist() == [255] * 3


def test_without_structures_there_is_no_structure_panel(tmp_path: Path) -> None:
    images = torch.zeros(1, 1, 16, 16)
    save_structure_panel(tmp_path / "panel.png", images, images, images, ["a"], ["LV"])
    assert not (tmp_path / "panel.png").exists()
