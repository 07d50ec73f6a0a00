"""HU to the network and back."""

from __future__ import annotations

import numpy as np
import torch

from bundles.lung_two_stage.enhancement.images import to_changed_hu, to_images
from common.data.intensity import Window

WINDOW = Window(-1000, 400)
HU = np.array([[[-2000, -1000, -301], [400, 399, 1500]]], np.int16)


def test_the_window_becomes_the_range() -> None:
    images = to_images(HU, WINDOW)
    assert images.shape == (1, 1, 2, 3) and images.dtype == torch.float32
    torch.testing.assert_close(images[0, 0, :, 0], torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(images[0, 0, 0, 2], torch.tensor((699 / 1400) * 2 - 1))


def test_what_the_window_cuts_off_comes_back() -> None:
    np.testing.assert_array_equal(to_changed_hu(to_images(HU, WINDOW), HU, WINDOW), HU)


def test_a_change_is_one_of_hu_outside_of_the_window_too() -> None:
    changed = to_changed_hu(to_images(HU, WINDOW).clamp(-0.9, 0.9), HU, WINDOW)
    assert changed.tolist() == [[[-1930, -930, -301], [330, 330, 1430]]]
