from __future__ import annotations

import numpy as np
import pytest

from common.data.severity import lung_slices, severity_of


@pytest.mark.parametrize(
    ("share", "name"),
    [(0.0, "none"), (0.001, "mild"), (0.049, "mild"), (0.05, "moderate"), (0.149, "moderate"),
     (0.15, "severe"), (1.0, "severe")],
)  # fmt: skip
def test_borders(share: float, name: str) -> None:
    assert severity_of(share) == name


def test_slices_by_their_own_share_of_lung() -> None:
    lung = np.zeros((10, 20, 5), np.uint8)
    lesion = np.zeros_like(lung)
    lung[:5, :10, 1:4] = 2  # 50 of 200 pixels
    lung[0, :9, 4] = 1  # 4.5 per cent of the slice
    lesion[8, :, 1] = 1  # outside of the lung
    lesion[0, :2, 2] = 1  # 4 per cent
    lesion[:1, :, 3] = 2  # 10 of its 20 pixels lie in the lung: 20 per cent
    assert lung_slices(lung, lesion) == {1: "none", 2: "mild", 3: "severe"}
    assert lung_slices(lung, lesion, least=0.0) == {1: "none", 2: "mild", 3: "severe", 4: "none"}
    assert lung_slices(lung * 0, lesion, least=0.0) == {}
