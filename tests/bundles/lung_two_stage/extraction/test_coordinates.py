from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.extraction.coordinates import (
    LEFT,
    RIGHT,
    LungBox,
    LungPoint,
    lung_box,
    lung_point,
)


def two_lungs() -> np.ndarray:
    """Right lung rows 2..5, columns 1..4; left lung rows 3..10, columns 8..9."""
    lung = np.zeros((12, 12), np.uint8)
    lung[2:6, 1:5], lung[3:11, 8:10] = RIGHT, LEFT
    return lung


def test_boxes_are_tight_and_apart() -> None:
    assert lung_box(two_lungs(), RIGHT) == LungBox(2, 6, 1, 5)
    assert lung_box(two_lungs(), LEFT) == LungBox(3, 11, 8, 10)
    assert lung_box(np.zeros((4, 4), np.uint8), LEFT) is None


def test_points_are_relative_to_the_box_of_their_own_lung() -> None:
    assert lung_point(two_lungs(), 2, 1) == LungPoint(RIGHT, 0.125, 0.125)
    assert lung_point(two_lungs(), 3.5, 2.5) == LungPoint(RIGHT, 0.5, 0.5)
    assert lung_point(two_lungs(), 10, 8) == LungPoint(LEFT, 0.9375, 0.25)


def test_a_centre_beside_the_lung_belongs_to_the_nearest_one() -> None:
    assert lung_point(two_lungs(), 5, 11) == LungPoint(LEFT, 0.3125, 1.0)
    assert lung_point(two_lungs(), 0, 2) == LungPoint(RIGHT, 0.0, pytest.approx(0.375))
    assert lung_point(np.zeros((4, 4), np.uint8), 1, 1) is None
