"""What an explorer accepts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.errors import UserError
from common.explorer import Atlas
from tests.common.explorer.made import made_explorer


def test_dimensions_are_those_of_the_points() -> None:
    assert made_explorer().dimensions == 2


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((3, 5)), "latent of 5 values cannot be shown"),
        (np.zeros((5001, 2)), "5001 points"),
        (np.array([[0, np.nan]] * 3), "not finite"),
    ],
)
def test_latents_that_cannot_be_shown(points: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        made_explorer(points=points)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": np.zeros((0, 2))}, "points are"),
        ({"classes": np.array([0, 1])}, "one class a point"),
        ({"classes": np.array([0, 1, 2])}, "classes index class_names"),
        ({"classes": np.array([0.0, 1, 1])}, "classes are integers"),
        ({"class_names": list("abcdefg")}, "one to 6 classes"),
        ({"names": ["only"]}, "1 names for 3 points"),
        ({"thumbnails": np.zeros((3, 8, 9), np.uint8)}, "thumbnails are"),
        ({"thumbnails": np.zeros((3, 8, 8))}, "thumbnails are uint8"),
        ({"value_range": (1.0, -1.0)}, "value range"),
        ({"image_size": 5}, "the decoder gives 16 values"),
        ({"points": np.zeros((3, 3))}, "the decoder takes 2 values"),
        ({"decoder": []}, "at least one layer"),
    ],
)
def test_parts_that_do_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made_explorer(**changes)


def test_layers_must_follow_each_other() -> None:
    first, last = made_explorer().decoder
    with pytest.raises(ValueError, match="do not follow each other"):
        made_explorer(decoder=[first, first, last])


@pytest.mark.parametrize(
    ("shape", "corners", "message"),
    [
        ((2, 2, 4, 5), 4, "atlas is"),
        ((1, 2, 4, 4), 4, "at least 2 x 2"),
        ((2, 2, 4, 4), 3, "four corners"),
    ],
)
def test_atlas_that_does_not_fit(shape: tuple[int, ...], corners: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Atlas(np.zeros(shape, np.uint8), ["corner"] * corners)
