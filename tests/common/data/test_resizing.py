from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from common.data.resizing import fit_mask, fit_square, resize_mask, unfit_square
from common.errors import UserError


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
