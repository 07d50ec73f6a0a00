from __future__ import annotations

import pytest

from common.data.intensity import Window
from common.data.standardise import Standardiser
from common.errors import UserError
from common.trust.settings import ReadingSettings


def test_what_stands_beside_a_model_says_how_to_read() -> None:
    plain = ReadingSettings.of({})
    assert (plain.image_size, plain.kind, plain.fit, plain.standardiser) == (128, "pairs", "stretch", None)
    look = Standardiser("landmarks", Window(-1000, 400)).state()
    images = ReadingSettings.of(
        {"image_size": 64, "window_hu": [-500, 100], "fit": "crop", "standardiser": look}, slices="central"
    )
    assert (images.image_size, images.window, images.fit) == (64, Window(-500, 100), "crop")
    assert images.kind == "images" and images.slices == "central"
    assert images.standardiser is not None and images.standardiser.state() == look
    heart = {"image_size": 32, "intensity": {"kind": "percentile", "lower": 1, "upper": 99}}
    assert ReadingSettings.of(heart).kind == "structures"
    masks = ReadingSettings.of({"image_size": 32, "fit": "pad", "empty_masks": "drop"})
    assert (masks.kind, masks.fit) == ("pairs", "pad")
    assert ReadingSettings.of({"image_size": [96, 96]}).image_size == 96


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="square images"):
        ReadingSettings.of({"image_size": [96, 64]})
    with pytest.raises(UserError, match="slices 'some' is unknown"):
        ReadingSettings(slices="some")
    with pytest.raises(UserError, match="image_size 0"):
        ReadingSettings(0)


def test_images_of_any_generator_are_padded_to_squares() -> None:
    plain = ReadingSettings.of_any_generator()
    assert (plain.image_size, plain.window, plain.fit) == (128, Window(-1000, 400), "pad")
    own = ReadingSettings.of_any_generator(Window(-160, 240), 96)
    assert (own.image_size, own.window) == (96, Window(-160, 240))
