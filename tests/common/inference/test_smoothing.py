from __future__ import annotations

import numpy as np
import pytest

from common.errors import UserError
from common.inference.flicker import flicker
from common.inference.smoothing import smooth_across

SHAPE = (12, 6, 5)  # slices, rows, columns


def two_structures() -> np.ndarray:
    """A border across the slices (at slice 5) on one side, another within them."""
    labels = np.ones(SHAPE, np.uint8)
    labels[5:, :, 3:] = 2
    labels[:, 4:] = 0
    return labels


def noisy(labels: np.ndarray, deviation: float = 20) -> np.ndarray:
    means = np.array([-900, 40, 300])[labels]
    return np.rint(means + np.random.default_rng(0).normal(0, deviation, SHAPE)).astype(np.int16)


def test_the_weights_are_a_gaussian() -> None:
    volume = np.zeros((15, 1, 1), np.float32)
    volume[7] = 1.0
    smooth = smooth_across(volume, np.ones(volume.shape, np.uint8), 1.0)[:, 0, 0]
    weights = np.exp(-0.5 * np.arange(-3, 4) ** 2.0)
    np.testing.assert_allclose(smooth[4:11], weights / weights.sum(), rtol=1e-6)
    assert not smooth[:4].any() and not smooth[11:].any()


def test_flicker_falls_and_the_borders_stay() -> None:
    labels = two_structures()
    volume = noisy(labels)
    smooth = smooth_across(volume, labels, 1.0)
    assert smooth.dtype == np.int16 and smooth.shape == SHAPE
    before, after = (flicker(v, labels, ("LV", "Ao"))["structures"].across for v in (volume, smooth))
    assert after < 0.5 * before
    for label, mean in enumerate((-900, 40, 300)):  # a mixed border voxel would be 100 HU off
        assert np.abs(smooth[labels == label] - mean).max() < 60
    assert np.abs(smooth_across(volume, np.ones_like(labels), 1.0) - smooth).max() > 80  # labels matter


def test_constant_structures_stay_exactly() -> None:
    labels = two_structures()
    volume = noisy(labels, deviation=0)
    assert (smooth_across(volume, labels, 2.5) == volume).all()


def test_a_single_voxel_of_its_label_stays() -> None:
    volume = np.arange(5, dtype=np.int16)[:, None, None] ** 2
    labels = np.array([1, 1, 2, 1, 1])[:, None, None]
    assert smooth_across(volume, labels, 1.0)[2] == volume[2]


def test_none_is_none_and_the_source_is_not_touched() -> None:
    labels = two_structures()
    volume = noisy(labels)
    copy = volume.copy()
    assert smooth_across(volume, labels, 0) is volume
    smooth_across(volume, labels, 1.0)
    assert (volume == copy).all()
    one = volume[:1]
    assert (smooth_across(one, labels[:1], 1.0) == one).all()


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf"), "much", True, None])
def test_a_width_that_makes_no_sense_is_one_line(sigma: object) -> None:
    volume = np.zeros(SHAPE, np.int16)
    with pytest.raises(UserError, match="smooth_slices"):
        smooth_across(volume, volume, sigma)  # type: ignore[arg-type]
