from __future__ import annotations

import pytest
import torch

from common.metrics.pixels import pattern_vectors, pixel_vectors


def test_pixels_are_means_of_areas_in_the_unit_interval() -> None:
    image = torch.full((1, 1, 4, 8), -1.0)
    image[0, 0, :2, :2] = 1
    image[0, 0, 3, 7] = 1
    assert pixel_vectors(image, 2).tolist() == [[0.5, 0, 0, 0.125]]


def test_small_images_stay_as_they_are() -> None:
    image = torch.tensor([[-1.0, 0.0, 1.0], [0.5, -0.5, 0.0]])[None, None]
    assert pixel_vectors(image, 8).tolist() == [[0, 0.5, 1, 0.75, 0.25, 0.5]]


def test_patterns_forget_level_and_contrast() -> None:
    image = torch.tensor([[-1.0, 0.0], [0.5, 0.5]])[None, None]
    images = torch.cat([image, image / 4 - 0.5, -image, torch.zeros_like(image)])
    patterns = pattern_vectors(images, 2)
    assert patterns[0].tolist() == pytest.approx([-1 / 1.5**0.5, 0, 0.5 / 1.5**0.5, 0.5 / 1.5**0.5])
    assert torch.allclose(patterns[0], patterns[1]) and torch.allclose(patterns[0], -patterns[2])
    assert patterns[3].tolist() == [0, 0, 0, 0]
