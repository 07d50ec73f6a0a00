from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from common.data.transforms import (
    FEW,
    LIGHT,
    Augmentation,
    AugmentationDraw,
    apply_to_image,
    apply_to_mask,
    augmentation,
    fit_mask,
    fit_square,
    resize_mask,
    unfit_square,
)
from common.errors import UserError
from common.rng import make_rng


def striped(height: int, width: int) -> np.ndarray:
    """0.5 everywhere but for a white first row and first column."""
    image = np.full((height, width), 0.5, np.float32)
    image[0], image[:, 0] = 1.0, 1.0
    return image


def test_padding_keeps_the_aspect_and_the_middle() -> None:
    wide = fit_square(striped(4, 8), 8)
    np.testing.assert_array_equal(wide[2:6], striped(4, 8))
    assert not wide[:2].any() and not wide[6:].any()
    tall = fit_square(striped(8, 4), 8)
    np.testing.assert_array_equal(tall[:, 2:6], striped(8, 4))
    assert fit_square(striped(30, 60), 8).astype(bool).sum() == 32


def test_cropping_takes_the_middle() -> None:
    image = np.arange(8, dtype=np.float32)[None].repeat(4, 0) / 8
    np.testing.assert_array_equal(fit_square(image, 4, "crop"), image[:, 2:6])
    np.testing.assert_array_equal(fit_square(image.T, 4, "crop"), image[:, 2:6].T)


def test_odd_sizes_fill_the_square() -> None:
    for shape in ((7, 5), (5, 7), (1, 9)):
        for fit in ("pad", "crop", "stretch"):
            assert fit_square(np.ones(shape, np.float32), 6, fit).shape == (6, 6)
        assert fit_square(np.ones(shape, np.float32), 6, "crop").all()


def test_stretching_changes_the_aspect() -> None:
    assert fit_square(np.ones((3, 9), np.float32), 6, "stretch").all()
    with pytest.raises(UserError, match="fit 'squeeze' is unknown; choose one of pad, crop, stretch"):
        fit_square(np.ones((3, 9), np.float32), 6, "squeeze")


def test_masks_get_no_new_labels() -> None:
    mask = np.array([[0, 3], [7, 3]], np.uint8)
    assert set(np.unique(resize_mask(mask, 9, 5))) == {0, 3, 7}


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(61, 97), (97, 61), (40, 41), (64, 200)])
def test_there_and_back_within_half_a_pixel(shape: tuple[int, int], fit: str) -> None:
    rows, columns = np.indices(shape)
    row, column = shape[0] * 0.55, shape[1] * 0.46  # off the middle, within all crops
    mask = (((rows - row) / 9) ** 2 + ((columns - column) / 5) ** 2 < 1).astype(np.uint8)
    square = fit_square(mask.astype(np.float32), 48, fit)
    back = unfit_square(square, *shape, fit)
    assert back.shape == shape and back.dtype == np.float32
    assert center_of_mass(back) == pytest.approx(center_of_mass(mask), abs=0.5)
    assert back.sum() == pytest.approx(mask.sum(), rel=0.03)
    placed = fit_mask(mask, 48, fit)  # the image's label lies where the image does
    assert center_of_mass(placed) == pytest.approx(center_of_mass(square), abs=0.5)


def test_only_stretching_changes_the_shape_of_things() -> None:
    rows, columns = np.indices((50, 100))
    disc = (np.hypot(rows - 24, columns - 60) < 15).astype(np.uint8)
    extents = {
        fit: np.ptp(np.nonzero(fit_mask(disc, 50, fit)), axis=1) + 1 for fit in ("pad", "crop", "stretch")
    }
    assert extents["pad"] == pytest.approx([14.5, 14.5], abs=0.5)
    assert extents["crop"] == pytest.approx([29, 29], abs=0.5)
    assert extents["stretch"] == pytest.approx([29, 14.5], abs=0.5)


def test_what_was_cropped_comes_back_black() -> None:
    back = unfit_square(np.ones((8, 8), np.float32), 8, 16, "crop")
    assert back[:, 4:12].all() and not back[:, :3].any() and not back[:, 13:].any()


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
    draws = [ranges.draw(make_rng(3, "augmentation", 1, k)) for k in range(200)]
    assert draws[7] == ranges.draw(make_rng(3, "augmentation", 1, 7)) != draws[8]
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
    draws = [LIGHT.draw(make_rng(0, "augmentation", 0, k)) for k in range(500)]
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
    drawn = Augmentation(flip=0.5, gamma=0.1).draw(make_rng(3, "augmentation", 1, 4))
    first = make_rng(3, "augmentation", 1, 4).random(6)
    assert drawn.flip == (first[0] < 0.5) and drawn.gamma == pytest.approx(np.exp(0.1 * (2 * first[5] - 1)))
