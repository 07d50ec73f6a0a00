from __future__ import annotations

import pytest
import torch

from common.metrics.crops import CROP_SIZE, crop_box, structure_crops


def box(top: int, bottom: int, left: int, right: int, height: int = 60, width: int = 80) -> torch.Tensor:
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[top, left:right] = True
    mask[top:bottom, left] = True
    return mask


def test_the_box_is_square_with_a_margin_around_the_structure() -> None:
    # 8 x 20 pixels: side 20 + 2 * 5, centred on row 24 and column 40
    assert crop_box(box(20, 28, 30, 50)) == (9, 25, 30)
    assert crop_box(box(20, 40, 36, 40)) == (15, 23, 30)


def test_the_box_stays_in_the_image() -> None:
    assert crop_box(box(0, 4, 72, 80)) == (0, 68, 12)
    assert crop_box(box(2, 10, 3, 70)) == (0, 6, 60)  # no larger than the image's height


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(ValueError, match="empty mask"):
        crop_box(torch.zeros(5, 5, dtype=torch.bool))


def test_crops_show_the_box_and_nothing_else() -> None:
    mask = box(20, 28, 30, 50)[None, None]
    image = torch.full((1, 1, 60, 80), -1.0)
    image[0, 0, 9:39, 25:55] = 0.5
    image[0, 0, 9:24, 25:55] = -0.25  # the upper half of the box
    crops = structure_crops(image.repeat(2, 1, 1, 1), mask.repeat(2, 1, 1, 1))
    assert crops.shape == (2, 1, CROP_SIZE, CROP_SIZE)
    assert (crops[1, 0, :30] == -0.25).all() and (crops[1, 0, 34:] == 0.5).all()
    assert structure_crops(image[:0], mask[:0]).shape == (0, 1, CROP_SIZE, CROP_SIZE)
