from __future__ import annotations

import numpy as np
import pytest

from common.data.resizing import fit_square, resize_mask
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
