from __future__ import annotations

import math

import numpy as np
import pytest

from common.data.replay import noise_coordinates, slice_noise

SIDE = 48


def noise(name: str, mm: float = math.nan, seed: int = 0, channels: int = 2) -> np.ndarray:
    place = noise_coordinates(name, mm)
    return slice_noise(seed, place["noise_key"], place["noise_mm"], channels, SIDE)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def test_a_picture_has_the_noise_of_its_name_alone() -> None:
    found = noise("case_07")
    assert found.shape == (2, SIDE, SIDE) and found.dtype == np.float32
    np.testing.assert_array_equal(found, noise("case_07"))
    assert abs(float(found.mean())) < 0.06 and float(found.std()) == pytest.approx(1.0, abs=0.05)
    for other in (noise("case_08"), noise("case_07", seed=1), noise("case_07", 0.0)):
        assert abs(correlation(found, other)) < 0.06


@pytest.mark.parametrize(
    ("distance", "expected"), [(0.7, 0.970), (1.0, 0.939), (3.0, 0.570), (5.0, 0.210), (10.0, 0.002)]
)
@pytest.mark.parametrize("start", [-31.3, 0.0, 57.1])
def test_a_volume_has_one_field_without_columns(start: float, distance: float, expected: float) -> None:
    here, there = noise("scan", start, channels=6), noise("scan", start + distance, channels=6)
    assert float(here.std()) == pytest.approx(1.0, abs=0.04)
    assert correlation(here, there) == pytest.approx(expected, abs=0.03)
    assert abs(correlation(here, noise("other", start, channels=6))) < 0.05


def test_slices_are_white_within_and_in_any_order_the_same() -> None:
    forwards = [noise("scan", 0.9 * index) for index in range(12)]
    backwards = [noise("scan", 0.9 * index) for index in reversed(range(12))][::-1]
    np.testing.assert_array_equal(forwards, backwards)
    assert abs(correlation(forwards[5][:, 1:], forwards[5][:, :-1])) < 0.06
