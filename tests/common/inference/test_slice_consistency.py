from __future__ import annotations

import math

import numpy as np
import pytest

from common.errors import UserError
from common.inference.slice_consistency import flicker, smooth_across

SHAPE = (8, 6, 5)  # slices, rows, columns
CLASSES = ("LV", "Ao")


def whole(label: int = 1) -> np.ndarray:
    return np.full(SHAPE, label, np.uint8)


def alternating(offset: float) -> np.ndarray:
    """Slices of 40 HU, by turns ``offset`` above and below."""
    signs = (-1.0) ** np.arange(SHAPE[0])
    return (40 + offset * signs)[:, None, None] * np.ones(SHAPE)


def test_a_constant_volume_and_a_ramp_do_not_flicker() -> None:
    ramp = 3 * np.arange(SHAPE[0])[:, None, None] - 7 * np.arange(SHAPE[1])[:, None] + np.zeros(SHAPE)
    for volume in (np.full(SHAPE, -100, np.int16), ramp.astype(np.int16)):
        found = flicker(volume, whole(), CLASSES)["structures"]
        assert (found.across, found.within, found.voxels) == (0.0, 0.0, 6 * 6 * 5)
        assert math.isnan(found.ratio)


def test_alternating_offsets_count_twice_and_only_across() -> None:
    found = flicker(alternating(25).astype(np.int16), whole(), CLASSES)["structures"]
    assert (found.across, found.within) == (50.0, 0.0)


def test_stripes_within_slices_are_no_flicker() -> None:
    stripes = (10.0 * (-1.0) ** np.arange(SHAPE[2])) * np.ones(SHAPE)  # along columns only
    found = flicker(stripes, whole(), CLASSES)["structures"]
    rows, columns = 4 * 5, 6 * 3  # inner voxels of a slice along each axis
    assert found.across == 0.0 and found.within == pytest.approx(20 * columns / (rows + columns))
    assert found.ratio == 0.0


def test_noise_is_as_rough_across_as_within() -> None:
    noise = np.random.default_rng(0).normal(0, 10, (40, 40, 40))
    found = flicker(noise, np.ones(noise.shape, np.uint8), CLASSES)["structures"]
    assert found.across == pytest.approx(9.77, rel=0.02) and found.ratio == pytest.approx(1, abs=0.02)


def test_a_jump_at_a_border_of_structures_is_no_flicker() -> None:
    labels = whole()
    labels[4:] = 2
    volume = np.where(labels == 1, 40, 300).astype(np.int16)
    found = flicker(volume, labels, CLASSES)
    assert found["structures"].across == 0.0 and found["structures"].voxels == 4 * 30
    assert [found[name].voxels for name in CLASSES] == [60, 60]
    assert flicker(volume, whole(), CLASSES)["structures"].across > 0  # the same jump without the border


def test_structures_and_background_are_told_apart() -> None:
    labels = whole(0)
    labels[:, :3] = 2
    volume = np.where(labels == 2, alternating(25), alternating(1))
    found = flicker(volume, labels, CLASSES)
    assert set(found) == {"structures", "background", "Ao"}  # no voxel of LV
    assert found["structures"].across == found["Ao"].across == 50.0
    assert found["background"].across == 2.0


@pytest.mark.parametrize("slices", [1, 2])
def test_too_few_slices_are_said_and_json_able(slices: int) -> None:
    found = flicker(np.zeros((slices, 6, 5)), np.ones((slices, 6, 5), np.uint8), CLASSES)["structures"]
    assert str(found) == "none to measure"
    assert found.as_json() == {
        "across": None,
        "within": 0.0,
        "ratio": None,
        "columns": None,
        "voxels": 0,
    }


def test_it_reads_in_one_line() -> None:
    volume = alternating(25) + 10 * (-1.0) ** np.arange(SHAPE[1])[:, None]
    found = flicker(volume, whole(), CLASSES)["structures"]
    assert str(found) == "50.0 across slices, 10.5 within (ratio 4.75)"


def field(columns: float, depth: int = 30) -> np.ndarray:
    """Noise of deviation 10 whose slices have the share ``columns`` of their variance in common."""
    random = np.random.default_rng(4)
    common, own = random.normal(0, 10, (1, 50, 40)), random.normal(0, 10, (depth, 50, 40))
    return np.sqrt(columns) * common + np.sqrt(1 - columns) * own


@pytest.mark.parametrize(("share", "ratio"), [(0.0, 1.0), (0.3, 0.84), (1.0, 0.0)])
def test_columns_are_told_from_a_calm_volume(share: float, ratio: float) -> None:
    volume = field(share)
    found = flicker(volume, np.ones(volume.shape, np.uint8), CLASSES)["structures"]
    assert found.columns == pytest.approx(share, abs=0.02)
    assert found.ratio == pytest.approx(ratio, abs=0.02)  # which alone would call columns the best
    assert f"columns {found.columns:.2f}" in str(found)


def test_columns_are_looked_for_ten_millimetres_apart() -> None:
    volume = field(0.0, 9).repeat(5, axis=0)  # alike over 5 slices
    labels = np.ones(volume.shape, np.uint8)
    for slice_mm, expected in ((2.0, 0.0), (4.0, 0.6), (10.0, 0.8)):
        found = flicker(volume, labels, CLASSES, slice_mm)["structures"]
        assert found.columns == pytest.approx(expected, abs=0.06)
    few = flicker(volume, labels, CLASSES, slice_mm=0.2)["structures"]
    assert math.isnan(few.columns) and few.as_json()["columns"] is None


def test_borders_of_structures_are_no_columns() -> None:
    labels = np.zeros((12, 20, 20), np.uint8)
    labels[:, 5:14, 6:13] = 1
    volume = np.where(labels == 1, 300.0, 40.0) + np.random.default_rng(0).normal(0, 5, labels.shape)
    assert abs(flicker(volume, labels, CLASSES)["structures"].columns) < 0.15
    assert abs(flicker(volume, labels, CLASSES)["background"].columns) < 0.15


SHAPE_SMOOTHING = (12, 6, 5)  # slices, rows, columns


def two_structures() -> np.ndarray:
    """A border across the slices (at slice 5) on one side, another within them."""
    labels = np.ones(SHAPE_SMOOTHING, np.uint8)
    labels[5:, :, 3:] = 2
    labels[:, 4:] = 0
    return labels


def noisy(labels: np.ndarray, deviation: float = 20) -> np.ndarray:
    means = np.array([-900, 40, 300])[labels]
    return np.rint(means + np.random.default_rng(0).normal(0, deviation, SHAPE_SMOOTHING)).astype(np.int16)


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
    assert smooth.dtype == np.int16 and smooth.shape == SHAPE_SMOOTHING
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
    volume = np.zeros(SHAPE_SMOOTHING, np.int16)
    with pytest.raises(UserError, match="smooth_slices"):
        smooth_across(volume, volume, sigma)  # type: ignore[arg-type]
