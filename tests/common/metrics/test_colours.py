from __future__ import annotations

import pytest
import torch

from common.metrics.colours import DIMMED, PALETTE, class_picture, colour, label_picture


def test_masks_are_grey_levels_by_channel() -> None:
    label = torch.zeros(1, 4, 1, 4)
    for channel in range(3):
        label[0, channel, 0, channel] = 1
    assert label_picture(label).flatten().tolist() == [0.25, 0.5, 0.75, 0.0]


def test_class_maps_are_coloured_on_black() -> None:
    picture = label_picture(torch.tensor([[[[0.0, 2.0, 1.0]]]]))
    assert picture.shape == (1, 3, 1, 3)
    found = picture[0, :, 0].T.mul(255).round().tolist()
    assert found == [[0, 0, 0], list(PALETTE[1]), list(PALETTE[0])]


def test_condition_images_go_from_black_to_white() -> None:
    picture = label_picture(torch.tensor([[[[-1.0, 0.0, 1.0]]]]))
    assert picture.shape == (1, 1, 1, 3) and picture.flatten().tolist() == [0, 0.5, 1]


def test_one_class_is_pointed_out() -> None:
    picture = class_picture(torch.tensor([[[[0.0, 1.0, 2.0]]]]), chosen=2)[0, :, 0].T * 255
    assert picture[1].tolist() == pytest.approx([DIMMED * level for level in colour(1)])
    assert picture[2].tolist() == pytest.approx(colour(2)) and picture[0].sum() == 0


def test_classes_beyond_the_palette_go_round() -> None:
    assert colour(len(PALETTE) + 1) == colour(1) and len(set(PALETTE)) == len(PALETTE)


def test_colours_differ_in_brightness_too() -> None:
    """Chambers that touch can be told apart on a grey print: LV, RV, LA, RA, Myo, Ao, PA in this order."""
    grey = [0.299 * red + 0.587 * green + 0.114 * blue for red, green, blue in PALETTE[:7]]
    touching = [(0, 4), (0, 1), (0, 2), (1, 3), (2, 3), (5, 6)]
    assert min(abs(grey[a] - grey[b]) for a, b in touching) > 20
