"""Outlines at half of the contrast, against discs whose width is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from bundles.lung_two_stage.composition.grain import make_noise
from bundles.lung_two_stage.composition.seeing import Outline, _largest, outline_of
from tests.bundles.lung_two_stage.composition.made import disc

SIDE = 61


def blurred(radius: float, pixels: float = 1.0, middle: float = 30.0) -> np.ndarray:
    """A disc of contrast 1 and that radius in pixels, blurred, its rim as fine as an eighth of a pixel."""
    fine = disc(SIDE * 8, (middle * 8 + 3.5, 30 * 8 + 3.5), radius * 8).astype(np.float32)
    return gaussian_filter(fine.reshape(SIDE, 8, SIDE, 8).mean((1, 3)), pixels)


def seen(contrast: np.ndarray, drawn: np.ndarray, pixel_mm: float = 0.7, noise: float = 0.0) -> Outline:
    near = disc(SIDE, (30, 30), 25)
    return outline_of(contrast.astype(np.float32), near, drawn, pixel_mm, noise)


@pytest.mark.parametrize("radius", [2.5, 4.3, 8.0, 14.2])
@pytest.mark.parametrize("pixel_mm", [0.4, 0.7, 1.4, 2.8])
def test_a_disc_is_as_wide_as_it_is(radius: float, pixel_mm: float) -> None:
    found = seen(850 * blurred(radius, 0.5), disc(SIDE, (30, 30), 2 * radius), pixel_mm)
    assert found.diameter_mm == pytest.approx(2 * radius * pixel_mm, rel=0.03)
    np.testing.assert_allclose(found.points.mean(axis=0), 30, atol=0.1)


def test_noise_and_a_generous_mask_do_not_widen_it() -> None:
    contrast = 850 * blurred(6) + 40 * make_noise(np.random.default_rng(0), SIDE)
    generous = seen(contrast, disc(SIDE, (30, 30), 11), noise=40)
    assert generous.diameter_mm == pytest.approx(12 * 0.7, rel=0.03)


def test_ground_glass_around_a_solid_part_belongs_to_it() -> None:
    """Half of the brightest would leave a disc of 3 pixels."""
    part_solid = 250 * blurred(12) + 600 * blurred(3)
    assert seen(part_solid, disc(SIDE, (30, 30), 12)).diameter_mm == pytest.approx(24 * 0.7, rel=0.04)


def test_of_two_the_one_that_was_drawn_and_holes_are_filled() -> None:
    contrast = 850 * (blurred(5, middle=20) - blurred(2, 0.5, middle=20) + blurred(7, middle=42))
    found = seen(contrast, disc(SIDE, (20, 30), 4))
    assert found.diameter_mm == pytest.approx(10 * 0.7, rel=0.04)
    np.testing.assert_allclose(found.points.mean(axis=0), [20, 30], atol=0.1)


def test_where_nothing_can_be_seen_the_mask_counts() -> None:
    drawn = disc(SIDE, (30, 30), 5)
    found = seen(np.zeros((SIDE, SIDE)), drawn)
    assert found.diameter_mm == pytest.approx(2 * np.sqrt(drawn.sum() / np.pi) * 0.7, rel=1e-6)
    np.testing.assert_allclose(found.points.mean(axis=0), 30, atol=1e-9)


def test_a_speck_of_noise_is_not_the_nodule() -> None:
    """Too faint to be seen, but for some pixels on which noise lies."""
    drawn = disc(SIDE, (30, 30), 2 / 0.7)
    for seed in range(8):
        contrast = 60 * blurred(2 / 0.7) + 10 * make_noise(np.random.default_rng(seed), SIDE)
        assert seen(contrast, drawn, noise=10).diameter_mm > 2


def test_what_lies_beside_the_mask_is_not_the_nodule() -> None:
    drawn = disc(SIDE, (20, 30), 4)
    found = seen(850 * blurred(7, middle=42), drawn)
    np.testing.assert_allclose(found.points.mean(axis=0), [20, 30], atol=1e-9)
    assert not _largest(disc(SIDE, (42, 30), 7) | disc(SIDE, (8, 30), 2), drawn).any()
