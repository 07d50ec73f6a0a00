from __future__ import annotations

import numpy as np
import pytest

from common.data.intensity import Window
from common.data.reading import Pixels
from common.data.standardise import Standardiser
from common.errors import UserError
from common.trust.loaded import Loaded, prepared, prepared_label, standardised
from common.trust.settings import ReadingSettings


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
@pytest.mark.parametrize("shape", [(48, 32), (32, 64), (32, 32)])
def test_labels_lie_where_their_images_do(fit: str, shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, np.uint8)
    mask[8:24, 8:20] = 1
    settings = ReadingSettings(16, fit=fit)
    image = prepared(Pixels(mask.astype(np.float32), False, (0.0, 1.0)), settings)
    label = prepared_label(mask, settings)
    assert image.shape == label.shape == (16, 16) and set(np.unique(label)) == {0, 1}
    assert np.abs((image > 0.5).astype(int) - label).sum() <= 0.1 * label.sum() + 1


def test_a_given_source_range_wins_and_unknown_fits_are_refused() -> None:
    pixels = Pixels(np.full((4, 4), 30.0, np.float32), False, (0.0, 255.0))
    assert prepared(pixels, ReadingSettings(4, source_range=(10, 50)))[0, 0] == pytest.approx(0.5)
    assert prepared(pixels._replace(is_hu=True), ReadingSettings(4, Window(0, 60)))[0, 0] == pytest.approx(
        0.5
    )
    with pytest.raises(UserError, match="fit 'squash' is unknown"):
        prepared_label(np.zeros((4, 4), np.uint8), ReadingSettings(4, fit="squash"))


def test_the_models_look_is_given_scan_by_scan_but_not_to_hu() -> None:
    look = Standardiser("histogram", Window(-1000, 400))
    look.fit({"p": [np.linspace(0, 0.5, 64).reshape(8, 8)]})
    unit = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    slices = [Loaded(unit, None, name, "p", "p", is_hu) for name, is_hu in (("a", False), ("b", True))]
    eight_bits, hu = standardised(slices, look)
    assert eight_bits.unit.max() == pytest.approx(0.5) and hu.unit is unit and eight_bits.name == "a"
    assert standardised(slices, None) == slices
