"""Crops at another pixel size."""

from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.composition.grain import make_noise
from bundles.lung_two_stage.composition.outlines import NODULE_ALPHA
from bundles.lung_two_stage.composition.stamps import BORDER, make_stamp
from common.data.samples import ORIENTATIONS
from tests.bundles.lung_two_stage.composition.made import disc

CENTRE = np.array([20.0, 18.0])


def crop(radius: float = 6.0) -> tuple[np.ndarray, np.ndarray]:
    """A disc of 40 HU in lung of -800 HU with a noise of 20."""
    mask = disc(41, (20, 18), radius)
    noise = 20 * make_noise(np.random.default_rng(0), 41)
    return (np.where(mask, 40, -800) + noise).astype(np.int16), mask.astype(np.uint8) * 255


def test_at_its_own_spacing_a_crop_stays_and_its_centre_is_the_middle() -> None:
    hu, alpha = crop()
    stamp = make_stamp(hu, alpha, CENTRE, 0.7, 0.7)
    half = 6 + BORDER
    box = np.s_[20 - half : 21 + half, 18 - half : 19 + half]
    np.testing.assert_allclose(stamp.hu, hu[box], atol=1e-3)
    np.testing.assert_allclose(stamp.alpha, alpha[box] / 255)
    assert stamp.background == pytest.approx(-800, abs=4) and stamp.noise == pytest.approx(20, rel=0.25)


@pytest.mark.parametrize("spacing_mm", [0.35, 0.5, 1.4, 2.1])
def test_the_area_in_mm_stays(spacing_mm: float) -> None:
    hu, alpha = crop()
    stamp = make_stamp(hu, alpha, CENTRE, 0.7, spacing_mm)
    assert stamp.hu.shape == stamp.alpha.shape and stamp.hu.shape[0] % 2 == 1
    area = (alpha > 0).sum() * 0.7**2
    assert stamp.alpha.sum() * spacing_mm**2 == pytest.approx(area, rel=0.05)
    middle = stamp.hu.shape[0] // 2
    rows, columns = np.nonzero(stamp.alpha >= NODULE_ALPHA / 255)
    assert rows.mean() == pytest.approx(middle, abs=0.1) and columns.mean() == pytest.approx(middle, abs=0.1)
    assert stamp.alpha[0].max() == stamp.alpha[:, -1].max() == 0


def test_a_nodule_that_fills_its_crop_still_has_a_background() -> None:
    hu, alpha = crop(radius=60)
    hu[:8] = -700
    stamp = make_stamp(hu, alpha, CENTRE, 0.7, 0.7)
    assert stamp.background == pytest.approx(-700, abs=60) and stamp.noise == 0


def test_turning_turns_everything() -> None:
    hu, alpha = crop()
    hu[10, 18] = 1000
    stamp = make_stamp(hu, alpha, CENTRE, 0.7, 0.7)
    turned = stamp.turned(ORIENTATIONS["rot90"])  # counter-clockwise: the top becomes the left
    middle = stamp.hu.shape[0] // 2
    assert stamp.hu[0, middle] == turned.hu[middle, 0] == 1000
    np.testing.assert_array_equal(turned.alpha, np.rot90(stamp.alpha))
