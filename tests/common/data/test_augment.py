from __future__ import annotations

import numpy as np
import pytest

from common.data.augment import (
    FEW,
    LIGHT,
    Augmentation,
    AugmentationDraw,
    apply_to_image,
    apply_to_mask,
    augmentation,
)
from common.errors import UserError
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
    ranges = Augmentation(flip=0.5, gamma=0.2)
    draws = [ranges.draw(generator(3, "augmentation", 1, k)) for k in range(200)]
    assert draws[7] == ranges.draw(generator(3, "augmentation", 1, 7)) != draws[8]
    assert 60 < sum(draw.flip for draw in draws) < 140
    assert max(abs(draw.rotation) for draw in draws) <= np.deg2rad(6) and max(d.scale for d in draws) <= 1.06


def test_settings_of_configs() -> None:
    assert augmentation("auto", FEW) is augmentation("light", 10**6) is LIGHT
    for nothing in (augmentation("auto", FEW + 1), augmentation("none", 3), augmentation(None, 3)):
        assert nothing is None
    assert augmentation({"flip": 0.25}, 3) == Augmentation(flip=0.25)
    with pytest.raises(UserError, match="augment 'strong' is unknown; choose auto, light, none"):
        augmentation("strong", 3)
    with pytest.raises(UserError, match="augment has no setting 'flips'; it has flip, gain"):
        augmentation({"flips": 0.5}, 3)


def test_light_augmentation_mirrors_nothing_and_stays_small() -> None:
    draws = [LIGHT.draw(generator(0, "augmentation", 0, k)) for k in range(500)]
    assert not any(draw.flip for draw in draws)
    turns = np.rad2deg([draw.rotation for draw in draws])
    assert 5.5 < turns.max() <= 6 and -6 <= turns.min() < -5.5
    assert 1.05 < max(draw.scale for draw in draws) <= 1.06
    assert 0.035 < max(abs(share) for draw in draws for share in draw.shift) <= 0.04
    assert 0.98 <= min(draw.gain for draw in draws) < 0.981 and {draw.gamma for draw in draws} == {1.0}


def test_gain_scales_the_image_alone_and_within_its_range() -> None:
    draw = AugmentationDraw(gain=1.02)
    assert apply_to_image(IMAGE * 0.5, draw).max() == pytest.approx(0.51)
    assert apply_to_image(IMAGE, draw).max() == 1.0 == apply_to_mask(IMAGE, draw).max()


def test_a_seventh_draw_leaves_the_first_six() -> None:
    drawn = Augmentation(flip=0.5, gamma=0.1).draw(generator(3, "augmentation", 1, 4))
    first = generator(3, "augmentation", 1, 4).random(6)
    assert drawn.flip == (first[0] < 0.5) and drawn.gamma == pytest.approx(np.exp(0.1 * (2 * first[5] - 1)))
