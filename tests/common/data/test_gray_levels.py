"""HU of pictures that were stretched one by one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from common.data.intensity import CROP_LUNG_HU, CROP_TISSUE_HU, WINDOWS, hu_by_levels, levels_of


def chest() -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """HU of a wall (fat, muscle and a rib), lung, a nodule, and the outside of the scan."""
    random = np.random.default_rng(0)
    hu = np.full((128, 128), CROP_LUNG_HU)
    hu[:, 90:] = -100.0
    hu[:, 98:] = CROP_TISSUE_HU
    hu[40:60, 104:110] = 800.0
    rows, columns = np.mgrid[:128, :128]
    nodule = (rows - 60) ** 2 + (columns - 50) ** 2 < 36
    hu[nodule] = -20.0
    hu += random.normal(0, 25, hu.shape)
    hu[110:, 115:] = -2000.0
    return hu, nodule


@pytest.mark.parametrize("span", [(-1200.0, 1000.0), (-2000.0, 3000.0)])
def test_a_stretched_picture_gets_its_hu_back(span: tuple[float, float]) -> None:
    hu, nodule = chest()
    gray = np.rint((hu.clip(*span) - span[0]) / (span[1] - span[0]) * 255)
    found = hu_by_levels(gray, nodule, WINDOWS["lung"])
    assert np.median(found[20:100, 10:40]) == pytest.approx(CROP_LUNG_HU, abs=15)
    assert np.median(found[70:100, 100:]) == pytest.approx(CROP_TISSUE_HU, abs=35)  # not fat
    assert found[nodule].mean() == pytest.approx(-20, abs=35)


def test_a_picture_of_lung_alone_has_no_levels() -> None:
    gray = np.full((64, 64), 100.0)
    gray[0, 0] = 0
    assert levels_of(gray, np.zeros(gray.shape, bool)) is None
    found = hu_by_levels(gray, np.zeros(gray.shape, bool), WINDOWS["lung"])
    assert found[0, 0] == -1000 and found[5, 5] == 400
