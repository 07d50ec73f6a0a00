"""Noise made is noise measured."""

from __future__ import annotations

import numpy as np
import pytest

from bundles.lung_two_stage.composition.grain import NEIGHBOUR, grain_of, make_noise, noise_of


def test_made_noise_has_deviation_1_and_correlated_neighbours() -> None:
    noise = make_noise(np.random.default_rng(0), 300)
    assert noise.shape == (300, 300) and noise.dtype == np.float32
    assert noise.std() == pytest.approx(1, abs=0.01) and abs(noise.mean()) < 0.02
    neighbours = float(np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1])
    assert neighbours == pytest.approx(2 * NEIGHBOUR / (1 + 2 * NEIGHBOUR**2), abs=0.02)


def test_measuring_finds_what_was_made_in_spite_of_a_slope_and_a_vessel() -> None:
    noise = 25 * make_noise(np.random.default_rng(1), 60)
    image = noise - 850 + 0.5 * np.arange(60, dtype=np.float32)
    image[:, 20:22] += 700
    assert noise_of(grain_of(image)) == pytest.approx(25, rel=0.15)


def test_a_flat_image_has_no_grain() -> None:
    assert noise_of(grain_of(np.full((9, 9), -800, np.float32))) == 0
