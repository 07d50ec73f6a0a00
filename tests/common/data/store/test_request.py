from __future__ import annotations

from pathlib import Path

import pytest

from common.data.store.request import Geometry, Intensity, Request
from common.errors import UserError


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Geometry(8, axis="oblique"), "axial, coronal, sagittal"),
        (lambda: Geometry(8, interpolation="cubic"), "area, linear"),
        (lambda: Geometry(0), "image_size 0"),
        (lambda: Geometry(8, spacing=0.0), "spacing 0"),
        (lambda: Geometry(8, spacing=float("nan")), "spacing nan"),
        (lambda: Intensity("gray"), "window, percentile"),
        (lambda: Intensity("window", 5, 5), "below the upper"),
        (lambda: Intensity("percentile", -1, 99), "0..100"),
        (lambda: Request(Path("a.nii"), "mask"), "image, label"),
        (lambda: Request(Path("a.nii"), "image"), "a.nii: an image needs a window"),
        (lambda: Request(Path("a.png"), "label", orientation="up"), "identity"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)
