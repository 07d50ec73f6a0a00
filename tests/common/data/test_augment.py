from __future__ import annotations

import numpy as np
import pytest

from common.data.augment import Augmentation, AugmentationDraw, apply_to_image, apply_to_mask
from common.random import generator

IMAGE = np.zeros((21, 21), np.float32)
IMAGE[4:7, 12:15] = 1.0


def centre(array: np.ndarray) -> tuple[float, float]:
    return tuple(float(axis.mean()) for axis in np.nonzero(array > 0.5))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (AugmentationDraw(), (5, 13)),
        (AugmentationDraw(flip=True), (5, 7)),
        (AugmentationDraw(shift=(2 / 21, -3 / 21)), (7, 10)),
        (AugmentationDraw(rotation=np.pi / 2), (7, 5)),
        (AugmentationDraw(scale=1.5), (2.5, 14.5)),
    ],
)
def test_known_moves_of_image_and_mask(draw: AugmentationDraw, expected: tuple[float, float]) -> None:
    assert centre(apply_to_image(IMAGE, draw)) == pytest.approx(expected, abs=0.6)
    assert centre(apply_to_mask(IMAGE, draw)) == pytest.approx(expected, abs=0.6)


def test_masks_stay_binary() -> None:
    moved = apply_to_mask(IMAGE, AugmentationDraw(rotation=0.3, scale=1.07, shift=(0.02, 0.01)))
    assert set(np.unique(moved)) == {0.0, 1.0} and moved.dtype == np.float32


def test_gamma_changes_the_image_alone() -> None:
    draw = AugmentationDraw(gamma=2.0)
    assert apply_to_image(IMAGE * 0.5, draw).max() == pytest.approx(0.25)
    assert apply_to_mask(IMAGE, draw).max() == 1.0


def test_draws_repeat_and_stay_in_range() -> None:
    augmentation = Augmentation(gamma=0.2)
    draws = [augmentation.draw(generator(3, "augmentation", 1, k)) for k in range(200)]
    assert draws[7] == augmentation.draw(generator(3, "augmentation", 1, 7)) != draws[8]
    assert 60 < sum(draw.flip for draw in draws) < 140
    assert max(abs(draw.rotation) for draw in draws) <= np.deg2rad(6) and max(d.scale for d in draws) <= 1.06
